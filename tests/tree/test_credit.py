import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rao_jax.tree import buffer as tree_buffer
from rao_jax.tree import credit
from rao_jax.tree.buffer import NodeRecord, TreeRecord
from tests import oracle

JITTED = {
  "node_rewards": jax.jit(credit.node_rewards, static_argnames=("leaf_scale", "bonus")),
  "leave_one_out": jax.jit(credit.leave_one_out),
  "advantages": jax.jit(credit.advantages),
  "depth_weights": jax.jit(credit.depth_weights, static_argnames="cap"),
}
PLAIN = {name: getattr(credit, name) for name in JITTED}
both = pytest.mark.parametrize("f", [PLAIN, JITTED], ids=["plain", "jit"])


def floats(*values):
  return np.array(values, np.float32)


def ints(*values):
  return np.array(values, np.int32)


def bools(*values):
  return np.array(values, bool)


@both
def test_bonus_is_the_mean_of_the_childrens_own_success(f):
  # Node 0 has children 1, 2, 3 (success 1, 0, 0.5); node 1 has child 4 (success 1); lambda = 0.4.
  # R[0] = 1 + 0.4 * (1 + 0 + 0.5) / 3 = 1.2        summed instead of averaged: 1.6
  # R[1] = 1 + 0.4 * 1 = 1.4                          compounding would lift R[0] to 1 + 0.4 * 1.9 / 3
  rewards = f["node_rewards"](floats(1, 1, 0, 0.5, 1), ints(-1, 0, 0, 0, 1), bools(1, 1, 1, 1, 1), delegation_bonus=0.4)
  np.testing.assert_allclose(rewards, [1.2, 1.4, 0, 0.5, 1], rtol=1e-6)


@both
def test_bonus_does_not_compound_along_a_chain(f):
  # s = 0, 0, 1 down a chain, lambda = 0.5: R = 0 + 0.5 * 0, 0 + 0.5 * 1, 1. Compounding would give R[0] = 0.25.
  rewards = f["node_rewards"](floats(0, 0, 1), ints(-1, 0, 1), bools(1, 1, 1), delegation_bonus=0.5)
  np.testing.assert_allclose(rewards, [0, 0.5, 1], rtol=1e-6)


@both
def test_invalid_nodes_enter_no_mean_even_as_nan(f):
  # Child 2 is invalid: R[0] = 0 + 0.4 * 1 / 1; the invalid node itself is 0.
  rewards = f["node_rewards"](floats(0, 1, np.nan), ints(-1, 0, 0), bools(1, 1, 0), delegation_bonus=0.4)
  np.testing.assert_allclose(rewards, [0.4, 1, 0], rtol=1e-6)


@both
def test_leaf_scale_puts_a_perfect_leaf_level_with_a_perfect_parent(f):
  # lambda = 0.2: the parent 1 + 0.2 * mean(1, 0) = 1.1, the leaves 1 + 0.2 * 1 and 0.
  rewards = f["node_rewards"](floats(1, 1, 0), ints(-1, 0, 0), bools(1, 1, 1), delegation_bonus=0.2, leaf_scale=True)
  np.testing.assert_allclose(rewards, [1.1, 1.2, 0], rtol=1e-6)


@both
def test_counted_children_pay_by_their_number(f):
  # lambda = 0.2, children 1, 1, 0: R[0] = 1 + 0.2 * 2 where the rate gives 1 + 0.2 * 2 / 3.
  rewards = f["node_rewards"](
    floats(1, 1, 1, 0), ints(-1, 0, 0, 0), bools(1, 1, 1, 1), delegation_bonus=0.2, bonus="count"
  )
  np.testing.assert_allclose(rewards, [1.4, 1, 1, 0], rtol=1e-6)


@both
def test_baseline_leaves_the_own_tree_out(f):
  # Group 7: rewards 1, 0, 0 -> (0 + 0) / 2, (1 + 0) / 2, (1 + 0) / 2. Group 9: 0.5, 1 -> 1, 0.5.
  baseline = f["leave_one_out"](floats(1, 0.5, 0, 1, 0), ints(7, 9, 7, 9, 7), bools(1, 1, 1, 1, 1))
  np.testing.assert_allclose(baseline, [0, 1, 0.5, 0.5, 0.5], rtol=1e-6)


