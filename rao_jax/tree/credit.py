"""Credit: node reward -> baseline -> advantage -> depth weight. Pure functions of arrays (arXiv 2605.06639).

`credit` composes them for a TreeBuffer. Its defaults are the paper's equations; what departs from them is a named
option of `CreditOptions`, off by default.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rao_jax.tree.buffer import TreeBuffer, trained_nodes, valid_nodes

# Baseline of a tree without another valid tree in its group: there is none. A finite number, so that it survives
# `jax_debug_nans` and float64; `advantages` turns it into advantage 0.
NO_BASELINE = float(np.finfo(np.float32).max)


def node_rewards(success, parent, valid, delegation_bonus, leaf_scale=False, bonus="rate"):
  """Local reward of every node: own success plus a bonus for its children's success rate.

  R[n] = s[n] + lambda * mean_{c : parent[c] = n} s[c]          (arXiv 2605.06639, Eq. 1)

  Args:
    success: f32[N] in [0, 1].
    parent: i32[N], index of the parent node, -1 at roots.
    valid: bool[N]; a child that is not valid does not enter the mean.
    delegation_bonus: lambda >= 0.
    leaf_scale: departs from the paper: a node without children gets R = s + lambda * s, so that leaves and parents
      share one scale (else a perfect leaf is lambda short of a perfect parent). Static.
    bonus: "rate", the mean of the children's success, or, which departs from the paper, "count", their sum: a parent
      then gains by launching more. Static.
  Returns:
    f32[N], 0 at invalid nodes; without children the bonus is 0.
  """
  N = len(success)
  success = jnp.where(valid, _floating(success), 0)  # an invalid node may carry a NaN
  is_child = jnp.asarray(valid) & (jnp.asarray(parent) >= 0)
  slot = jnp.where(is_child, parent, N)  # a last slot takes what is no child
  total = jax.ops.segment_sum(success, slot, N + 1)[:N]
  count = jax.ops.segment_sum(is_child.astype(success.dtype), slot, N + 1)[:N]
  gained = total / jnp.maximum(count, 1) if bonus == "rate" else total
  if leaf_scale:
    gained = jnp.where(count == 0, success, gained)
  return jnp.where(valid, success + delegation_bonus * gained, 0)


def leave_one_out(root_reward, group, valid):
  """Baseline of every tree: the mean root reward of the other valid trees of its group.

  b[g] = 1/(G-1) sum_{h != g} R_root[h]. Written as R_root[g] plus the mean difference to the others: equal rewards
  then give exactly equal baselines, and with them advantages of exactly 0.

  Args:
    root_reward: f32[T].
    group: i32[T], any numbers.
    valid: bool[T], marks valid trees.
  Returns:
    f32[T], 0 at invalid trees, NO_BASELINE at a valid tree that is the only one of its group.
  """
  others = _same_group(group, valid) & ~jnp.eye(len(root_reward), dtype=bool)
  return _baseline(root_reward, valid, others, others.sum(1))


def group_mean(root_reward, group, valid):
  """Like `leave_one_out`, but the mean is over the whole group, own tree included: biased by (G-1)/G. An option."""
  members = _same_group(group, valid)
  return _baseline(root_reward, valid, members, members.sum(1) - 1)


def advantages(reward, tree, baseline, valid):
  """A[n] = R[n] - b[tree[n]]: every node of a tree against the same baseline.

  Args:
    reward: f32[N].
    tree: i32[N].
    baseline: f32[T]; where it is NO_BASELINE the whole tree has advantage 0.
    valid: bool[N].
  Returns:
    f32[N], 0 at invalid nodes.
  """
  of_node = jnp.asarray(baseline)[jnp.asarray(tree)]
  counts = valid & (of_node < NO_BASELINE)
  return jnp.where(counts, _floating(reward) - of_node, 0)


def depth_weights(depth, valid, max_depth, cap=None):
  """Weight of every trajectory such that each depth present has the same share of the batch.

  w_d = alpha / N_d, alpha = N / (number of depths present), N_d = number of valid nodes at depth d.

  With a cap (departs from the paper) the weight of a rare depth is bounded and what it gives up is shared by the other
  depths: w_d = min(cap, alpha' / N_d) with alpha' such that the weights still sum to N.

  Args:
    depth: i32[N], 0 at roots.
    valid: bool[N].
    max_depth: deepest depth allowed, inclusive; a node beyond it does not count.
    cap: None or a number >= 1. Static.
  Returns:
    f32[N], 0 at invalid nodes; sums to the number of valid nodes.
  """
  valid = jnp.asarray(valid) & (jnp.asarray(depth) <= max_depth)
  depth = jnp.where(valid, depth, jnp.iinfo(jnp.int32).max)
  N = len(depth)
  slot = jnp.searchsorted(jnp.sort(depth), depth)  # one slot in [0, N) per distinct depth, whatever max_depth is
  count = jax.ops.segment_sum(valid.astype(jnp.result_type(float)), slot, N)  # N_d in the slots used, else 0
  present = count > 0
  alpha = count.sum() / jnp.maximum(present.sum(), 1)
  weight = alpha / jnp.maximum(count, 1)
  if cap is not None:

    def alpha_without(capped):
      left = count.sum() - cap * jnp.sum(count, where=capped)
      return left / jnp.maximum(jnp.sum(present & ~capped), 1)

    def grow(state):
      capped, _ = state
      wider = capped | (present & (alpha_without(capped) > cap * count))
      return wider, jnp.any(wider != capped)

    capped, _ = jax.lax.while_loop(lambda state: state[1], grow, (jnp.zeros_like(present), jnp.array(True)))
    weight = jnp.where(capped, cap, alpha_without(capped) / jnp.maximum(count, 1))
  return jnp.where(valid, weight[slot], 0)


@dataclasses.dataclass(frozen=True)
class CreditOptions:
  """The paper's rule by default.

  Attributes:
    max_depth: deepest depth that the rollout opens, inclusive.
    delegation_bonus: lambda of the node reward.
    bonus: what it multiplies, `rate` or `count` (which can be farmed); see `node_rewards`.
    baseline: `leave_one_out`, or `group_mean` (biased).
    sparse: every node takes its root's success, before the bonus.
    leaf_scale: leaves get `s + lambda * s`; see `node_rewards`.
    depth_weighting: False gives every trajectory weight 1.
    depth_weight_cap: bound of the depth weights, None for no bound; see `depth_weights`.
  """

  max_depth: int
  delegation_bonus: float = 0.0
  bonus: str = "rate"
  baseline: str = "leave_one_out"
  sparse: bool = False
  leaf_scale: bool = False
  depth_weighting: bool = True
  depth_weight_cap: float | None = None

  def __post_init__(self):
    if self.baseline not in ("leave_one_out", "group_mean"):
      raise ValueError(f"baseline={self.baseline!r}: choose 'leave_one_out' or 'group_mean'")
    if self.bonus not in ("rate", "count"):
      raise ValueError(f"bonus={self.bonus!r}: choose 'rate' or 'count'")
    if self.bonus == "count" and self.delegation_bonus == 0:
      raise ValueError("bonus='count' does nothing with delegation_bonus=0: leave it at 'rate' or set the bonus")
    if self.delegation_bonus < 0:
      raise ValueError(f"delegation_bonus={self.delegation_bonus} must not be negative")
    if self.leaf_scale and self.delegation_bonus == 0:
      raise ValueError("leaf_scale does nothing with delegation_bonus=0: switch it off or set the bonus")
    if self.depth_weight_cap is not None and not self.depth_weighting:
      raise ValueError("depth_weight_cap does nothing without depth_weighting: unset it or set depth_weighting=True")
    if self.depth_weight_cap is not None and self.depth_weight_cap < 1:
      raise ValueError(f"depth_weight_cap={self.depth_weight_cap}: below 1 the weights cannot sum to N; set >= 1")


@struct.dataclass
class CreditStats:
  """Counts and sums of a batch; the arrays are per depth, [max_depth + 1], over trained nodes."""

  valid_trees: jax.Array  # i32
  lone_trees: jax.Array  # i32, valid trees without another valid tree in their group: advantage 0
  flat_trees: jax.Array  # i32, valid trees of groups in which every node, sub-agents included, has advantage 0
  trained_nodes: jax.Array  # i32, the N of the normaliser
  unsampled_nodes: jax.Array  # i32, valid nodes that sampled nothing
  nonzero_nodes: jax.Array  # i32, trained nodes with advantage != 0
  action_tokens: jax.Array  # i32, of trained nodes
  nodes: jax.Array  # f32[D]
  success: jax.Array  # f32[D], sum
  reward: jax.Array  # f32[D], sum
  advantage: jax.Array  # f32[D], sum
  advantage_size: jax.Array  # f32[D], sum of absolute values
  weight: jax.Array  # f32[D], sum


@struct.dataclass
class Credit:
  reward: jax.Array  # f32[N], 0 at invalid nodes
  baseline: jax.Array  # f32[T], 0 where there is none
  advantage: jax.Array  # f32[N], 0 at nodes that are not trained
  weight: jax.Array  # f32[N], 0 at nodes that are not trained; sums to the number of trained nodes
  stats: CreditStats


def credit(buffer: TreeBuffer, options: CreditOptions) -> Credit:
  """Credit of every node, on the whole global batch: before minibatches, before anything is dropped."""
  # The token arrays do not enter the program, so it is compiled per (N, T) only.
  return _credit(buffer.replace(tokens=None, behaviour_logp=None, is_action=None), options)


@functools.partial(jax.jit, static_argnums=1)
def _credit(buffer: TreeBuffer, options: CreditOptions) -> Credit:
  valid, trained = valid_nodes(buffer), trained_nodes(buffer)
  success = buffer.success[buffer.root][buffer.tree] if options.sparse else buffer.success
  success = jnp.where(buffer.sampled > 0, success, 0)  # a child that sampled nothing did not succeed
  reward = node_rewards(success, buffer.parent, valid, options.delegation_bonus, options.leaf_scale, options.bonus)
  baseline_rule = leave_one_out if options.baseline == "leave_one_out" else group_mean
  baseline = baseline_rule(reward[buffer.root], buffer.group, buffer.tree_valid)
  advantage = advantages(reward, buffer.tree, baseline, trained)
  if options.depth_weighting:
    weight = depth_weights(buffer.depth, trained, options.max_depth, options.depth_weight_cap)
  else:
    weight = trained.astype(reward.dtype)

  lone = baseline == NO_BASELINE
  nonzero = advantage != 0
  tree_nonzero = jax.ops.segment_max(nonzero.astype(jnp.int32), buffer.tree, len(buffer.group)) > 0
  group_nonzero = jnp.any(_same_group(buffer.group, buffer.tree_valid) & tree_nonzero[None, :], axis=1)
  slot = jnp.where(trained, buffer.depth, options.max_depth + 1)

  def by_depth(values):
    return jax.ops.segment_sum(jnp.where(trained, values, 0), slot, options.max_depth + 2)[:-1]

  stats = CreditStats(
    valid_trees=buffer.tree_valid.sum(),
    lone_trees=lone.sum(),
    flat_trees=(buffer.tree_valid & ~group_nonzero).sum(),
    trained_nodes=trained.sum(),
    unsampled_nodes=(valid & ~trained).sum(),
    nonzero_nodes=nonzero.sum(),
    action_tokens=jnp.sum(buffer.sampled, where=trained),
    nodes=by_depth(jnp.ones_like(reward)),
    success=by_depth(success),
    reward=by_depth(reward),
    advantage=by_depth(advantage),
    advantage_size=by_depth(jnp.abs(advantage)),
    weight=by_depth(weight),
  )
  return Credit(reward, jnp.where(lone, 0, baseline), advantage, weight, stats)


def _same_group(group, valid):
  """bool[T, T]: [g, h] says that tree h is valid and of the group of g. Fused into its reductions, never stored."""
  group = jnp.asarray(group)
  return (group[:, None] == group[None, :]) & jnp.asarray(valid)[None, :]


def _baseline(root_reward, valid, members, others):
  """R[g] + mean over members h of (R[h] - R[g]); members bool[T, T], others i32[T] valid trees beside g."""
  root_reward = jnp.where(valid, _floating(root_reward), 0)
  difference = jnp.where(members, root_reward[None, :] - root_reward[:, None], 0).sum(1)
  baseline = root_reward + difference / jnp.maximum(members.sum(1), 1)
  return jnp.where(valid, jnp.where(others > 0, baseline, NO_BASELINE), 0)


def _floating(values):
  values = jnp.asarray(values)
  return values.astype(jnp.promote_types(values.dtype, jnp.float32))
