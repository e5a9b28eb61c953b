import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rao_jax.mesh import TRAIN_RULES
from rao_jax.policy.sampling import entropy, masked_log_softmax
from rao_jax.policy.scores import chunks_of, token_scores
from rao_jax.policy.transformer import logits_of
from tests.tiny import TINY, eight_devices, random_params

B, S, T = 2, 12, 0.7
MASK = np.arange(TINY.vocab_size) < 50


def draw():
  rng = np.random.default_rng(0)
  hidden = rng.normal(size=(B, S, TINY.width)).astype(np.float32)
  return random_params(TINY), hidden, rng.integers(0, 50, (B, S)).astype(np.int32)


@pytest.mark.parametrize("spread", ["train", "report", "none"])
def test_chunks_change_no_score_and_no_gradient(spread):
  params, hidden, tokens = draw()

  def loss(params, hidden, most):
    logp, spread_ = token_scores(params, TINY, hidden, tokens, MASK, T, spread, most=most)
    return jnp.sum(jnp.sin(logp) + jnp.cos(spread_)), (logp, spread_)

  grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
  whole, chunked = grad(params, hidden, 1 << 20), grad(params, hidden, 300)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-5), chunked, whole)
  logits = logits_of(params, hidden)
  (_, (logp, spread_)), _ = chunked
  expected = np.take_along_axis(np.asarray(masked_log_softmax(logits, MASK, T)), tokens[..., None], -1)[..., 0]
  np.testing.assert_allclose(logp, expected, atol=1e-5)
  np.testing.assert_allclose(spread_, 0 if spread == "none" else entropy(logits, MASK, T), atol=1e-5)


def test_chunks_are_as_few_as_fit_and_divide_the_row():
  # 2 x 12 x 64 = 1536 logits. Of 300 it takes 5.1, of 220 it takes 7.0; 12 has the divisors 6 and 12 from there on.
  assert [chunks_of(TINY, B, S, None, most) for most in (1536, 768, 300, 220, 1)] == [1, 2, 6, 12, 12]


def test_devices_share_the_logits():
  rules = eight_devices(TRAIN_RULES, data=2, fsdp=1, tensor=4)
  assert chunks_of(TINY, B, S, rules, 192) == 1
  assert chunks_of(TINY, B, S, rules, 96) == 2
