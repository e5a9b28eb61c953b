"""The tree buffer: every token of a batch of trees, flat, and what is known of each node and each tree.

A dense [nodes, context] layout would be mostly padding, so tokens lie end to end in `[M]` and every node holds the
start and length of its part. `N` and `M` are padded up a ladder to bound the number of compiled programs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import struct

Array = jax.Array | np.ndarray


class NodeRecord(NamedTuple):
  """What the rollout knows of one node when its tree is done."""

  tokens: Sequence[int]  # the whole context: prompt, sampled tokens, observations
  is_action: Sequence[bool]  # True where the node itself sampled the token
  behaviour_logp: Sequence[float]  # the sampler's log-probability, read only where is_action
  parent: int  # index within the tree, -1 at the root
  depth: int  # 0 at the root
  success: float  # in [0, 1]


class TreeRecord(NamedTuple):
  """One tree: exactly one root. `valid` is False when the harness, not the policy, failed: nothing of it counts."""

  nodes: Sequence[NodeRecord]
  group: int  # trees with the same group are rollouts of the same root task
  valid: bool


@struct.dataclass
class TreeBuffer:
  """A batch of T trees with N nodes and M tokens, padding included."""

  tokens: Array  # i32[M]
  behaviour_logp: Array  # f32[M], 0 where not sampled
  is_action: Array  # bool[M]
  start: Array  # i32[N], index of the node's first token
  length: Array  # i32[N], 0 at padding
  sampled: Array  # i32[N], number of action tokens
  parent: Array  # i32[N], -1 at roots and padding
  depth: Array  # i32[N]
  tree: Array  # i32[N], 0 at padding
  success: Array  # f32[N]
  exists: Array  # bool[N], False at padding
  group: Array  # i32[T], -1 at padding
  root: Array  # i32[T], index of the root node, 0 where a tree has none
  tree_valid: Array  # bool[T], False at padding


def valid_nodes(buffer: TreeBuffer) -> Array:
  """bool[N]: nodes that count at all, in their parent's mean or by themselves."""
  return buffer.exists & buffer.tree_valid[buffer.tree]


def trained_nodes(buffer: TreeBuffer) -> Array:
  """bool[N]: the trajectories of the batch, the N of the paper; a node that sampled nothing is none."""
  return valid_nodes(buffer) & (buffer.sampled > 0)


def ladder(size: int, smallest: int = 64) -> int:
  """The smallest of `smallest * 2^k` that holds `size`."""
  rung = smallest
  while rung < size:
    rung *= 2
  return rung


def build(
  trees: Sequence[TreeRecord],
  num_trees: int | None = None,
  num_nodes: int | None = None,
  num_tokens: int | None = None,
) -> TreeBuffer:
  """Lays the records out as one numpy-backed TreeBuffer.

  Args:
    trees: any number of records up to num_trees; their order and the order of their nodes is kept.
    num_trees: T; by default the number of records.
    num_nodes: N; by default the next rung of the ladder.
    num_tokens: M; by default the next rung of the ladder.
  """
  nodes = [node for tree in trees for node in tree.nodes]
  sizes = np.array([len(tree.nodes) for tree in trees], np.int32)
  lengths = np.array([len(node.tokens) for node in nodes], np.int32)
  for index, tree in enumerate(trees):
    _check_tree(index, tree)
  T = _size("num_trees", num_trees, len(trees), len(trees))
  N = _size("num_nodes", num_nodes, len(nodes), ladder(len(nodes)))
  M = _size("num_tokens", num_tokens, int(lengths.sum()), ladder(int(lengths.sum()), 1024))

  first = np.cumsum(sizes) - sizes  # i32[T], where a tree's nodes begin
  parent = np.array([node.parent for node in nodes], np.int32)
  parent_in_buffer = np.where(parent < 0, -1, parent + np.repeat(first, sizes))
  root = np.array(
    [
      start + next((i for i, node in enumerate(tree.nodes) if node.parent < 0), -start)
      for start, tree in zip(first, trees)
    ]
  )
  is_action = _concatenate([node.is_action for node in nodes], bool)
  behaviour_logp = np.where(is_action, _concatenate([node.behaviour_logp for node in nodes], np.float32), 0)
  start = (np.cumsum(lengths) - lengths).astype(np.int32)
  if (is_action[start[lengths > 0]]).any():
    raise ValueError("the first token of a node is marked as sampled, but nothing precedes it to sample it from")
  if not np.isfinite(behaviour_logp).all():
    raise ValueError("behaviour_logp of a sampled token is not finite")
  total = np.concatenate([[0], np.cumsum(is_action)])
  return TreeBuffer(
    tokens=_pad(_concatenate([node.tokens for node in nodes], np.int32), M, 0),
    behaviour_logp=_pad(behaviour_logp.astype(np.float32), M, 0),
    is_action=_pad(is_action, M, False),
    start=_pad(start, N, 0),
    length=_pad(lengths, N, 0),
    sampled=_pad((total[start + lengths] - total[start]).astype(np.int32), N, 0),
    parent=_pad(parent_in_buffer.astype(np.int32), N, -1),
    depth=_pad(np.array([node.depth for node in nodes], np.int32), N, 0),
    tree=_pad(np.repeat(np.arange(len(trees), dtype=np.int32), sizes), N, 0),
    success=_pad(np.array([node.success for node in nodes], np.float32), N, 0),
    exists=_pad(np.ones(len(nodes), bool), N, False),
    group=_pad(np.array([tree.group for tree in trees], np.int32), T, -1),
    root=_pad(root.astype(np.int32), T, 0),
    tree_valid=_pad(np.array([tree.valid for tree in trees], bool), T, False),
  )


def _check_tree(index: int, tree: TreeRecord) -> None:
  roots = sum(node.parent < 0 for node in tree.nodes)
  if roots != 1 and (tree.nodes or tree.valid):
    raise ValueError(f"tree {index} has {roots} roots, needs exactly 1 (only an invalid tree may have no nodes)")
  for n, node in enumerate(tree.nodes):
    if not len(node.tokens) == len(node.is_action) == len(node.behaviour_logp):
      raise ValueError(
        f"tree {index}, node {n}: {len(node.tokens)} tokens, {len(node.is_action)} is_action, "
        f"{len(node.behaviour_logp)} behaviour_logp; they must match"
      )
    if node.parent >= len(tree.nodes):
      raise ValueError(f"tree {index}, node {n}: parent {node.parent}, but the tree has {len(tree.nodes)} nodes")
    expected = 0 if node.parent < 0 else tree.nodes[node.parent].depth + 1
    if node.depth != expected:
      raise ValueError(f"tree {index}, node {n}: depth {node.depth}, its parent makes it {expected}")
    if tree.valid and not 0 <= node.success <= 1:
      raise ValueError(f"tree {index}, node {n}: success {node.success} outside [0, 1]")


def _size(name: str, wanted: int | None, needed: int, default: int) -> int:
  if wanted is None:
    return default
  if wanted < needed:
    raise ValueError(f"{name}={wanted} is too small for the {needed} that the records hold")
  return wanted


def _concatenate(parts: list[Sequence], dtype: type) -> np.ndarray:
  return np.concatenate([np.asarray(part, dtype) for part in parts]) if parts else np.zeros(0, dtype)


def _pad(values: np.ndarray, size: int, fill: int | bool) -> np.ndarray:
  return np.concatenate([values, np.full(size - len(values), fill, values.dtype)])
