"""Policy-gradient and cross-entropy losses: a loss per token, sums over tokens, and the counts to divide by.

Nothing here divides by a number of tokens or rows: sums add up over microbatches and devices whatever their fill.
`normalisers` gives the two factors, both from counts of the whole global batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct


def reinforce(logp, behaviour_logp, advantage, weight, truncation=None):
  """-w A log pi, per token.

  Args:
    logp: f32[...], of the sampled token under the policy being trained.
    behaviour_logp: f32[...], under the policy that sampled it; read by the truncation only.
    advantage: f32[...].
    weight: f32[...].
    truncation: None, or C of truncated importance sampling: the loss is multiplied by min(rho, C), no gradient
      through it. That is `cispo` with clip (0, C).
  Returns:
    f32[...].
  """
  loss = -weight * advantage * logp
  if truncation is None:
    return loss
  return jax.lax.stop_gradient(jnp.minimum(jnp.exp(logp - behaviour_logp), truncation)) * loss


def ppo(logp, behaviour_logp, advantage, weight, clip_low, clip_high):
  """-w min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), rho = exp(logp - behaviour_logp), per token."""
  ratio = jnp.exp(logp - behaviour_logp)
  clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
  return -weight * jnp.minimum(ratio * advantage, clipped * advantage)


def cispo(logp, behaviour_logp, advantage, weight, ratio_low=0.0, ratio_high=5.0):
  """-stop_gradient(clip(rho, ratio_low, ratio_high)) w A log pi, per token: no token loses its gradient."""
  ratio = jnp.clip(jnp.exp(logp - behaviour_logp), ratio_low, ratio_high)
  return -jax.lax.stop_gradient(ratio) * weight * advantage * logp


def k3(log_ratio):
  """Unbiased, never negative estimate of KL(p || q) from x ~ p and log_ratio = log q(x) - log p(x): r - 1 - log r."""
  return jnp.expm1(log_ratio) - log_ratio


def cross_entropy(logp, is_target):
  """Behaviour cloning: (sum of -logp over the tokens to imitate, their number); logp f32[...], is_target bool[...]."""
  return -jnp.sum(logp, where=is_target), jnp.sum(is_target)


@dataclasses.dataclass(frozen=True)
class LossOptions:
  """Which surrogate, and what is added to it.

  Attributes:
    surrogate: `reinforce`, `ppo` or `cispo`.
    clip_low: ppo: the ratio counts down to 1 - clip_low.
    clip_high: ppo: the ratio counts up to 1 + clip_high.
    ratio_low: cispo: lower bound of the ratio.
    ratio_high: cispo: upper bound of the ratio.
    truncation: reinforce: bound of truncated importance sampling, None for no correction.
    kl_coefficient: of the KL to the reference policy, mean per action token.
    entropy_coefficient: of the entropy bonus, mean per action token.
    report_entropy: compute the entropy for the statistics even if it is not in the loss; 0 is reported otherwise.
  """

  surrogate: str = "cispo"
  clip_low: float = 0.2
  clip_high: float = 0.2
  ratio_low: float = 0.0
  ratio_high: float = 5.0
  truncation: float | None = None
  kl_coefficient: float = 0.0
  entropy_coefficient: float = 0.0
  report_entropy: bool = True

  def __post_init__(self):
    if self.surrogate not in ("reinforce", "ppo", "cispo"):
      raise ValueError(f"surrogate={self.surrogate!r}: choose 'reinforce', 'ppo' or 'cispo'")
    if self.truncation is not None and self.surrogate != "reinforce":
      raise ValueError(f"truncation does nothing with surrogate={self.surrogate!r}: unset it or use 'reinforce'")
    if min(self.kl_coefficient, self.entropy_coefficient) < 0:
      raise ValueError("kl_coefficient and entropy_coefficient must not be negative")


@struct.dataclass
class LossStats:
  """Sums over action tokens, their number, and two maxima: combine with `merge`, read with `means`."""

  tokens: jax.Array  # i32
  policy_loss: jax.Array  # sum, weights and advantages included, before any normaliser
  ratio: jax.Array  # sum of rho
  approx_kl: jax.Array  # sum of (rho - 1) - log rho: KL(behaviour || policy)
  clipped: jax.Array  # i32, tokens whose ratio the surrogate cut
  entropy: jax.Array  # sum
  reference_kl: jax.Array  # sum
  ratio_max: jax.Array
  log_ratio_max: jax.Array  # of |log rho|


def zero_stats() -> LossStats:
  """What `merge` leaves unchanged: where an accumulation starts."""
  zero, count = jnp.zeros(()), jnp.zeros((), jnp.int32)
  return LossStats(count, zero, zero, zero, count, zero, zero, zero, zero)


def merge(a: LossStats, b: LossStats) -> LossStats:
  """The statistics of the tokens of both."""
  return jax.tree.map(jnp.add, a, b).replace(
    ratio_max=jnp.maximum(a.ratio_max, b.ratio_max), log_ratio_max=jnp.maximum(a.log_ratio_max, b.log_ratio_max)
  )


def means(stats: LossStats) -> dict[str, jax.Array]:
  """Means per action token, and the maxima, by the names of the metrics."""
  tokens = jnp.maximum(stats.tokens, 1)
  return {
    "ratio_mean": stats.ratio / tokens,
    "ratio_max": stats.ratio_max,
    "log_ratio_max": stats.log_ratio_max,
    "approx_kl": stats.approx_kl / tokens,
    "clip_share": stats.clipped / tokens,
    "entropy": stats.entropy / tokens,
    "reference_kl": stats.reference_kl / tokens,
  }


def normalisers(normaliser, num_nodes, num_tokens, num_minibatches=1):
  """Factors of a minibatch's sums, from the counts of the whole global batch.

  `trajectory` (the paper's) divides the sum over tokens by the number of trained nodes N, `token` by the number of
  action tokens. A minibatch's sum is an estimate of 1 / num_minibatches of the batch's, hence the factor.

  Args:
    normaliser: `trajectory` or `token`. Static.
    num_nodes: N of the batch, before anything was dropped.
    num_tokens: action tokens of the batch, before anything was dropped.
    num_minibatches: updates that share the batch.
  Returns:
    (policy_scale, token_scale): of the policy loss; of the KL and entropy terms, which are means per token always.
  """
  token_scale = num_minibatches / jnp.maximum(num_tokens, 1)
  if normaliser == "trajectory":
    return num_minibatches / jnp.maximum(num_nodes, 1), token_scale
  if normaliser == "token":
    return token_scale, token_scale
  raise ValueError(f"normaliser={normaliser!r}: choose 'trajectory' or 'token'")


def policy_gradient_loss(
  logp,
  behaviour_logp,
  advantage,
  weight,
  is_action,
  entropy,
  options: LossOptions,
  policy_scale=1.0,
  token_scale=1.0,
  reference_logp=None,
):
  """Loss of some of a batch's tokens: sums over them times the two scales, so that parts of a batch add up.

  Args:
    logp: f32[...], log-probability of each token under the policy being trained.
    behaviour_logp: f32[...], the sampler's.
    advantage: f32[...], of the token's node.
    weight: f32[...], depth weight of the token's node.
    is_action: bool[...]; nothing else is read where it is False.
    entropy: f32[...], of the policy where it chose the token.
    options: LossOptions, static.
    policy_scale: from `normalisers`; 1 gives the plain sum.
    token_scale: from `normalisers`, for the KL and entropy terms, which take no depth weight.
    reference_logp: f32[...], needed if and only if options.kl_coefficient > 0.
  Returns:
    loss f32[], LossStats (no gradient).
  """
  if (reference_logp is not None) != (options.kl_coefficient > 0):
    raise ValueError("reference_logp and kl_coefficient > 0 need each other: pass both or neither")
  # Selected before the exponential: where(is_action, exp(x), 0) has a NaN gradient where x overflows.
  logp = jnp.where(is_action, logp, 0)
  behaviour_logp = jnp.where(is_action, behaviour_logp, 0)
  log_ratio = jax.lax.stop_gradient(logp) - behaviour_logp
  ratio = jnp.exp(log_ratio)
  if options.surrogate == "reinforce":
    token_loss = reinforce(logp, behaviour_logp, advantage, weight, options.truncation)
    clipped = ratio > (jnp.inf if options.truncation is None else options.truncation)
  elif options.surrogate == "ppo":
    token_loss = ppo(logp, behaviour_logp, advantage, weight, options.clip_low, options.clip_high)
    too_high = (advantage > 0) & (ratio > 1 + options.clip_high)
    clipped = too_high | ((advantage < 0) & (ratio < 1 - options.clip_low))
  elif options.surrogate == "cispo":
    token_loss = cispo(logp, behaviour_logp, advantage, weight, options.ratio_low, options.ratio_high)
    clipped = (ratio < options.ratio_low) | (ratio > options.ratio_high)
  else:
    raise ValueError(f"surrogate={options.surrogate!r}: choose 'reinforce', 'ppo' or 'cispo'")

  policy_loss = jnp.sum(token_loss, where=is_action)
  loss = policy_scale * policy_loss
  entropy_sum = jnp.sum(entropy, where=is_action)
  if options.entropy_coefficient > 0:
    loss -= token_scale * options.entropy_coefficient * entropy_sum
  reference_kl = jnp.zeros(())
  if reference_logp is not None:
    reference_kl = jnp.sum(k3(jnp.where(is_action, reference_logp, 0) - logp), where=is_action)
    loss += token_scale * options.kl_coefficient * reference_kl
  stats = LossStats(
    tokens=jnp.sum(is_action, dtype=jnp.int32),
    policy_loss=policy_loss,
    ratio=jnp.sum(ratio, where=is_action),
    approx_kl=jnp.sum(k3(log_ratio), where=is_action),
    clipped=jnp.sum(clipped & is_action, dtype=jnp.int32),
    entropy=entropy_sum,
    reference_kl=reference_kl,
    ratio_max=jnp.max(ratio, where=is_action, initial=0),
    log_ratio_max=jnp.max(jnp.abs(log_ratio), where=is_action, initial=0),
  )
  return loss, jax.lax.stop_gradient(stats)
