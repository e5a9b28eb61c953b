import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rao_jax.learn import packing
from rao_jax.tree import buffer as tree_buffer
from rao_jax.tree.buffer import NodeRecord, TreeRecord


def buffer_of(lengths):
  """One tree per node; tokens of node n are 100 n, 100 n + 1, ...; every second token is an action."""
  trees = []
  for n, length in enumerate(lengths):
    is_action = [i % 2 == 1 for i in range(length)]
    tokens = [100 * n + i for i in range(length)]
    trees.append(TreeRecord([NodeRecord(tokens, is_action, [-(t + 1.0) for t in tokens], -1, 0, 1.0)], n, True))
  return tree_buffer.build(trees)


def realistic_lengths(count):
  """Many short leaves, some long parents, between 40 and 160 tokens as in the demo's trees."""
  random = np.random.default_rng(0)
  return np.clip(random.lognormal(4.3, 0.35, count), 40, 160).astype(int)


def test_pack_is_best_fit_decreasing():
  # Row 10, longest first: 7 -> row 0 (free 3), 6 -> row 1 (free 4), 4 -> row 1 (free 0), 3 -> row 0 (free 0),
  # 2 -> row 2.
  assert packing.pack([2, 6, 3, 7, 4], 10) == [[3, 2], [1, 4], [0]]
  # 3 fits both rows (free 4 and 3): the fuller one takes it.
  assert packing.pack([6, 7, 3], 10) == [[1, 2], [0]]
  assert packing.pack([], 10) == []


def test_pack_refuses_a_node_longer_than_a_row():
  with pytest.raises(ValueError, match="11 tokens does not fit a row of 10"):
    packing.pack([3, 11], 10)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 32), max_size=60))
def test_pack_places_every_node_once_and_overfills_no_row(lengths):
  rows = packing.pack(lengths, 32)
  assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
  assert all(0 < sum(lengths[index] for index in row) <= 32 for row in rows)


def test_rows_fill_nine_tenths_on_a_realistic_mix():
  lengths = realistic_lengths(1000)
  rows = packing.pack(lengths.tolist(), 256)
  assert lengths.sum() / (len(rows) * 256) >= 0.9


def test_packed_rows_worked_by_hand():
  # Lengths 3, 2, 4 in rows of 5: node 2 (4) alone, then node 0 (3) with node 1 (2). Padded to 4 rows.
  rows = packing.packed_rows(buffer_of([3, 2, 4]), [0, 1, 2], [0.1, 0.2, 0.3], [1, 2, 3], 5, rows_multiple=4)
  np.testing.assert_array_equal(rows.tokens, [[200, 201, 202, 203, 0], [0, 1, 2, 100, 101], [0] * 5, [0] * 5])
  np.testing.assert_array_equal(rows.segment, [[1, 1, 1, 1, 0], [1, 1, 1, 2, 2], [0] * 5, [0] * 5])
  np.testing.assert_array_equal(rows.position, [[0, 1, 2, 3, 0], [0, 1, 2, 0, 1], [0] * 5, [0] * 5])
  np.testing.assert_array_equal(rows.is_action[:2], [[0, 1, 0, 1, 0], [0, 1, 0, 0, 1]])
  np.testing.assert_array_equal(rows.behaviour_logp[:2], [[0, -202, 0, -204, 0], [0, -2, 0, 0, -102]])
  np.testing.assert_allclose(rows.advantage[:2], [[0.3] * 4 + [0], [0.1] * 3 + [0.2] * 2], rtol=1e-6)
  np.testing.assert_allclose(rows.weight[:2], [[3] * 4 + [0], [1] * 3 + [2] * 2])
  assert packing.fill([rows]) == 9 / 20


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_targets_are_the_next_token_of_the_same_node(wrap):
  rows = packing.packed_rows(buffer_of([3, 2, 4]), [0, 1, 2], [0.1, 0.2, 0.3], [1, 2, 3], 5)
  targets = wrap(packing.shift_targets)(rows)
  np.testing.assert_array_equal(targets.token, [[201, 202, 203, 0, 0], [1, 2, 0, 101, 0]])
  np.testing.assert_array_equal(targets.is_action, [[1, 0, 1, 0, 0], [1, 0, 0, 1, 0]])
  np.testing.assert_array_equal(targets.behaviour_logp, [[-202, 0, -204, 0, 0], [-2, 0, 0, -102, 0]])
  np.testing.assert_allclose(targets.advantage, [[0.3] * 3 + [0, 0], [0.1, 0.1, 0, 0.2, 0]], rtol=1e-6)
  np.testing.assert_allclose(targets.weight, [[3] * 3 + [0, 0], [1, 1, 0, 2, 0]])


def placed(parts):
  """Every run of one segment, as lists of tokens, after checking its positions."""
  runs = []
  for part in parts:
    for row in range(len(part.tokens)):
      segment = part.segment[row]
      for number in range(1, segment.max(initial=0) + 1):
        columns = np.flatnonzero(segment == number)
        np.testing.assert_array_equal(columns, np.arange(columns[0], columns[-1] + 1))
        np.testing.assert_array_equal(part.position[row, columns], np.arange(len(columns)))
        runs.append(part.tokens[row, columns].tolist())
  return runs


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 32), min_size=1, max_size=40), st.data())
def test_every_chosen_node_is_placed_exactly_once_whatever_the_row_class(lengths, data):
  buffer = buffer_of(lengths)
  nodes = data.draw(st.lists(st.integers(0, len(lengths) - 1), unique=True))
  size = len(buffer.start)
  parts = packing.microbatches(buffer, nodes, np.ones(size), np.ones(size), (8, 32), 64)
  assert sorted(placed(parts)) == sorted([100 * n + i for i in range(lengths[n])] for n in nodes)
  assert {part.tokens.shape for part in parts} <= {(8, 8), (2, 32)}
  sampled = sum(int(part.is_action.sum()) for part in parts)
  assert sampled == buffer.sampled[nodes].sum()
  # All but the first token of a node are somebody's target, so no action is lost in the shift.
  assert sum(int(packing.shift_targets(part).is_action.sum()) for part in parts) == sampled


def test_nodes_go_to_the_shortest_rows_that_fit():
  parts = packing.microbatches(buffer_of([8, 9, 3]), [0, 1, 2], np.ones(3), np.ones(3), (8, 32), 32)
  assert [(part.tokens.shape, int((part.segment > 0).sum())) for part in parts] == [((4, 8), 11), ((1, 32), 9)]


def test_microbatches_refuse_what_cannot_fit():
  with pytest.raises(ValueError, match="33 tokens does not fit a row of 32"):
    packing.microbatches(buffer_of([33]), [0], np.ones(1), np.ones(1), (8, 32), 32)
  with pytest.raises(ValueError, match="set it to 32"):
    packing.microbatches(buffer_of([3]), [0], np.ones(1), np.ones(1), (8, 32), 16)


def test_no_nodes_give_rows_of_padding_only():
  rows = packing.packed_rows(buffer_of([3]), [], np.ones(1), np.ones(1), 8, rows_multiple=2)
  assert rows.tokens.shape == (2, 8) and not rows.segment.any() and not rows.is_action.any()
  assert packing.microbatches(buffer_of([3]), [], np.ones(1), np.ones(1), (8,), 16) == []
