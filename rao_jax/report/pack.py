"""The trees that a page holds: which ones, and how they are packed. Impure: reads dumps.

A page of a long run cannot hold every tree. Trees are packed by columns, every text once, in chunks that are compressed
(zlib) and written as base64; viewer.js unpacks a chunk when one of its trees is chosen.
"""

import base64
import itertools
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from rao_jax.report.trees import Facts, read_tree, success_of

PAGE_BYTES = 40_000_000  # of dump lines: two to six million characters of the page
CHUNK_BYTES = 1_500_000  # of dump lines; a single tree may be more
MAX_TEXT = 20_000  # characters of one text that go into the page
NUMBERS = ("reward", "baseline", "advantage", "weight", "tokens", "sampled")


def choose(runs: Mapping[str, Sequence[Facts]], first: Facts | None = None, room: int = PAGE_BYTES) -> dict[str, list]:
  """The trees of each run that fit into `room` bytes, whole groups where they can, in the order of the dumps.

  First the one asked for, then by turns of all files, newest first: from each the group of its best tree (the deepest
  that was solved), then the others in the order of the file.
  """
  queues = []
  for run, trees in runs.items():
    files = [list(some) for _, some in itertools.groupby(trees, lambda tree: tree.path)]
    for some in sorted(files, key=lambda some: some[-1].step, reverse=True):
      groups = [list(group) for _, group in itertools.groupby(some, lambda tree: tree.rollouts_of)]
      best = max(groups, key=lambda group: max((tree.solved, tree.depth, tree.nodes) for tree in group))
      queues.append([(run, group) for group in (best, *(g for g in groups if g is not best))])
  turns = [entry for turn in itertools.zip_longest(*queues) for entry in turn if entry]
  if first is not None:
    turns.sort(key=lambda entry: first not in entry[1])  # stable
    turns = [(run, sorted(group, key=lambda tree: tree is not first)) for run, group in turns]
  chosen = set()
  for _, group in turns:
    for tree in group:
      if tree.size <= room or tree is first:
        room -= tree.size
        chosen.add(tree)
  return {run: [tree for tree in trees if tree in chosen] for run, trees in runs.items()}


def pack_trees(chosen: Mapping[str, Sequence[Facts]]) -> tuple[list[dict[str, Any]], list[str]]:
  """What viewer.js reads.

  Returns:
    index: of each tree its figures, its chunk and its place in it.
    chunks: of trees, packed.
  """
  chunks, index, size = [], [], 0
  packer = Packer()
  for run, trees in chosen.items():
    for facts in trees:
      if size and size + facts.size > CHUNK_BYTES:
        chunks.append(packer.chunk())
        packer, size = Packer(), 0
      size += facts.size
      index.append(
        {
          "run": run, "id": facts.id, "source": facts.source, "step": facts.step, "group": facts.group,
          "task": facts.task, "difficulty": facts.difficulty, "success": facts.success, "nodes": facts.nodes,
          "depth": facts.depth, "sampled": facts.sampled, "critical": facts.critical,
          "chunk": len(chunks), "at": len(packer.trees),
        }
      )  # fmt: skip
      packer.add(read_tree(facts))
  if packer.trees:
    chunks.append(packer.chunk())
  return index, chunks


def compress(data: Any) -> str:
  """JSON as the base64 of its zlib stream."""
  text = json.dumps(data, separators=(",", ":"), allow_nan=False)
  return base64.b64encode(zlib.compress(text.encode("ascii"))).decode("ascii")


class Packer:
  """Trees of one chunk: columns of numbers, and of places in one list of texts."""

  def __init__(self):
    self.trees: list[dict[str, Any]] = []
    self._texts: dict[str, int] = {"": 0}

  def add(self, tree: Mapping[str, Any]) -> None:
    nodes = tree["nodes"]
    self.trees.append(
      {
        "parent": [node["parent"] for node in nodes],
        "launch": [node["path"][-1] if node["path"] else -1 for node in nodes],
        "turn": [(node.get("wave") or [-1])[0] for node in nodes],  # of the parent, that launched it
        "goal": [self._text(node.get("goal")) for node in nodes],
        "outcome": [self._text(node.get("outcome")) for node in nodes],
        "success": [_number(success_of(node)) for node in nodes],
        "turns": [[self._turn(turn) for turn in node.get("turns") or ()] for node in nodes],
      }
      | {name: [_number(node.get(name)) for node in nodes] for name in NUMBERS if any(name in node for node in nodes)}
    )

  def chunk(self) -> str:
    return compress({"texts": list(self._texts), "trees": self.trees})

  def _turn(self, turn: Mapping[str, Any]) -> list[int]:
    """[cell, output, launches], -1 where launches are not known."""
    return [self._text(turn.get("cell")), self._text(turn.get("output")), turn.get("launches", -1)]

  def _text(self, text: Any) -> int:
    """The place of a text, cut at a visible mark if it is very long."""
    text = "" if text is None else str(text)
    if len(text) > MAX_TEXT:
      text = text[:MAX_TEXT] + f"\n... {len(text) - MAX_TEXT} more characters"
    return self._texts.setdefault(text, len(self._texts))


def _number(value: Any) -> float | int | None:
  """Six digits are enough to read; what is no finite number is not known."""
  if not isinstance(value, int | float) or not math.isfinite(value):
    return None
  return int(value) if value == int(value) else float(f"{value:.6g}")
