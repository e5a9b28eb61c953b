"""What a batch of finished trees amounts to: numbers for the metrics, lines for the report."""

import collections
import statistics
from collections.abc import Sequence
from typing import Any

from rao_jax.rollout.engine import Outcome, Tree


def tree_metrics(trees: Sequence[Tree], prefix: str) -> dict[str, float]:
  """Means over trees and shares over nodes, invalid trees left out; keys are `prefix/...`."""
  trees = [tree for tree in trees if tree.fault is None]
  if not trees:
    return {}
  by_difficulty = collections.defaultdict(list)
  for tree in trees:
    by_difficulty[tree.task.difficulty].append(tree)
  nodes = [node for tree in trees for node in tree.nodes]
  out = {
    f"{prefix}/success": statistics.fmean(tree.root.success for tree in trees),
    f"{prefix}/node_success": statistics.fmean(node.success for node in nodes),
    f"{prefix}/nodes_per_tree": len(nodes) / len(trees),
    f"{prefix}/max_depth": max(node.depth for node in nodes),
    f"{prefix}/turns_per_node": statistics.fmean(len(node.turns) for node in nodes),
    f"{prefix}/tokens_per_node": statistics.fmean(len(node.tokens) for node in nodes),
    f"{prefix}/never_delegates": statistics.fmean(len(tree.nodes) == 1 for tree in trees),
  }
  for difficulty, some in by_difficulty.items():
    out[f"{prefix}/success/{difficulty}"] = statistics.fmean(tree.root.success for tree in some)
    out[f"{prefix}/nodes_per_tree/{difficulty}"] = statistics.fmean(len(tree.nodes) for tree in some)
  ended = collections.Counter(node.outcome for node in nodes)
  for outcome in Outcome:
    out[f"{prefix}/outcome/{outcome}"] = ended[outcome] / len(nodes)
  refused = sum((tree.ledger.refused for tree in trees), collections.Counter())
  for why, count in refused.items():
    out[f"{prefix}/refused/{why}"] = count / len(trees)
  return out


def deepest_solved(trees: Sequence[Tree]) -> int:
  """Depth of the deepest node in a tree whose root succeeded; 0 if none did."""
  return max((max(n.depth for n in tree.nodes) for tree in trees if tree.root.success >= 1), default=0)


def tree_line(tree: Tree, step: int, number: int, credit: dict[str, Sequence[float]] | None = None) -> dict[str, Any]:
  """One line of `trees/*.jsonl`.

  Args:
    tree: finished.
    step: of the run.
    number: of the tree within the step.
    credit: `reward`, `advantage`, `weight` per node of this tree and `baseline` per node, if it was trained on.
  """
  index = {id(node): i for i, node in enumerate(tree.nodes)}
  nodes = []
  for i, node in enumerate(tree.nodes):
    nodes.append(
      {
        "path": list(node.path),
        "parent": -1 if node.parent is None else index[id(node.parent)],
        "depth": node.depth,
        "goal": node.goal_text,
        "outcome": str(node.outcome),
        "success": node.success,
        "tokens": len(node.tokens),
        "sampled": node.sampled,
        "turns": [{"cell": turn.cell, "output": turn.output} for turn in node.turns],
        **({name: float(values[i]) for name, values in credit.items()} if credit else {}),
      }
    )
  return {
    "step": step,
    "tree": number,
    "group": tree.group,
    "task": tree.task.id,
    "difficulty": tree.task.difficulty,
    "valid": tree.fault is None,
    "goal": tree.root.goal_text,
    "nodes": nodes,
  }