@both
def test_crashed_trees_leave_their_group_and_stay_out_of_its_count(f):
  # Tree 1 crashed: for tree 0 the only other is tree 2: 0.25 (not 0.25 / 2, not (1 + 0.25) / 2).
  baseline = f["leave_one_out"](floats(0, 1, 0.25), ints(0, 0, 0), bools(1, 0, 1))
  np.testing.assert_allclose(baseline, [0.25, 0, 0], rtol=1e-6)


@both
def test_a_group_with_one_valid_tree_has_advantage_zero_at_all_its_nodes(f):
  valid = bools(1, 0, 1, 1)
  baseline = f["leave_one_out"](floats(1, np.nan, 1, 0), ints(0, 0, 1, 1), valid)
  assert np.isfinite(baseline).all()
  # Tree 0 is alone: its child with reward 0.3 gets 0 too. Tree 2: 1 - 0, its child 0.3 - 0. Tree 3: 0 - 1.
  tree = ints(0, 0, 1, 2, 2, 3)
  advantage = f["advantages"](floats(1, 0.3, np.nan, 1, 0.3, 0), tree, baseline, valid[tree])
  np.testing.assert_allclose(advantage, [0, 0, 0, 1, 0.3, -1], rtol=1e-6)


@both
def test_equal_rewards_give_advantages_of_exactly_zero(f):
  reward = np.full(7, 1.1, np.float32)
  baseline = f["leave_one_out"](reward, np.zeros(7, np.int32), np.ones(7, bool))
  assert not np.any(f["advantages"](reward, np.arange(7), baseline, np.ones(7, bool)))


@both
def test_depth_weights_share_the_batch_equally_among_the_depths_present(f):
  # 6 valid nodes at depths 0 (2 nodes), 1 (3), 3 (1): alpha = 6 / 3 = 2, weights 2/2, 2/3, 2/1. One padding node.
  weight = f["depth_weights"](ints(0, 1, 3, 1, 0, 1, 0), bools(1, 1, 1, 1, 1, 1, 0), 4)
  np.testing.assert_allclose(weight, [1, 2 / 3, 2, 2 / 3, 1, 2 / 3, 0], rtol=1e-6)


@both
def test_max_depth_is_inclusive(f):
  # max_depth 2: the node at depth 2 counts, the one at depth 3 does not: alpha = 3 / 2.
  weight = f["depth_weights"](ints(0, 0, 2, 3), bools(1, 1, 1, 1), 2)
  np.testing.assert_allclose(weight, [0.75, 0.75, 1.5, 0], rtol=1e-6)


@both
def test_capped_depth_weights_hand_the_rest_to_the_other_depths(f):
  # 8 nodes: depth 0 x 6, depth 1 x 1, depth 2 x 1. Uncapped alpha = 8 / 3: weights 4/9, 8/3, 8/3.
  # Cap 2: depths 1 and 2 take 2 each, depth 0 shares 8 - 4 = 4 among 6.
  depth, valid = ints(0, 0, 0, 0, 0, 0, 1, 2), np.ones(8, bool)
  weight = f["depth_weights"](depth, valid, 2, cap=2.0)
  np.testing.assert_allclose(weight, [2 / 3] * 6 + [2, 2], rtol=1e-6)


@both
def test_capping_one_depth_can_push_another_over_the_cap(f):
  # Depths of 1, 4, 10 nodes, N = 15, cap 1.2. alpha = 5: weights 5, 1.25, 0.5, so the first two are capped:
  # 15 - 1.2 * 5 = 9 among 10. With counts 1, 5, 9: alpha = 5 -> 5, 1, 5/9; after capping the first
  # (15 - 1.2) / 2 = 6.9 -> 6.9 / 5 = 1.38 is over too: 15 - 1.2 * 6 = 7.8 among 9.
  weight = f["depth_weights"](np.repeat(ints(0, 1, 2), [1, 4, 10]), np.ones(15, bool), 2, cap=1.2)
  np.testing.assert_allclose(weight, [1.2] * 5 + [0.9] * 10, rtol=1e-6)
  weight = f["depth_weights"](np.repeat(ints(0, 1, 2), [1, 5, 9]), np.ones(15, bool), 2, cap=1.2)
  np.testing.assert_allclose(weight, [1.2] * 6 + [7.8 / 9] * 9, rtol=1e-6)


