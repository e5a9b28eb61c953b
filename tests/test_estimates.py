"""Intervals, differences, the best of several tries and Pareto points, against numbers worked by hand."""

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rao_jax.estimates import best_of, bootstrap, difference, dominated, interval, wilson


def test_wilson_interval_worked_by_hand():
  # p = 0.8, n = 10, z = 1.96: middle (0.8 + 0.19208) / 1.38416, half 1.96 sqrt(0.016 + 0.009604) / 1.38416
  low, high = wilson(8, 10)
  assert low == pytest.approx(0.4901, abs=1e-4)
  assert high == pytest.approx(0.9433, abs=1e-4)
  assert wilson(0, 0) == (0.0, 1.0)
  assert wilson(0, 200)[0] == 0.0 and 0 < wilson(0, 200)[1] < 0.02
  assert wilson(200, 200)[1] == 1.0


def test_bootstrap_of_two_values_and_of_many_normal_ones():
  # Of two tasks, each resample is (0, 0), (0, 1), (1, 0) or (1, 1), so both ends are met with probability 1/4.
  assert bootstrap([0.0, 1.0]) == (0.0, 1.0)
  draws = [statistics.NormalDist(0.5, 0.1).inv_cdf((i + 0.5) / 400) for i in range(400)]
  low, high = bootstrap(draws)
  half = 1.96 * statistics.pstdev(draws) / math.sqrt(400)
  assert low == pytest.approx(0.5 - half, abs=0.001) and high == pytest.approx(0.5 + half, abs=0.001)
  assert bootstrap(draws) == (low, high)  # the same values, the same interval


def test_interval_is_wilsons_for_one_zero_or_one_a_task_and_over_tasks_else():
  assert interval([[1.0]] * 8 + [[0.0]] * 2) == wilson(8, 10)
  assert interval([[0.5], [0.25], [0.75]]) == bootstrap([0.5, 0.25, 0.75])
  assert interval([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]) == bootstrap([0.5, 1.0, 0.0])
  # All tasks alike: resampling them says nothing.
  assert interval([[1.0, 1.0]] * 5) == wilson(5, 5) and interval([[0.5, 0.5]] * 4) == wilson(2, 4)


def test_samples_of_one_task_do_not_narrow_the_interval():
  one, many = ([[float(i < 5)] * k for i in range(10)] for k in (1, 16))
  assert interval(many)[1] - interval(many)[0] > 0.9 * (interval(one)[1] - interval(one)[0])


def test_pass_at_k_worked_by_hand():
  # 2 of 5 pass. Of the 10 pairs, 3 have none of the two: 1 - C(3, 2) / C(5, 2) = 0.7; of the 10 triples, one.
  scores = [0, 1, 0, 1, 0]
  assert [best_of(scores, k) for k in (1, 2, 3, 4, 5)] == pytest.approx([0.4, 0.7, 0.9, 1.0, 1.0])
  with pytest.raises(ValueError, match="k=6 cannot be told from 5"):
    best_of(scores, 6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_best_of_is_the_mean_over_all_subsets(values, data):
  k = data.draw(st.integers(1, len(values)))
  assert best_of(values, k) == pytest.approx(statistics.fmean(map(max, itertools.combinations(values, k))))


@given(st.integers(0, 30), st.integers(1, 30), st.integers(1, 30))
def test_best_of_zeros_and_ones_is_the_published_pass_at_k(c, n, k):
  c, k = min(c, n), min(k, n)
  assert best_of([1] * c + [0] * (n - c), k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))


def test_difference_is_paired():
  tasks = [f"t{i}" for i in range(40)]
  theirs = {task: [i / 40] for i, task in enumerate(tasks)}  # tasks differ much
  ours = {task: [score[0] + 0.1 + 0.01 * (i % 2)] for i, (task, score) in enumerate(theirs.items())}
  mean, (low, high) = difference(ours, theirs)
  assert mean == pytest.approx(0.105) and 0.1 < low < 0.105 < high < 0.11
  assert difference(ours | {"more": [0.0]}, theirs)[0] == mean  # tasks that only one has do not count
  assert difference(ours, {"other": [1.0]}) is None


def test_difference_that_is_the_same_in_all_tasks_has_the_interval_of_two_samples():
  # Newcombe's method 10 for 10/10 against 0/10: both Wilson intervals are 0.2775 wide.
  mean, (low, high) = difference({i: [1.0] for i in range(10)}, {i: [0.0] for i in range(10)})
  assert mean == high == 1.0 and low == pytest.approx(1 - math.hypot(0.27753, 0.27753), abs=1e-4)


def test_a_point_is_dominated_by_one_no_worse_in_both_and_better_in_one():
  points = [(0.5, 100), (0.5, 120), (0.4, 100), (0.9, 500), (0.2, 50), (0.5, 100)]
  assert dominated(points) == [False, True, True, False, False, False]
