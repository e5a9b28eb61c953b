import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rao_jax.learn import losses
from rao_jax.learn.losses import LossOptions
from tests import oracle

LOG2 = math.log(2.0)
both = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])


def floats(*values):
  return jnp.array(values, jnp.float32)


@both
def test_reinforce_is_minus_weight_advantage_logp(wrap):
  # -0.5 * 2 * -1 = 1; -1 * -3 * -2 = -6.
  loss = wrap(losses.reinforce)(floats(-1, -2), floats(0, 0), floats(2, -3), floats(0.5, 1))
  np.testing.assert_allclose(loss, [1, -6], rtol=1e-6)


@both
def test_truncation_bounds_the_ratio_from_above_only(wrap):
  # Ratios 4 and 1/2, truncated at 2: factors 2 and 1/2; -A logp = 1 each.
  loss = wrap(lambda logp, old: losses.reinforce(logp, old, 1.0, 1.0, truncation=2.0))(
    floats(-1, -1), floats(-1 - 2 * LOG2, -1 + LOG2)
  )
  np.testing.assert_allclose(loss, [2, 0.5], rtol=1e-6)


@both
def test_ppo_takes_the_worse_of_ratio_and_clipped_ratio(wrap):
  # Ratios 2, 2, 1/2, 1/2 with A = 1, -1, 1, -1 and clip 0.2 / 0.3:
  # min(2, 1.3), min(-2, -1.3), min(0.5, 0.8), min(-0.5, -0.8); the last with weight 10.
  loss = wrap(losses.ppo)(
    floats(LOG2, LOG2, -LOG2, -LOG2), floats(0, 0, 0, 0), floats(1, -1, 1, -1), floats(1, 1, 1, 10), 0.2, 0.3
  )
  np.testing.assert_allclose(loss, [-1.3, 2, -0.5, 8], rtol=1e-6)


@both
def test_cispo_clips_the_ratio_and_keeps_the_gradient(wrap):
  # Ratios 8 (clipped to 5) and 2; w = 1, 0.5; A = 1, -3. Gradient by logp: -5 * 1 * 1, -2 * 0.5 * -3.
  logp, old = floats(-1, -1), floats(-1 - 3 * LOG2, -1 - LOG2)
  f = lambda logp: losses.cispo(logp, old, floats(1, -3), floats(1, 0.5))
  np.testing.assert_allclose(wrap(f)(logp), [5, -3], rtol=1e-6)
  np.testing.assert_allclose(wrap(jax.grad(lambda x: f(x).sum()))(logp), [-5, 3], rtol=1e-6)


def test_all_surrogates_have_the_gradient_of_reinforce_at_ratio_one():
  logp, advantage, weight = floats(-1, -0.3, -2), floats(1, -2, 0.5), floats(1, 0.5, 2)
  reinforce = jax.grad(lambda x: losses.reinforce(x, logp, advantage, weight).sum())(logp)
  ppo = jax.grad(lambda x: losses.ppo(x, logp, advantage, weight, 0.2, 0.2).sum())(logp)
  cispo = jax.grad(lambda x: losses.cispo(x, logp, advantage, weight).sum())(logp)
  np.testing.assert_allclose(reinforce, [-1, 1, -1], rtol=1e-6)
  np.testing.assert_allclose(ppo, reinforce, rtol=1e-6)
  np.testing.assert_allclose(cispo, reinforce, rtol=1e-6)