def test_nothing_valid_gives_zeros_not_nan():
  none = np.zeros(3, bool)
  assert not np.any(credit.depth_weights(ints(0, 0, 1), none, 2))
  assert not np.any(credit.depth_weights(ints(0, 0, 1), none, 2, cap=2.0))
  assert not np.any(credit.leave_one_out(floats(1, 1, 1), ints(0, 0, 0), none))
  assert not np.any(credit.node_rewards(floats(1, 1, 1), ints(-1, 0, 0), none, 0.5))


def node(parent, depth, success, sampled=1):
  return NodeRecord([1] + [2] * sampled, [False] + [True] * sampled, [0.0] * (1 + sampled), parent, depth, success)


# Group 0: tree 0 = root (1) with children (1, 3 tokens) and one that sampled nothing; tree 1 = lone root (0);
# tree 2 crashed. Group 1: tree 3 only, its other arm crashed as tree 4.
FOREST = [
  TreeRecord([node(-1, 0, 1.0), node(0, 1, 1.0, 3), node(0, 1, 0.0, 0)], 0, True),
  TreeRecord([node(-1, 0, 0.0)], 0, True),
  TreeRecord([node(-1, 0, 1.0), node(0, 1, 1.0)], 0, False),
  TreeRecord([node(-1, 0, 1.0), node(0, 1, 0.0, 2)], 1, True),
  TreeRecord([], 1, False),
]


def test_credit_of_a_forest_worked_by_hand():
  # lambda = 0.4. R: root 0 = 1 + 0.4 * (1 + 0) / 2 = 1.2 (the child that sampled nothing counts in the mean), child 1;
  # tree 1: 0; tree 3: 1 + 0.4 * 0 = 1 and 0. Baselines: tree 0 -> 0, tree 1 -> 1.2, tree 3 has none.
  # A: 1.2, 1, -1.2, and 0, 0 in tree 3. N = 5 trained: depth 0 x 3, depth 1 x 2; alpha = 2.5.
  buffer = tree_buffer.build(FOREST, num_trees=6, num_nodes=10)
  result = credit.credit(buffer, credit.CreditOptions(max_depth=2, delegation_bonus=0.4))
  np.testing.assert_allclose(result.reward, [1.2, 1, 0, 0, 0, 0, 1, 0, 0, 0], rtol=1e-6)
  np.testing.assert_allclose(result.baseline, [0, 1.2, 0, 0, 0, 0], rtol=1e-6)
  np.testing.assert_allclose(result.advantage, [1.2, 1, 0, -1.2, 0, 0, 0, 0, 0, 0], rtol=1e-6)
  a, b = 2.5 / 3, 2.5 / 2
  np.testing.assert_allclose(result.weight, [a, b, 0, a, 0, 0, a, b, 0, 0], rtol=1e-6)
  stats = result.stats
  assert (stats.valid_trees, stats.lone_trees, stats.flat_trees) == (3, 1, 1)
  assert (stats.trained_nodes, stats.unsampled_nodes, stats.nonzero_nodes) == (5, 1, 3)
  assert stats.action_tokens == 1 + 3 + 1 + 1 + 2
  np.testing.assert_array_equal(stats.nodes, [3, 2, 0])
  np.testing.assert_array_equal(stats.success, [2, 1, 0])
  np.testing.assert_allclose(stats.reward, [2.2, 1, 0], rtol=1e-6)
  np.testing.assert_allclose(stats.advantage, [0, 1, 0], atol=1e-6)
  np.testing.assert_allclose(stats.advantage_size, [2.4, 1, 0], rtol=1e-6)
  np.testing.assert_allclose(stats.weight, [2.5, 2.5, 0], rtol=1e-6)


