import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rao_jax.policy import sampling
from tests import oracle

LOGITS = np.array([[0.0, 1.0, 2.0, 5.0], [3.0, -1.0, 0.5, 9.0]], np.float32)
ALLOWED = np.array([True, True, True, False])
both = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])


@both
def test_masked_log_softmax_at_temperature_two(wrap):
  # Logits 0, 2 log 3 over temperature 2: odds 1 : 3, the third token masked: log(1/4), log(3/4).
  logits = jnp.array([0.0, 2 * np.log(3.0), 7.0])
  logp = wrap(sampling.masked_log_softmax)(logits, jnp.array([True, True, False]), 2.0)
  np.testing.assert_allclose(logp[:2], np.log([0.25, 0.75]), rtol=1e-5)
  assert logp[2] < -1e29


@both
def test_token_logprobs_are_entries_of_the_log_softmax(wrap):
  tokens = np.array([2, 0], np.int32)
  got = wrap(sampling.token_logprobs)(LOGITS, tokens, ALLOWED, 0.7)
  want = [oracle.log_softmax(row.tolist(), ALLOWED, 0.7)[t] for row, t in zip(LOGITS, tokens)]
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_token_logprobs_gradient_is_one_hot_minus_probabilities_and_zero_at_masked_tokens():
  gradient = jax.grad(lambda x: sampling.token_logprobs(x, jnp.array(1), ALLOWED, 1.0))(jnp.array(LOGITS[0]))
  p = np.exp([0.0, 1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()
  np.testing.assert_allclose(gradient, [-p[0], 1 - p[1], -p[2], 0], atol=1e-6)


@both
def test_entropy_of_uniform_and_of_masked_rows_is_finite(wrap):
  # Three allowed tokens with equal logits: log 3. One allowed: 0.
  entropy = wrap(sampling.entropy)(jnp.zeros((1, 4)), ALLOWED, 1.0)
  np.testing.assert_allclose(entropy, [np.log(3)], rtol=1e-6)
  np.testing.assert_allclose(
    wrap(sampling.entropy)(LOGITS, np.array([True, False, False, False]), 1.0), [0, 0], atol=1e-6
  )
  gradient = jax.grad(lambda x: sampling.entropy(x, ALLOWED, 1.0).sum())(jnp.array(LOGITS))
  assert np.isfinite(gradient).all()


def test_samples_follow_the_distribution_and_never_a_masked_token():
  # Odds 1 : 3 (see above); 20,000 draws, standard error 0.003.
  logits = jnp.array([0.0, 2 * np.log(3.0), 7.0])
  keys = jax.random.split(jax.random.key(0), 20_000)
  mask = jnp.array([True, True, False])
  tokens, logp = jax.jit(jax.vmap(lambda key: sampling.sample(key, logits, mask, 2.0)))(keys)
  assert tokens.max() == 1 and abs(tokens.mean() - 0.75) < 0.015
  np.testing.assert_allclose(logp, np.where(tokens == 1, np.log(0.75), np.log(0.25)), rtol=1e-5)


def test_greedy_takes_the_best_allowed_token():
  np.testing.assert_array_equal(sampling.greedy(jnp.array(LOGITS), ALLOWED), [2, 0])


def test_first_greatest_is_argmax_and_stays_in_the_vocabulary_with_nan():
  values = np.random.default_rng(0).integers(0, 5, (200, 7)).astype(np.float32)  # with ties
  np.testing.assert_array_equal(sampling.first_greatest(jnp.array(values)), values.argmax(-1))
  assert sampling.first_greatest(jnp.array([0.0, np.nan, 1.0])) == 2


def test_bfloat16_logits_are_normalised_in_float32():
  logits = jnp.array(LOGITS, jnp.bfloat16)  # these values are exact in bfloat16
  got = sampling.token_logprobs(logits, jnp.array([2, 0]), ALLOWED, 1.0)
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, sampling.token_logprobs(jnp.array(LOGITS), jnp.array([2, 0]), ALLOWED, 1.0))
