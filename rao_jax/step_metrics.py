"""What a training step says of its batch beside the trees' own metrics: credit, funnel, the rollout's counts. Pure."""

from collections.abc import Mapping, Sequence

from rao_jax.rollout.engine import Tree
from rao_jax.tree.credit import Credit


def rollout_metrics(counts: Mapping[str, int]) -> dict[str, float]:
  """How full decode batches were, and what became of caches.

  Args:
    counts: of `Frontier.counts`, over the step.
  """
  row_steps = max(counts["row_steps"], 1)
  return {
    "rollout/occupancy": counts["fed"] / row_steps,  # row steps that fed a token, known or sampled
    "rollout/empty_row_share": counts["empty_steps"] / row_steps,
    **{f"rollout/{name}": counts[name] for name in ("fed", "extended", "evictions", "saved", "loaded")},
  }


def credit_metrics(assigned: Credit) -> dict[str, float]:
  """Reward, advantage and weight by depth; shares of the batch that alarms look at."""
  stats = assigned.stats
  out = {
    "train/zero_variance_trees": int(stats.flat_trees - stats.lone_trees) / max(int(stats.valid_trees), 1),
    "train/children_weight": float(stats.weight[1:].sum() / max(stats.weight.sum(), 1)),  # of nodes below the roots
  }
  for depth, n in enumerate(stats.nodes):
    if n:
      out[f"train/reward/depth_{depth}"] = float(stats.reward[depth] / n)
      out[f"train/advantage/depth_{depth}"] = float(stats.advantage[depth] / n)
      out[f"train/weight/depth_{depth}"] = float(stats.weight[depth] / n)
      out[f"train/node_success/depth_{depth}"] = float(stats.success[depth] / n)
  return out


def funnel(trees: Sequence[Tree], assigned: Credit, learned: dict[str, float], sampled: int) -> dict[str, float]:
  """What became of the batch, from trees started to tokens trained. Each line is the sum of what follows from it:

    trees_started    = trees_dropped_fault + trees_finished
    trees_finished   = trees_dropped_alone + trees_dropped_flat + trees_trained
    nodes            = nodes_unsampled + trajectories                                        of finished trees
    trajectories     = trajectories_zero + trajectories_nonzero
    tokens_sampled   = tokens_dropped_fault + tokens_dropped_zero + tokens_dropped_update + tokens_trained

  fault: the harness failed, not the policy. alone: no other finished tree in its group. flat: no agent of the group has
  an advantage. zero: agents without advantage; with a KL or entropy term these are trained on, for that term alone, and
  none of their tokens are dropped. update: an update that was skipped for not being finite.

  Args:
    learned: of `Loop.update`.
    sampled: tokens that these trees sampled, those that faulted included.
  """
  stats = assigned.stats
  finished, trajectories = int(stats.valid_trees), int(stats.trained_nodes)
  trained, skipped = learned["funnel/tokens_trained"], learned["funnel/tokens_dropped_update"]
  return {
    "funnel/trees_started": len(trees),
    "funnel/trees_dropped_fault": sum(tree.fault is not None for tree in trees),
    "funnel/trees_finished": finished,
    "funnel/trees_dropped_alone": int(stats.lone_trees),
    "funnel/trees_dropped_flat": int(stats.flat_trees - stats.lone_trees),
    "funnel/trees_trained": finished - int(stats.flat_trees),
    "funnel/trees_not_replayable": sum(not tree.replayable for tree in trees),
    "funnel/nodes": sum(len(tree.nodes) for tree in trees if tree.fault is None),
    "funnel/nodes_unsampled": int(stats.unsampled_nodes),
    "funnel/trajectories": trajectories,
    "funnel/trajectories_zero": trajectories - int(stats.nonzero_nodes),
    "funnel/trajectories_nonzero": int(stats.nonzero_nodes),
    "funnel/tokens_sampled": sampled,
    "funnel/tokens_dropped_fault": sampled - int(stats.action_tokens),
    "funnel/tokens_dropped_zero": int(stats.action_tokens) - trained - skipped,
    "funnel/tokens_dropped_update": skipped,
    "funnel/tokens_trained": trained,
  }