def test_weights_count_trajectories_not_tokens():
  # Two nodes at depth 0, two at depth 1 with 50 tokens each: all weights 1.
  trees = [TreeRecord([node(-1, 0, 1.0, 1), node(0, 1, 1.0, 50)], 0, True) for _ in range(2)]
  result = credit.credit(tree_buffer.build(trees, num_nodes=4), credit.CreditOptions(max_depth=1))
  np.testing.assert_allclose(result.weight, np.ones(4), rtol=1e-6)


def test_sparse_gives_every_node_its_roots_success_before_the_bonus():
  # lambda = 0.5: the root fails, its child's own success 1 is not read: R = 0 everywhere in tree 0.
  # Tree 1: root 1 + 0.5 * 1, child 1 although it failed itself.
  trees = [
    TreeRecord([node(-1, 0, 0.0), node(0, 1, 1.0)], 0, True),
    TreeRecord([node(-1, 0, 1.0), node(0, 1, 0.0)], 0, True),
  ]
  options = credit.CreditOptions(max_depth=1, delegation_bonus=0.5, sparse=True)
  result = credit.credit(tree_buffer.build(trees, num_nodes=4), options)
  np.testing.assert_allclose(result.reward, [0, 0, 1.5, 1], rtol=1e-6)
  np.testing.assert_allclose(result.advantage, [-1.5, -1.5, 1.5, 1], rtol=1e-6)


def test_group_mean_keeps_the_own_tree_in():
  # Rewards 1, 0: mean 0.5 for both, advantages +-0.5 where leave-one-out has +-1. The lone tree still has 0.
  trees = [TreeRecord([node(-1, 0, s)], g, True) for s, g in ((1.0, 0), (0.0, 0), (1.0, 1))]
  options = credit.CreditOptions(max_depth=0, baseline="group_mean", depth_weighting=False)
  result = credit.credit(tree_buffer.build(trees, num_nodes=4), options)
  np.testing.assert_allclose(result.advantage, [0.5, -0.5, 0, 0], rtol=1e-6)
  np.testing.assert_array_equal(result.weight, [1, 1, 1, 0])


def test_a_group_whose_roots_all_fail_keeps_its_childrens_signal():
  trees = [
    TreeRecord([node(-1, 0, 0.0), node(0, 1, 1.0)], 0, True),
    TreeRecord([node(-1, 0, 0.0)], 0, True),
    TreeRecord([node(-1, 0, 1.0)], 1, True),
    TreeRecord([node(-1, 0, 1.0)], 1, True),
  ]
  result = credit.credit(tree_buffer.build(trees, num_nodes=5), credit.CreditOptions(max_depth=1))
  np.testing.assert_array_equal(result.advantage, [0, 1, 0, 0, 0])
  assert result.stats.flat_trees == 2  # those of group 1 only


@pytest.mark.parametrize(
  "options, message",
  [
    ({"baseline": "mean"}, "leave_one_out"),
    ({"delegation_bonus": -0.1}, "negative"),
    ({"leaf_scale": True}, "delegation_bonus=0"),
    ({"bonus": "mean", "delegation_bonus": 0.4}, "'rate' or 'count'"),
    ({"bonus": "count"}, "delegation_bonus=0"),
    ({"depth_weight_cap": 0.5}, "set >= 1"),
    ({"depth_weight_cap": 4.0, "depth_weighting": False}, "depth_weighting"),
  ],
)
def test_options_that_do_nothing_or_contradict_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    credit.CreditOptions(max_depth=2, **options)


MAX_TREES, MAX_NODES, MAX_DEPTH = 6, 40, 4


@st.composite
def tree_records(draw):
  nodes = []
  for i in range(draw(st.integers(1, 6))):
    shallow = [n for n in range(i) if nodes[n].depth < MAX_DEPTH]
    parent = draw(st.sampled_from(shallow)) if shallow else -1
    depth = 0 if parent < 0 else nodes[parent].depth + 1
    success = draw(st.sampled_from([0.0, 0.25, 1.0]))
    nodes.append(node(parent, depth, success, draw(st.integers(0, 3))))
  return TreeRecord(nodes, draw(st.integers(0, 2)), draw(st.sampled_from([True, True, True, False])))


