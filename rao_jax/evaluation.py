"""An evaluation: trees of a policy on tasks, and what they amount to. Training and the command line share it."""

import collections
import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rao_jax import command
from rao_jax.build import Run, make_protocol
from rao_jax.envs.base import Task
from rao_jax.estimates import best_of, difference, dominated, interval
from rao_jax.policy.transformer import Params
from rao_jax.processes import together
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.frontier import Frontier
from rao_jax.rollout.summary import critical_path, deepest_solved, tree_metrics

EVALUATION_STREAM = 1 << 20  # keeps evaluation draws apart from those of training steps
# Of `tree_metrics`, those that figures carry under the same name.
SHAPE = (
  "nodes_per_tree", "depth_reached", "max_depth", "branching", "parallel_share", "never_delegates", "router_roots",
  "refused_at_caps", "truncated_by_context",
)  # fmt: skip


def evaluate(
  run: Run, frontier: Frontier, params: Params, tasks: Sequence[Task], temperature: float, rollouts: int = 1,
  on_tick: Callable[[Sequence[Tree]], None] = len,
) -> list[Tree]:  # fmt: skip
  """`rollouts` trees for every task, worked to their ends; params under the rollout's sharding.

  Success is that of roots, so nodes below them are not judged here.
  """
  with together(), command.settings():
    trees = run.trees(tasks, rollouts, EVALUATION_STREAM, run.evaluation_caps)
  collect(params, trees, frontier, temperature, on_tick, run.verdicts(children=False))
  return trees


def without_delegation(run: Run) -> Run:
  """The same run, its agents without `launch_subagent`."""
  config = run.config.copy_and_resolve_references()
  config.caps.max_depth = config.evaluation.max_depth = 0
  caps = dataclasses.replace(run.caps, max_depth=0)
  protocol = make_protocol(config, run.protocol.tokenizer, run.environment, caps, config.chat.system)
  return dataclasses.replace(run, config=config, caps=caps, protocol=protocol)


def tier_of(task: Task) -> int | None:
  """The depth of a task's goal, where its world says so: `max_depth` of its data."""
  tier = task.data.get("max_depth")
  return tier if isinstance(tier, int) else None


def by_task(trees: Sequence[Tree], value: Callable[[Tree], float]) -> dict[str, list[float]]:
  """task -> the value of each of its valid trees."""
  out = collections.defaultdict(list)
  for tree in trees:
    if tree.fault is None:
      out[tree.task.id].append(value(tree))
  return dict(out)


def root_success(tree: Tree) -> float:
  return tree.root.success


def summarise(trees: Sequence[Tree]) -> dict[str, Any]:
  """Success with its 95% interval, what more tries would bring, shape and cost of the trees: of the valid ones.

  `tries` has a row for 1, 2, 4, ... trees of a task, up to as many as there are: the expected success of the best of
  them (pass@k, for scores of 0 and 1), what they sample in all, and their critical path, worked side by side.

  Args:
    trees: at least one of them valid.
  """
  valid = [tree for tree in trees if tree.fault is None]
  scores = by_task(valid, root_success)
  sampled = by_task(valid, lambda tree: tree.ledger.sampled)
  paths = by_task(valid, lambda tree: critical_path(tree.nodes))
  most = max(map(len, scores.values()))
  ks = sorted({1 << i for i in range(most.bit_length())} | {most})
  tries = [_tries(k, scores, sampled, paths) for k in ks]
  metrics = tree_metrics(valid, "eval")
  read = sum(len(node.tokens) for tree in valid for node in tree.nodes) / len(valid) - metrics["eval/tokens_per_tree"]
  return {
    "tasks": len(scores),
    "trees": len(valid),
    "invalid_trees": len(trees) - len(valid),
    "success": tries[0]["success"],
    "interval": interval(list(scores.values())),
    **{name: metrics[f"eval/{name}"] for name in SHAPE},
    "sampled_tokens_per_tree": metrics["eval/tokens_per_tree"],
    "read_tokens_per_tree": read,
    "critical_path_per_tree": metrics["eval/critical_path"],
    "deepest_solved": deepest_solved(valid),
    "tries": tries,
  }


def _tries(
  k: int, scores: dict[str, list[float]], sampled: dict[str, list[float]], paths: dict[str, list[float]]
) -> dict[str, Any]:
  """What k tries of a task come to, over the tasks that have as many trees."""
  enough = [task for task, some in scores.items() if len(some) >= k]
  best = [best_of(scores[task], k) for task in enough]
  return {
    "k": k,
    "success": statistics.fmean(best),
    "interval": interval([[score] for score in best]),
    "tokens": k * statistics.fmean(statistics.fmean(sampled[task]) for task in enough),
    "critical_path": statistics.fmean(best_of(paths[task], k) for task in enough),
  }


def breakdown(trees: Mapping[str, Sequence[Tree]]) -> dict[str, dict[str, Any]]:
  """`splits` and `tiers` -> name -> figures, see `summarise`.

  A split of several difficulties has figures as a whole and for each of them, as `split/difficulty`; tiers are those of
  all splits.
  """
  groups, tiers = {}, collections.defaultdict(list)
  for split, some in trees.items():
    groups[split] = some
    difficulties = dict.fromkeys(tree.task.difficulty for tree in some)
    for difficulty in difficulties if len(difficulties) > 1 else ():
      groups[f"{split}/{difficulty}"] = [tree for tree in some if tree.task.difficulty == difficulty]
    for tree in some:
      if (tier := tier_of(tree.task)) is not None:
        tiers[tier].append(tree)
  figures = lambda groups: {str(k): summarise(some) for k, some in groups.items() if any(not t.fault for t in some)}
  return {"splits": figures(groups), "tiers": figures(dict(sorted(tiers.items())))}


def against(ours: Mapping[str, Sequence[Tree]], theirs: Mapping[str, Sequence[Tree]]) -> dict[str, dict[str, Any]]:
  """split -> what ours have over theirs on the same tasks: success, with its interval, and the ratio of costs."""
  out = {}
  for split, some in ours.items():
    found = difference(by_task(some, root_success), by_task(theirs[split], root_success))
    if found is not None:
      a, b = summarise(some), summarise(theirs[split])
      out[split] = {
        "success": found[0],
        "interval": found[1],
        "tokens_ratio": a["sampled_tokens_per_tree"] / max(b["sampled_tokens_per_tree"], 1),
        "critical_path_ratio": a["critical_path_per_tree"] / max(b["critical_path_per_tree"], 1),
      }
  return out


def pareto(agents: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Success against cost on the same tasks: a point for every agent and number of tries.

  Args:
    agents: name -> figures, see `summarise`.
  Returns:
    points with `dominated`: by which costs (`tokens`, `critical_path`) another point is no worse and better in one.
  """
  points = [{"agent": name, **row} for name, figures in agents.items() for row in figures["tries"]]
  costs = ("tokens", "critical_path")
  verdicts = {cost: dominated([(point["success"], point[cost]) for point in points]) for cost in costs}
  return [point | {"dominated": [cost for cost in costs if verdicts[cost][i]]} for i, point in enumerate(points)]


def zero_variance(trees: Sequence[Tree]) -> dict[str, float]:
  """Share of trees whose task has several, all with the same success; nothing if no task has several."""
  groups = [some for some in by_task(trees, root_success).values() if len(some) > 1]
  if not groups:
    return {}
  return {"eval/zero_variance_trees": sum(len(g) for g in groups if len(set(g)) == 1) / sum(map(len, groups))}
