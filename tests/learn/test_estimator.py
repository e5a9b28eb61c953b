"""The estimator is what design and docs/method.md say: exact expectations over every tree, in float64."""

import functools

import jax
import numpy as np
import pytest

from rao_jax.tree.credit import CreditOptions
from tests.learn.enumerable import MAX_DEPTH, MOST_NODES, Task, distance

PLAIN = functools.partial(CreditOptions, MAX_DEPTH, depth_weighting=False)


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="module")
def task():
  return Task()


@pytest.fixture(scope="module")
def small():
  """Six trees, most of depth 2: batches of six of them can still be written down."""
  return Task(kinds=3, styles=1, deeper=1.5)


def assert_same(a, b, atol=1e-10):
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=atol, rtol=0), a, b)


def test_the_trees_are_all_there_are(task):
  assert len(task.exists) == 20 and task.exists.sum(1).max() == MOST_NODES
  assert float(task.probability(task.theta).sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("bonus", [0.0, 0.4])
@pytest.mark.parametrize(("group", "kinds", "styles"), [(2, 4, 2), (4, 4, 1)])
def test_with_constant_weights_the_estimator_is_the_local_gradient(group, kinds, styles, bonus):
  task = Task(kinds, styles)
  expected = task.local_gradient(bonus)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 0.01
  assert_same(task.estimate(group, group, PLAIN(delegation_bonus=bonus), normalised=False), expected)


def test_so_it_is_with_other_weights_by_depth(task):
  weights = (0.5, 1.5, 3.0)
  ours = task.estimate(2, 2, PLAIN(delegation_bonus=0.2), normalised=False, weights=weights)
  assert_same(ours, task.local_gradient(0.2, weights))


def test_a_crashed_tree_leaves_the_estimator_as_it_is(small):
  """Of three trees the middle one is invalid: it is neither trained nor in a baseline."""
  ours = small.estimate(3, 3, PLAIN(delegation_bonus=0.2), normalised=False, crashed=(1,))
  assert_same(ours, small.local_gradient(0.2))


def test_the_mean_of_the_whole_group_as_baseline_is_biased_by_its_share(task):
  """Own tree included, the root's gradient shrinks by (G - 1) / G; below the root the bias has no such simple form."""
  mean = task.estimate(2, 2, PLAIN(baseline="group_mean"), normalised=False, weights=(1.0, 0.0, 0.0))
  half = jax.tree.map(lambda x: x / 2, task.local_gradient(0.0, (1.0, 0.0, 0.0)))
  assert_same(mean, half)


def by_hand(task, count, group_size, bonus):
  """E[sum_X w_d(batch) A(X) grad log pi(X) / N], batch by batch in plain Python."""
  scores = jax.jacobian(lambda theta: task.token_logp(theta).sum(2))(task.theta)  # leaves [M, nodes, ...]
  p, rewards = np.asarray(task.probability(task.theta)), task.rewards(bonus)
  total = {name: np.zeros(leaf.shape) for name, leaf in task.theta.items()}
  for draw in task.draws(count):
    nodes = [(g, m, n) for g, m in enumerate(draw) for n in range(MOST_NODES) if task.exists[m, n]]
    depths = [int(task.depth[m, n]) for _, m, n in nodes]
    for (g, m, n), depth in zip(nodes, depths):
      first = g - g % group_size
      others = [rewards[draw[h], 0] for h in range(first, first + group_size) if h != g]
      advantage = rewards[m, n] - sum(others) / len(others)
      weight = len(nodes) / len(set(depths)) / depths.count(depth)
      for name in total:
        total[name] += p[draw].prod() * weight * advantage / len(nodes) * scores[name][m, n]
  return total


@pytest.mark.parametrize(("count", "group", "bonus"), [(2, 2, 0.0), (2, 2, 0.4), (4, 2, 0.2)])
def test_with_the_batchs_own_weights_it_is_the_mean_of_what_each_batch_gives(small, count, group, bonus):
  ours = small.estimate(count, group, CreditOptions(MAX_DEPTH, delegation_bonus=bonus), normalised=True)
  assert_same(ours, by_hand(small, count, group, bonus))


def test_a_larger_batch_comes_closer_to_the_mean_of_each_depth(small):
  """Weights N / (depths * N_d) make it a ratio: only in the limit is it 1 / depths * sum of E[.] / E[N_d]."""
  p = np.asarray(small.probability(small.theta))
  nodes = [p @ (small.exists & (small.depth == depth)).sum(1) for depth in range(3)]
  limit = small.local_gradient(0.2, [1 / 3 / n for n in nodes])
  apart = [
    distance(small.estimate(count, 2, CreditOptions(MAX_DEPTH, delegation_bonus=0.2), normalised=True), limit)[0]
    for count in (2, 4, 6)
  ]
  assert apart[0] > 1.2 * apart[1] > 1.2**2 * apart[2] > 0


def test_it_is_not_the_full_gradient(task):
  """What docs/method.md says; the figures there are printed by `python -m tests.learn.enumerable`."""
  assert distance(task.local_gradient(0.0), task.full_gradient(0.0))[0] > 0.1
