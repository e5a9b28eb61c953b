"""A judge that is called, from a few threads: verdicts are fetched while other trees are still at work. Impure."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from rao_jax.judge.base import Judge
from rao_jax.rollout.engine import Node, Tree


class Calls:
  """Starts verdicts as calls.

  Args:
    judge: called with a node.
    in_flight: calls at a time, at most.
  """

  def __init__(self, judge: Judge, in_flight: int):
    self._judge = judge
    self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="judge")

  def __call__(self, nodes: Sequence[Node]) -> tuple[list[Future], list[Tree]]:
    return [self._pool.submit(self._judge, node) for node in nodes], []

  def close(self) -> None:
    """Drops the calls not yet begun; those in flight end by themselves."""
    self._pool.shutdown(wait=False, cancel_futures=True)
