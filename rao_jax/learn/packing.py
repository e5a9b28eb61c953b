"""Packed rows: the nodes of a tree buffer laid side by side in rows of one length, for training. Host side, numpy.

Logits at position i predict token i + 1 of the same segment; `is_action[i]` says that token i was sampled.
`shift_targets`, the one part that runs inside the step, lines the two up.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rao_jax.tree.buffer import TreeBuffer

Array = jax.Array | np.ndarray


@struct.dataclass
class PackedRows:
  tokens: Array  # i32[B, S], 0 at padding
  segment: Array  # i32[B, S], 1, 2, ... for the nodes of a row, 0 at padding
  position: Array  # i32[B, S], starts at 0 in every segment, or at the length of a shared prefix
  is_action: Array  # bool[B, S]
  behaviour_logp: Array  # f32[B, S]
  advantage: Array  # f32[B, S], of the token's node
  weight: Array  # f32[B, S], of the token's node


@struct.dataclass
class Targets:
  """What the logits at each position are asked for; all [B, S]."""

  token: Array  # i32
  is_action: Array  # bool, False where the next token was not sampled or is none of this segment
  behaviour_logp: Array  # f32
  advantage: Array  # f32
  weight: Array  # f32


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
  """Best-fit decreasing: longest first, each into the fullest row that still takes it.

  Args:
    lengths: of the nodes, each in 1..row_length.
    row_length: S.
  Returns:
    for every row the indices of its nodes.
  """
  if len(lengths) and max(lengths) > row_length:
    raise ValueError(f"a node of {max(lengths)} tokens does not fit a row of {row_length}: raise the row length")
  rows: list[list[int]] = []
  room: list[tuple[int, int]] = []  # (free tokens, row), sorted
  for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
    length = int(lengths[index])
    slot = bisect_left(room, (length, -1))
    free, row = room.pop(slot) if slot < len(room) else (row_length, len(rows))
    if row == len(rows):
      rows.append([])
    rows[row].append(index)
    if free > length:
      insort(room, (free - length, row))
  return rows


def packed_rows(
  buffer: TreeBuffer, nodes: Array, advantage: Array, weight: Array, row_length: int, rows_multiple: int = 1,
  skip: int = 0,
) -> PackedRows:  # fmt: skip
  """The given nodes in rows of row_length; empty rows fill up to a multiple of rows_multiple.

  Args:
    buffer: numpy-backed.
    nodes: i32[...], which nodes; each at most once, none empty.
    advantage: f32[N].
    weight: f32[N].
    row_length: S.
    rows_multiple: at least one multiple is returned, even without nodes.
    skip: tokens that every node starts with and rows leave out: a prefix that is shared.
  """
  nodes = np.asarray(nodes, np.int64)
  rows = pack((buffer.length[nodes] - skip).tolist(), row_length)
  B = max(-(-len(rows) // rows_multiple), 1) * rows_multiple
  order = nodes[[index for row in rows for index in row]]
  in_row = np.array([len(row) for row in rows], np.int64)
  lengths = buffer.length[order].astype(np.int64) - skip
  row = np.repeat(np.arange(len(rows)), in_row)
  ends = np.cumsum(lengths)
  before = ends - lengths  # tokens laid out before each node
  first = np.cumsum(in_row) - in_row  # i[rows], the first node of each row
  offset = before - before[first][row]  # i[nodes], column of the node's first token
  number = np.arange(len(order)) - first[row] + 1

  step = np.arange(lengths.sum()) - np.repeat(before, lengths)  # i[tokens], position within the node's part of the row
  source = np.repeat(buffer.start[order] + skip, lengths) + step
  target = np.repeat(row * row_length + offset, lengths) + step

  def laid_out(values, dtype):
    flat = np.zeros(B * row_length, dtype)
    flat[target] = values
    return flat.reshape(B, row_length)

  return PackedRows(
    tokens=laid_out(buffer.tokens[source], np.int32),
    segment=laid_out(np.repeat(number, lengths), np.int32),
    position=laid_out(step + skip, np.int32),
    is_action=laid_out(buffer.is_action[source], bool),
    behaviour_logp=laid_out(buffer.behaviour_logp[source], np.float32),
    advantage=laid_out(np.repeat(np.asarray(advantage)[order], lengths), np.float32),
    weight=laid_out(np.repeat(np.asarray(weight)[order], lengths), np.float32),
  )


def microbatches(
  buffer: TreeBuffer,
  nodes: Array,
  advantage: Array,
  weight: Array,
  row_lengths: Sequence[int],
  tokens_per_microbatch: int,
  rng: np.random.Generator | None = None,
  skip: int = 0,
) -> list[PackedRows]:
  """The given nodes in microbatches of fixed shapes [tokens_per_microbatch // S, S], one shape per row length S.

  A node goes to the shortest row length that fits it, since dense attention costs S^2 per row; nodes over half of a
  row length lie alone, so more classes trade fill against attention.

  Args:
    buffer, nodes, advantage, weight: as in `packed_rows`.
    row_lengths: the ladder of S.
    tokens_per_microbatch: at least the largest S.
    rng: shuffles the packed rows; without it the long nodes come first.
    skip: as in `packed_rows`.
  """
  ladder = np.array(sorted(row_lengths))
  if tokens_per_microbatch < ladder[-1]:
    raise ValueError(
      f"tokens_per_microbatch={tokens_per_microbatch} holds no row of {ladder[-1]}: set it to {ladder[-1]} or more"
    )
  nodes = np.asarray(nodes, np.int64)
  lengths = buffer.length[nodes] - skip
  if len(nodes) and lengths.max() > ladder[-1]:
    raise ValueError(f"a node of {lengths.max()} tokens does not fit a row of {ladder[-1]}: raise the row length")
  rung = np.searchsorted(ladder, lengths)
  parts = []
  for index, S in enumerate(ladder.tolist()):
    chosen = nodes[rung == index]
    if len(chosen):
      rows = tokens_per_microbatch // S
      packed = packed_rows(buffer, chosen, advantage, weight, S, rows, skip)
      if rng is not None:
        order = rng.permutation(len(packed.tokens))
        packed = jax.tree.map(lambda x, order=order: x[order], packed)
      for start in range(0, len(packed.tokens), rows):
        parts.append(jax.tree.map(lambda x, start=start, rows=rows: x[start : start + rows], packed))
  return parts


def fill(parts: Sequence[PackedRows]) -> float:
  """Share of the positions that hold a token, padding rows included."""
  used = sum(int(np.count_nonzero(part.segment)) for part in parts)
  return used / max(sum(part.segment.size for part in parts), 1)


def shift_targets(rows: PackedRows) -> Targets:
  """For each position the next token of its segment and what the loss needs to know of it. Pure, inside jit."""

  def following(x):
    return jnp.concatenate([x[:, 1:], jnp.zeros_like(x[:, :1])], axis=1)

  same = (following(rows.segment) == rows.segment) & (rows.segment > 0)
  return Targets(
    token=jnp.where(same, following(rows.tokens), 0),
    is_action=same & following(rows.is_action),
    behaviour_logp=jnp.where(same, following(rows.behaviour_logp), 0),
    advantage=jnp.where(same, rows.advantage, 0),
    weight=jnp.where(same, rows.weight, 0),
  )
