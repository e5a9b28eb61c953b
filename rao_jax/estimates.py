"""What a sample of scores says of a policy: intervals, differences, success of several tries, Pareto points. Pure.

Scores are those of tasks: for each task those of its trees, in [0, 1]. Tasks are the sample, the trees of one task are
not independent of each other; so intervals are over tasks.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

Z = statistics.NormalDist().inv_cdf(0.975)  # of 95%, two-sided
RESAMPLES = 2000


def wilson(successes: float, n: int) -> tuple[float, float]:
  """95% Wilson score interval of a proportion (Wilson 1927).

  Of the mean of n scores in [0, 1] it is wide enough too: they vary no more than zeros and ones of the same mean do.
  """
  if n == 0:
    return 0.0, 1.0
  p = successes / n
  middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
  half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
  return max(middle - half, 0.0), min(middle + half, 1.0)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
  """95% percentile bootstrap interval of a mean (Efron 1979); the same values always give the same interval."""
  values = np.asarray(values)
  draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
  low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
  return float(low), float(high)


def interval(scores: Sequence[Sequence[float]]) -> tuple[float, float]:
  """95% interval of the mean score of a task: Wilson's for one score of 0 or 1 each, else a bootstrap over tasks.

  A bootstrap of tasks that all came out the same has no width, so Wilson's stands there too.
  """
  means = [statistics.fmean(some) for some in scores]
  if all(len(some) == 1 and some[0] in (0, 1) for some in scores) or len(set(means)) < 2:
    return wilson(sum(means), len(means))
  return bootstrap(means)


def difference(
  ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]
) -> tuple[float, tuple[float, float]] | None:
  """How much higher our mean score is on the tasks that both have, with a 95% interval; None if there is no such task.

  Paired: a bootstrap over tasks of the difference within a task. Where it is the same in all tasks the interval is made
  of the two Wilson intervals (Newcombe 1998, method 10), as if the two did not have their tasks in common.

  Args:
    ours, theirs: task -> its scores.
  """
  shared = [task for task in ours if task in theirs]
  if not shared:
    return None
  a, b = ([statistics.fmean(scores[task]) for task in shared] for scores in (ours, theirs))
  apart = [x - y for x, y in zip(a, b)]
  mean = statistics.fmean(apart)
  if len(set(apart)) > 1:
    return mean, bootstrap(apart)
  p, q = statistics.fmean(a), statistics.fmean(b)
  (p_low, p_high), (q_low, q_high) = wilson(sum(a), len(a)), wilson(sum(b), len(b))
  return mean, (mean - math.hypot(p - p_low, q_high - q), mean + math.hypot(p_high - p, q - q_low))


def best_of(values: Sequence[float], k: int) -> float:
  """Unbiased estimate, from n >= k draws, of the largest of k draws: the mean over all subsets of size k.

    sum_{i=k..n} C(i-1, k-1) / C(n, k) * x_(i),   x_(1) <= ... <= x_(n)

  Of values 0 and 1, c of them 1, it is pass@k, 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, Eq. 1).
  """
  n = len(values)
  if not 1 <= k <= n:
    raise ValueError(f"the best of k={k} cannot be told from {n} draws: k must be between 1 and {n}")
  return sum(math.comb(i - 1, k - 1) / math.comb(n, k) * x for i, x in enumerate(sorted(values), 1))


def dominated(points: Sequence[tuple[float, float]]) -> list[bool]:
  """For each (success, cost) whether another point is as good in both and better in one.

  Of the estimates themselves: where intervals overlap, so may the verdict change.
  """
  return [any(s >= success and c <= cost and (s > success or c < cost) for s, c in points) for success, cost in points]
