"""Tree dumps: their statistics, and the few trees that the page shows. Impure: reads files.

A dump line is one tree as JSON, its nodes in path order with the root first. Fields that are missing are
shown as missing. Dumps can be large, so they are read line by line and only what is shown is kept.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

SOLVED_SHOWN, FAILED_SHOWN = 6, 2
MAX_TEXT = 20_000  # characters of one cell or output that go into the page


@dataclasses.dataclass
class Count:
  """Sums over the trees of one dump file and difficulty."""

  trees: int = 0
  solved: int = 0
  nodes: int = 0
  delegating: int = 0  # nodes with children
  tokens: int = 0  # sampled by the policy
  deepest: int = 0
  deepest_solved: int = 0


@dataclasses.dataclass
class Dumps:
  """What a report takes from the dumps of one run; the counts are those of the last step dumped."""

  step: int | None = None
  counts: dict[tuple[str, str], Count] = dataclasses.field(default_factory=dict)  # (file, difficulty)
  by_depth: dict[int, list[int]] = dataclasses.field(default_factory=dict)  # depth -> [nodes, of them solved]
  shown: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  unreadable: int = 0  # lines, such as one that a kill cut short


def read_dumps(paths: Sequence[pathlib.Path], run: str) -> Dumps:
  dumps, candidates = Dumps(), []
  for path in paths:
    with path.open("rb") as file:
      for line in file:
        try:
          tree = json.loads(line)
        except ValueError:
          dumps.unreadable += 1
          continue
        if not isinstance(tree, dict) or not tree.get("nodes") or not tree.get("valid", True):
          continue
        _count(dumps, tree, path.stem)
        candidates.append((_rank(tree), len(candidates), tree | {"run": run, "source": path.stem}))
    candidates = _keep_best(candidates)
  dumps.shown = [_for_page(tree) for _, _, tree in _keep_best(candidates)]
  return dumps


def depth_of(tree: dict[str, Any]) -> int:
  return max(node.get("depth", len(node.get("path", ()))) for node in tree["nodes"])


def is_solved(node: dict[str, Any]) -> bool:
  return node.get("success", 0) >= 1


def _rank(tree: dict[str, Any]) -> tuple:
  return is_solved(tree["nodes"][0]), depth_of(tree), len(tree["nodes"]), tree.get("step", 0)


def _keep_best(candidates: list[tuple]) -> list[tuple]:
  """The deepest solved trees and the deepest failed ones, one per task."""
  kept, tasks, room = [], set(), {True: SOLVED_SHOWN, False: FAILED_SHOWN}
  for candidate in sorted(candidates, key=lambda c: (c[0], -c[1]), reverse=True):
    (solved, *_), _, tree = candidate
    task = (solved, tree.get("task"))
    if room[solved] and (task not in tasks or tree.get("task") is None):
      room[solved] -= 1
      tasks.add(task)
      kept.append(candidate)
  return kept


def _count(dumps: Dumps, tree: dict[str, Any], source: str) -> None:
  step = tree.get("step", 0)
  if dumps.step is None or step > dumps.step:
    dumps.step, dumps.counts, dumps.by_depth = step, {}, {}
  if step < dumps.step:
    return
  nodes, count = tree["nodes"], dumps.counts.setdefault((source, str(tree.get("difficulty", ""))), Count())
  depth, solved = depth_of(tree), is_solved(nodes[0])
  parents = collections.Counter(node.get("parent", -1) for node in nodes)
  count.trees += 1
  count.solved += solved
  count.nodes += len(nodes)
  count.delegating += sum(parent >= 0 for parent in parents)
  count.tokens += sum(node.get("sampled", 0) for node in nodes)
  count.deepest = max(count.deepest, depth)
  count.deepest_solved = max(count.deepest_solved, depth if solved else 0)
  for node in nodes:
    cell = dumps.by_depth.setdefault(node.get("depth", len(node.get("path", ()))), [0, 0])
    cell[0] += 1
    cell[1] += is_solved(node)


def _for_page(tree: dict[str, Any]) -> dict[str, Any]:
  """A copy with over-long texts cut at a visible mark."""

  def cut(text: Any) -> str:
    text = str(text)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + f"\n... {len(text) - MAX_TEXT} more characters"

  nodes = [
    node
    | {"turns": [{part: cut(turn.get(part) or "") for part in ("cell", "output")} for turn in node.get("turns", ())]}
    for node in tree["nodes"]
  ]
  return tree | {"nodes": nodes, "max_depth": depth_of(tree), "solved": is_solved(tree["nodes"][0])}
