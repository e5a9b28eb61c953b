import numpy as np
import pytest

from rao_jax.tree import buffer as tree_buffer
from rao_jax.tree.buffer import NodeRecord, TreeRecord


def node(tokens, is_action, parent, depth, success=1.0):
  return NodeRecord(tokens, is_action, [-0.5] * len(tokens), parent, depth, success)


TREES = [
  TreeRecord([node([1, 2, 3], [0, 1, 1], -1, 0), node([4, 5], [0, 1], 0, 1, 0.5)], group=3, valid=True),
  TreeRecord([], group=3, valid=False),
  # The root need not come first; its child sampled nothing.
  TreeRecord([node([6], [0], 1, 1, 0.0), node([7, 8, 9, 10], [0, 1, 0, 1], -1, 0)], group=4, valid=True),
]


def test_build_lays_tokens_end_to_end_and_shifts_indices():
  buffer = tree_buffer.build(TREES, num_trees=4, num_nodes=6, num_tokens=12)
  np.testing.assert_array_equal(buffer.tokens, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0])
  np.testing.assert_array_equal(buffer.is_action, np.array([0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0], bool))
  np.testing.assert_array_equal(buffer.behaviour_logp, -0.5 * buffer.is_action)
  np.testing.assert_array_equal(buffer.start, [0, 3, 5, 6, 0, 0])
  np.testing.assert_array_equal(buffer.length, [3, 2, 1, 4, 0, 0])
  np.testing.assert_array_equal(buffer.sampled, [2, 1, 0, 2, 0, 0])
  np.testing.assert_array_equal(buffer.parent, [-1, 0, 3, -1, -1, -1])
  np.testing.assert_array_equal(buffer.depth, [0, 1, 1, 0, 0, 0])
  np.testing.assert_array_equal(buffer.tree, [0, 0, 2, 2, 0, 0])
  np.testing.assert_array_equal(buffer.success, [1, 0.5, 0, 1, 0, 0])
  np.testing.assert_array_equal(buffer.exists, [1, 1, 1, 1, 0, 0])
  np.testing.assert_array_equal(buffer.group, [3, 3, 4, -1])
  np.testing.assert_array_equal(buffer.root, [0, 0, 3, 0])
  np.testing.assert_array_equal(buffer.tree_valid, [1, 0, 1, 0])


def test_nodes_that_sampled_nothing_are_valid_but_not_trained():
  buffer = tree_buffer.build(TREES, num_nodes=6)
  np.testing.assert_array_equal(tree_buffer.valid_nodes(buffer), [1, 1, 1, 1, 0, 0])
  np.testing.assert_array_equal(tree_buffer.trained_nodes(buffer), [1, 1, 0, 1, 0, 0])


def test_nodes_of_invalid_trees_are_not_valid():
  crashed = [TREES[0]._replace(valid=False), TREES[2]]
  buffer = tree_buffer.build(crashed, num_nodes=5)
  np.testing.assert_array_equal(tree_buffer.valid_nodes(buffer), [0, 0, 1, 1, 0])


def test_sizes_climb_a_ladder_of_powers_of_two():
  assert [tree_buffer.ladder(n) for n in (0, 64, 65, 128, 3000)] == [64, 64, 128, 128, 4096]
  buffer = tree_buffer.build(TREES)
  assert buffer.start.shape == (64,) and buffer.tokens.shape == (1024,) and buffer.root.shape == (3,)


@pytest.mark.parametrize(
  "trees, message",
  [
    ([TreeRecord([node([1, 2], [0, 1], -1, 0)] * 2, 0, True)], "2 roots"),
    ([TreeRecord([], 0, True)], "0 roots"),
    (
      [TreeRecord([node([1, 2], [0, 1], -1, 0), node([1, 2], [0, 1], 0, 2)], 0, True)],
      "depth 2, its parent makes it 1",
    ),
    ([TreeRecord([node([1, 2], [0, 1], -1, 0), node([1, 2], [0, 1], 2, 1)], 0, True)], "parent 2"),
    ([TreeRecord([node([1, 2], [0], -1, 0)], 0, True)], "must match"),
    ([TreeRecord([node([1, 2], [1, 1], -1, 0)], 0, True)], "first token"),
    ([TreeRecord([node([1, 2], [0, 1], -1, 0, success=1.5)], 0, True)], "success 1.5"),
    ([TreeRecord([NodeRecord([1, 2], [0, 1], [0, -np.inf], -1, 0, 1.0)], 0, True)], "not finite"),
  ],
)
def test_build_refuses_records_that_contradict_themselves(trees, message):
  with pytest.raises(ValueError, match=message):
    tree_buffer.build(trees)


def test_build_refuses_a_size_that_is_too_small():
  with pytest.raises(ValueError, match="num_nodes=3 is too small for the 4"):
    tree_buffer.build(TREES, num_nodes=3)
