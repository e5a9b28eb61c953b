"""Finished trees on their way between processes: as bytes, and from bytes into the same trees, unworked, elsewhere.

What is carried is what training, metrics and reports read: tokens, outcomes, grades, texts. Messages, goals and
sandboxes stay behind.
"""

import json
from collections.abc import Sequence

import numpy as np

from rao_jax.rollout.engine import Node, Outcome, Status, Tree, Turn

PARTS = (("tokens", np.int32), ("logp", np.float32), ("is_action", bool))


def to_bytes(trees: Sequence[Tree]) -> bytes:
  """The length of a JSON text, the text, then the parts of all nodes end to end."""
  nodes = [node for tree in trees for node in tree.nodes]
  text = json.dumps([_outline(tree) for tree in trees]).encode()
  arrays = [np.concatenate([np.asarray(getattr(n, name), dtype) for n in nodes] or [[]]) for name, dtype in PARTS]
  return b"".join(
    [len(text).to_bytes(8, "little"), text, *(a.astype(dtype).tobytes() for a, (_, dtype) in zip(arrays, PARTS))]
  )


def from_bytes(data: bytes, trees: Sequence[Tree]) -> None:
  """Makes the trees what they were where `to_bytes` was called; node arrays are numpy."""
  end = 8 + int.from_bytes(data[:8], "little")
  outlines = json.loads(data[8:end])
  lengths = [node["length"] for outline in outlines for node in outline["nodes"]]
  arrays = []
  for _, dtype in PARTS:
    size = sum(lengths) * np.dtype(dtype).itemsize
    arrays.append(np.split(np.frombuffer(data[end : end + size], dtype), np.cumsum(lengths)[:-1]))
    end += size
  parts = iter(zip(*arrays))
  for tree, outline in zip(trees, outlines, strict=True):
    _fill(tree, outline, parts)


def _outline(tree: Tree) -> dict:
  return {
    "fault": tree.fault,
    "sampled": tree.ledger.sampled,
    "refused": dict(tree.ledger.refused),
    "nodes": [
      {
        "path": node.path,
        "goal": node.goal_text,
        "turns": [[turn.cell, turn.output, turn.launches] for turn in node.turns],
        "outcome": node.outcome,
        "success": node.success,
        "length": len(node.tokens),
        "wave": node.wave,
        "calls": node.calls,
      }
      for node in tree.nodes
    ],
  }


def _fill(tree: Tree, outline: dict, parts) -> None:
  tree.fault, tree.levels = outline["fault"], []
  tree.ledger.sampled = outline["sampled"]
  tree.ledger.refused.update(outline["refused"])
  by_path = {}
  for known in outline["nodes"]:
    path = tuple(known["path"])
    node = Node(path, by_path[path[:-1]] if path else None, None, known["goal"], [], status=Status.ENDED)
    node.tokens, node.logp, node.is_action = next(parts)
    node.turns = [Turn(*turn) for turn in known["turns"]]
    node.outcome = known["outcome"] and Outcome(known["outcome"])
    node.success = known["success"]
    node.wave, node.calls = known["wave"] and tuple(known["wave"]), known["calls"]
    by_path[path] = node
  tree.nodes = list(by_path.values())
