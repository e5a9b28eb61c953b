"""What a batch of finished trees amounts to: numbers for the metrics, lines for the report."""

import collections
import statistics
from collections.abc import Sequence
from typing import Any

from rao_jax.rollout.engine import Node, Outcome, Tree

# Why a launch is refused at one of the caps; the other refusals are of a goal, or of a launch nobody awaits.
CAP_REFUSALS = ("depth", "nodes", "launches", "turns", "room", "prompt")


def critical_path(nodes: Sequence[Node]) -> int:
  """Tokens sampled along the longest chain of a tree: what it takes however many agents decode side by side.

  L(x) = own sampled tokens of x + sum over its waves of max L(c) over the children c of the wave

  A wave is what one wait of a cell launched: its children work in parallel, their parent waits for all of them, and
  then goes on. Waves of one agent follow each other. L(root) is a lower bound of the decode steps that a tree takes one
  after the other: the engine's levels also let an agent wait for others of its level, and may take more.

  Args:
    nodes: of one tree, parents before their children.
  """
  waves = collections.defaultdict(dict)  # id of a node -> its waves -> the longest child
  for node in reversed(nodes):
    length = node.sampled + sum(waves[id(node)].values())
    if node.parent is not None:
      own = waves[id(node.parent)]
      own[node.wave] = max(own.get(node.wave, 0), length)
  return length


def launched_in_parallel(nodes: Sequence[Node]) -> int:
  """Nodes that share their wave with another: children that work while a sibling does."""
  waves = collections.Counter((id(node.parent), node.wave) for node in nodes if node.parent is not None)
  return sum(n for n in waves.values() if n > 1)


def is_router(tree: Tree) -> bool:
  """Whether the root hands its whole task on, and pays for an agent that does none of it.

  That is: a child was asked for what the root was asked for, word for word; or all its children were asked for one and
  the same thing, and the root called no function of the world itself.
  """
  asked = {node.goal_text for node in tree.nodes if node.parent is tree.root}
  return tree.root.goal_text in asked or (len(asked) == 1 and not tree.root.calls)


def full_window(node: Node, window: int) -> bool:
  """Whether the node ended because its window was full, between two turns or within one."""
  return node.outcome is Outcome.CONTEXT_FULL or (node.outcome is Outcome.TRUNCATED and len(node.tokens) >= window)


def tree_metrics(trees: Sequence[Tree], prefix: str) -> dict[str, float]:
  """Means over trees and shares over nodes, invalid trees left out; keys are `prefix/...`."""
  trees = [tree for tree in trees if tree.fault is None]
  if not trees:
    return {}
  by_difficulty = collections.defaultdict(list)
  for tree in trees:
    by_difficulty[tree.task.difficulty].append(tree)
  nodes = [node for tree in trees for node in tree.nodes]
  parents = len({id(node.parent) for node in nodes if node.parent is not None})
  granted = len(nodes) - len(trees)
  sampled = sum(tree.ledger.sampled for tree in trees)
  refused = sum((tree.ledger.refused for tree in trees), collections.Counter())
  at_caps = sum(refused[why] for why in CAP_REFUSALS)
  out = {
    f"{prefix}/success": statistics.fmean(tree.root.success for tree in trees),
    f"{prefix}/node_success": statistics.fmean(node.success for node in nodes),
    f"{prefix}/nodes_per_tree": len(nodes) / len(trees),
    f"{prefix}/max_depth": max(node.depth for node in nodes),
    f"{prefix}/turns_per_node": statistics.fmean(len(node.turns) for node in nodes),
    f"{prefix}/tokens_per_node": statistics.fmean(len(node.tokens) for node in nodes),
    f"{prefix}/depth_cap": max(tree.caps.max_depth for tree in trees),
    f"{prefix}/depth_reached": statistics.fmean(max(node.depth for node in tree.nodes) for tree in trees),
    f"{prefix}/branching": granted / max(parents, 1),  # children of a node that has any
    f"{prefix}/parallel_share": sum(launched_in_parallel(tree.nodes) for tree in trees) / max(granted, 1),
    f"{prefix}/tokens_per_tree": sampled / len(trees),  # sampled ones, as on the critical path
    f"{prefix}/critical_path": statistics.fmean(critical_path(tree.nodes) for tree in trees),
    f"{prefix}/children_share": 1 - sum(tree.root.sampled for tree in trees) / max(sampled, 1),  # of the tokens sampled
    f"{prefix}/never_delegates": statistics.fmean(len(tree.nodes) == 1 for tree in trees),
    f"{prefix}/router_roots": statistics.fmean(is_router(tree) for tree in trees),
    f"{prefix}/refused_at_caps": at_caps / max(granted + at_caps, 1),
    f"{prefix}/truncated_by_context": statistics.fmean(
      full_window(node, tree.caps.window) for tree in trees for node in tree.nodes
    ),
  }
  for difficulty, some in by_difficulty.items():
    out[f"{prefix}/success/{difficulty}"] = statistics.fmean(tree.root.success for tree in some)
    out[f"{prefix}/nodes_per_tree/{difficulty}"] = statistics.fmean(len(tree.nodes) for tree in some)
  ended = collections.Counter(node.outcome for node in nodes)
  for outcome in Outcome:
    out[f"{prefix}/outcome/{outcome}"] = ended[outcome] / len(nodes)
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
        "wave": node.wave,
        "outcome": str(node.outcome),
        "success": node.success,
        "tokens": len(node.tokens),
        "sampled": node.sampled,
        "turns": [{"cell": t.cell, "output": t.output, "launches": t.launches} for t in node.turns],
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