forests = st.lists(tree_records(), min_size=1, max_size=MAX_TREES)

OPTIONS = [
  {},
  {"delegation_bonus": 0.4},
  {"delegation_bonus": 0.4, "baseline": "group_mean", "leaf_scale": True},
  {"delegation_bonus": 0.4, "sparse": True, "depth_weight_cap": 1.5},
  {"delegation_bonus": 0.4, "bonus": "count"},
  {"depth_weight_cap": 1.0},
  {"depth_weighting": False},
]


def run(forest, options):
  buffer = tree_buffer.build(forest, num_trees=MAX_TREES + 1, num_nodes=MAX_NODES, num_tokens=1024)
  result = credit.credit(buffer, credit.CreditOptions(max_depth=MAX_DEPTH, **options))
  return jax.tree.map(np.asarray, result)


@settings(max_examples=60, deadline=None)
@given(forests, st.sampled_from(OPTIONS))
def test_credit_equals_the_plain_python_twin(forest, options):
  result = run(forest, options)
  expected = oracle.credit(forest, MAX_DEPTH, **options)
  for got, want in zip((result.reward, result.advantage, result.weight), expected):
    np.testing.assert_allclose(got[: len(want)], want, rtol=1e-5, atol=1e-5)
    assert not np.any(got[len(want) :])  # padding contributes nothing


@settings(max_examples=40, deadline=None)
@given(forests, st.sampled_from(OPTIONS))
def test_weights_sum_to_the_number_of_trained_nodes(forest, options):
  result = run(forest, options)
  trained = sum(tree.valid and any(node.is_action) for tree in forest for node in tree.nodes)
  assert result.stats.trained_nodes == trained
  np.testing.assert_allclose(result.weight.sum(), trained, rtol=1e-5)
  if "depth_weight_cap" in options:
    assert result.weight.max(initial=0) <= options["depth_weight_cap"] * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(forests, st.sampled_from(OPTIONS), st.randoms(use_true_random=False))
def test_credit_does_not_depend_on_the_order_of_trees_and_nodes(forest, options, random):
  shuffled, origin = [], []  # origin: where each shuffled node stood in the first buffer
  first = np.cumsum([0] + [len(tree.nodes) for tree in forest])
  for t in random.sample(range(len(forest)), len(forest)):
    nodes = forest[t].nodes
    order = random.sample(range(len(nodes)), len(nodes))
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    shuffled.append(forest[t]._replace(nodes=[nodes[n]._replace(parent=place[nodes[n].parent]) for n in order]))
    origin += [first[t] + n for n in order]
  a, b = run(forest, options), run(shuffled, options)
  for name in ("reward", "advantage", "weight"):
    np.testing.assert_allclose(getattr(a, name)[origin], getattr(b, name)[: len(origin)], rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(forests, st.sampled_from(OPTIONS))
def test_invalid_trees_change_nothing_for_the_others(forest, options):
  without = [tree for tree in forest if tree.valid]
  kept = np.concatenate([np.full(len(tree.nodes), tree.valid) for tree in forest])
  a, b = run(forest, options), run(without, options)
  for name in ("reward", "advantage", "weight"):
    values = getattr(a, name)[: len(kept)]
    np.testing.assert_allclose(values[kept], getattr(b, name)[: kept.sum()], rtol=1e-5, atol=1e-6)
    assert not np.any(values[~kept])


@settings(max_examples=40, deadline=None)
@given(forests, st.sampled_from(OPTIONS))
def test_padding_changes_nothing(forest, options):
  count = sum(len(tree.nodes) for tree in forest)
  wide = tree_buffer.build(forest, num_trees=12, num_nodes=128)
  b = credit.credit(wide, credit.CreditOptions(max_depth=MAX_DEPTH, **options))
  a = run(forest, options)
  for name in ("reward", "advantage", "weight"):
    np.testing.assert_allclose(getattr(a, name)[:count], getattr(b, name)[:count], rtol=1e-6, atol=1e-6)
