"""Success of a policy on tasks, with intervals: what training and the command line share."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from rao_jax.build import Run
from rao_jax.envs.base import Task
from rao_jax.policy.transformer import Params
from rao_jax.processes import together
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.frontier import Frontier
from rao_jax.rollout.summary import deepest_solved, tree_metrics

EVALUATION_STREAM = 1 << 20  # keeps evaluation draws apart from those of training steps


def evaluate(
  run: Run, frontier: Frontier, params: Params, tasks: Sequence[Task], temperature: float,
  on_tick: Callable[[Sequence[Tree]], None] = len,
) -> list[Tree]:  # fmt: skip
  """One tree for every task, worked to its end; params under the rollout's sharding.

  Success is that of roots, so nodes below them are not judged here.
  """
  with together():
    trees = run.trees(tasks, 1, EVALUATION_STREAM, run.evaluation_caps)
  collect(params, trees, frontier, temperature, on_tick, run.verdicts(children=False))
  return trees


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
  """95% Wilson score interval of a proportion (Wilson 1927); of a mean of scores in [0, 1] it is wide enough too."""
  if n == 0:
    return 0.0, 1.0
  p = successes / n
  middle = (p + z * z / (2 * n)) / (1 + z * z / n)
  half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
  return middle - half, middle + half


def summarise(trees: Sequence[Tree]) -> dict[str, Any]:
  """Success with its interval, size and depth of the trees, tokens: of the valid ones."""
  trees = [tree for tree in trees if tree.fault is None]
  won = sum(tree.root.success for tree in trees)
  metrics = tree_metrics(trees, "eval")
  return {
    "tasks": len(trees),
    "success": won / max(len(trees), 1),
    "interval": wilson(won, len(trees)),
    "nodes_per_tree": metrics.get("eval/nodes_per_tree", 0.0),
    "sampled_tokens_per_tree": sum(tree.ledger.sampled for tree in trees) / max(len(trees), 1),
    "deepest_solved": deepest_solved(trees),
  }