ratios = st.floats(-2, 2).filter(lambda x: min(abs(math.exp(x) - edge) for edge in (0.8, 1.3, 0.5, 5.0)) > 1e-3)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["reinforce", "ppo", "cispo"]), st.floats(-3, 0), ratios, st.floats(-2, 2), st.floats(0, 3))
def test_values_and_gradients_equal_the_plain_python_twin(surrogate, logp, log_ratio, advantage, weight):
  low, high = (0.8, 1.3) if surrogate == "ppo" else (0.5, 5.0)
  options = LossOptions(surrogate, clip_low=0.2, clip_high=0.3, ratio_low=0.5, ratio_high=5.0)

  def total(x):
    loss, _ = losses.policy_gradient_loss(
      x, floats(logp - log_ratio), floats(advantage), floats(weight), jnp.array([True]), floats(0), options
    )
    return loss

  value, gradient = jax.value_and_grad(total)(floats(logp))
  arguments = (surrogate, logp, logp - log_ratio, advantage, weight, low, high)
  np.testing.assert_allclose(value, oracle.token_loss(*arguments), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(gradient[0], oracle.token_gradient(*arguments), rtol=1e-4, atol=1e-5)


@both
def test_k3_is_zero_at_equality_and_positive_elsewhere(wrap):
  # r = 2: 2 - 1 - log 2; r = 1/2: 1/2 - 1 + log 2.
  np.testing.assert_allclose(wrap(losses.k3)(floats(0, LOG2, -LOG2)), [0, 1 - LOG2, LOG2 - 0.5], rtol=1e-6)


@both
def test_cross_entropy_returns_sum_and_count(wrap):
  total, count = wrap(losses.cross_entropy)(floats(-1, -2, -4), jnp.array([True, False, True]))
  assert (total, count) == (5, 2)


# Three tokens, the last no action: it holds values that would ruin every sum.
LOGP = floats(-1, -1, -1e30)
OLD = floats(-1 - LOG2, -1 + LOG2, 0)  # ratios 2, 1/2
ADVANTAGE, WEIGHT, ENTROPY = floats(1, 2, 1e9), floats(1, 0.5, 1e9), floats(0.3, 0.5, jnp.nan)
IS_ACTION = jnp.array([True, True, False])


def loss_of(options, **others):
  return lambda logp: losses.policy_gradient_loss(logp, OLD, ADVANTAGE, WEIGHT, IS_ACTION, ENTROPY, options, **others)


@both
def test_loss_sums_action_tokens_and_counts_them(wrap):
  # cispo: 2 * 1 * 1 * 1 + 1/2 * 1/2 * 2 * 1 = 2.5.
  loss, stats = wrap(loss_of(LossOptions("cispo", ratio_high=1.5)))(LOGP)
  np.testing.assert_allclose(loss, 1.5 + 0.5, rtol=1e-6)  # the ratio 2 is clipped to 1.5
  assert (stats.tokens, stats.clipped) == (2, 1)
  np.testing.assert_allclose(stats.policy_loss, 2, rtol=1e-6)
  np.testing.assert_allclose(stats.ratio, 2.5, rtol=1e-6)
  np.testing.assert_allclose(stats.ratio_max, 2, rtol=1e-6)
  np.testing.assert_allclose(stats.log_ratio_max, LOG2, rtol=1e-6)
  np.testing.assert_allclose(stats.approx_kl, (1 - LOG2) + (LOG2 - 0.5), rtol=1e-6)
  np.testing.assert_allclose(stats.entropy, 0.8, rtol=1e-6)


@pytest.mark.parametrize("surrogate", ["reinforce", "ppo", "cispo"])
def test_tokens_that_are_no_actions_have_no_gradient_and_no_nan(surrogate):
  gradient = jax.grad(lambda x: loss_of(LossOptions(surrogate, clip_high=2.0))(x)[0])(LOGP)
  assert np.isfinite(gradient).all() and gradient[2] == 0 and gradient[0] != 0


@pytest.mark.parametrize(
  "options, clipped",
  [
    # Ratios 2 and 1/2, advantages positive: ppo's gradient is cut at the first only.
    (LossOptions("ppo"), 1),
    (LossOptions("ppo", clip_high=1.5), 0),
    (LossOptions("cispo"), 0),
    (LossOptions("cispo", ratio_low=0.6), 1),
    (LossOptions("reinforce"), 0),
    (LossOptions("reinforce", truncation=1.0), 1),
  ],
)
def test_clip_share_counts_what_the_surrogate_cut(options, clipped):
  assert loss_of(options)(LOGP)[1].clipped == clipped


def test_kl_and_entropy_take_no_depth_weight_and_the_token_scale():
  # Reference log-probs -1 + log 2, -1: k3(log 2) = 1 - log 2, k3(0) = 0. Policy loss at ratio cut to 1: 1 + 1 = 2.
  options = LossOptions("reinforce", kl_coefficient=0.1, entropy_coefficient=0.01)
  reference = floats(-1 + LOG2, -1, 7)
  f = loss_of(options, policy_scale=1 / 4, token_scale=1 / 2, reference_logp=reference)
  loss, stats = f(LOGP)
  np.testing.assert_allclose(loss, 2 / 4 + (0.1 * (1 - LOG2) - 0.01 * 0.8) / 2, rtol=1e-6)
  np.testing.assert_allclose(stats.reference_kl, 1 - LOG2, rtol=1e-6)
  # d/dlogp: -w A / 4 + 0.1 * (1 - r) / 2 with r = 2, 1.
  gradient = jax.grad(lambda x: f(x)[0])(LOGP)
  np.testing.assert_allclose(gradient, [-1 / 4 - 0.05, -1 / 4, 0], rtol=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole():
  key = jax.random.key(0)
  logp, old, advantage, weight, entropy = -jnp.abs(jax.random.normal(key, (5, 4, 8)))
  is_action = jax.random.bernoulli(key, 0.6, (4, 8))
  options = LossOptions("ppo", entropy_coefficient=0.1)
  f = lambda rows: losses.policy_gradient_loss(
    *(x[rows] for x in (logp, old, advantage, weight, is_action, entropy)), options, 1 / 7, 1 / 20
  )
  whole, stats = f(slice(0, 4))
  total, merged = 0.0, losses.zero_stats()
  for rows in (slice(0, 1), slice(1, 4)):
    part, part_stats = f(rows)
    total, merged = total + part, losses.merge(merged, part_stats)
  np.testing.assert_allclose(total, whole, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), merged, stats)


def test_means_divide_by_tokens():
  _, stats = loss_of(LossOptions("cispo", ratio_high=1.5))(LOGP)
  means = losses.means(stats)
  np.testing.assert_allclose(means["ratio_mean"], 1.25, rtol=1e-6)
  np.testing.assert_allclose(means["clip_share"], 0.5, rtol=1e-6)
  np.testing.assert_allclose(means["entropy"], 0.4, rtol=1e-6)
  assert all(value == 0 for value in losses.means(losses.zero_stats()).values())


def test_normalisers_count_trajectories_or_tokens_of_the_whole_batch():
  # 10 trajectories, 200 action tokens, 4 updates: 4 / 10 and 4 / 200.
  np.testing.assert_allclose(losses.normalisers("trajectory", 10, 200, 4), (0.4, 0.02), rtol=1e-6)
  np.testing.assert_allclose(losses.normalisers("token", 10, 200, 4), (0.02, 0.02), rtol=1e-6)
  with pytest.raises(ValueError, match="'trajectory' or 'token'"):
    losses.normalisers("mean", 1, 1)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"surrogate": "grpo"}, "'reinforce', 'ppo' or 'cispo'"),
    ({"surrogate": "ppo", "truncation": 2.0}, "truncation does nothing"),
    ({"kl_coefficient": -1.0}, "negative"),
  ],
)
def test_options_that_do_nothing_or_contradict_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    LossOptions(**options)


def test_a_kl_without_a_reference_is_refused():
  with pytest.raises(ValueError, match="reference_logp"):
    loss_of(LossOptions(kl_coefficient=0.1))(LOGP)
