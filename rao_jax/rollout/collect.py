"""Works a batch of trees to their ends: the frontier samples, the trees run their cells, until none is open.

Of several processes each works the trees of its own devices, and all have the whole batch at the end.
"""

import collections
import json
import logging
from collections.abc import Callable, Sequence

import jax
import numpy as np

from rao_jax import interrupt
from rao_jax.judge.base import Verdicts, verdict_metrics
from rao_jax.policy.transformer import Params
from rao_jax.processes import agree, exchange, together
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.frontier import Frontier, Plan
from rao_jax.rollout.transfer import from_bytes, to_bytes

log = logging.getLogger(__name__)


def collect(
  params: Params, trees: Sequence[Tree], frontier: Frontier, temperature: float,
  on_tick: Callable[[Sequence[Tree]], None] = len, verdicts: Verdicts | None = None,
) -> dict[str, float]:  # fmt: skip
  """Runs every tree to its end, in place.

  A tree whose environment or sandbox raises is a fault of the harness, and so is one for which the policy has no finite
  logits: it is closed with `tree.fault` set and counts nowhere. If all trees fault an error is raised.

  Args:
    params: policy parameters under the rollout's sharding.
    trees: fresh trees, the same on every process.
    frontier: decodes them; its counts become those of all processes.
    temperature: 0 is greedy.
    on_tick: called with the open trees of this process before each slice of tokens.
    verdicts: asked about every tree as soon as it is done; None leaves the environment's grades.
  Returns:
    metrics of the verdicts.
  """
  for number, tree in enumerate(trees):
    tree.row_shard = number % frontier.shards
  before = frontier.counts.copy()
  owned = [[tree for tree in trees if frontier.owner(tree) == process] for process in range(jax.process_count())]
  arranged = frontier.begin(params)
  work = Work(owned[jax.process_index()], frontier, on_tick, verdicts)
  try:
    while True:
      plan = error = None
      try:
        plan = work.plan()
      except Exception as e:
        error = e
      is_open, interrupted, *rows = agree([bool(work.open), interrupt.asked(), *frontier.rows(plan)], error)
      if not is_open:
        break
      if interrupted:
        raise interrupt.Interrupted("asked to end by SIGTERM")
      work.sampled = frontier.run(arranged, plan, rows, temperature)
  finally:
    for tree in work.open:  # none, unless something was raised: their cache slots go back
      tree.close()
    frontier.release_ended()
  with together():
    judged = None if verdicts is None else verdicts.settle()
  counts, judged = _share(owned, frontier.counts - before, judged)
  frontier.counts = before + counts
  if trees and all(tree.fault for tree in trees):
    error = RuntimeError(f"every tree of the batch failed outside the policy's doing, the last by {trees[-1].fault}")
    error.__cause__ = work.last_fault
    agree([], error)
  return {} if verdicts is None else verdict_metrics(judged)


class Work:
  """The open trees of this process, and those that verdicts on them take."""

  def __init__(
    self, trees: list[Tree], frontier: Frontier, on_tick: Callable[[Sequence[Tree]], None], verdicts: Verdicts | None
  ):
    self._running, self._frontier, self._on_tick, self._verdicts = trees, frontier, on_tick, verdicts
    self._judging: list[Tree] = []
    self.sampled: list[tuple] = []  # what the last tick brought: (tree, node, tokens, log-probabilities)
    self.last_fault: Exception | None = None

  @property
  def open(self) -> list[Tree]:
    return self._running + self._judging

  def plan(self) -> Plan:
    """Takes in what was sampled, runs the cells of all turns that have ended; what is to be sampled next."""
    for tree, node, tokens, logps in self.sampled:
      if tree.fault is None and not np.isfinite(logps).all():
        self._drop(tree, FloatingPointError("the policy's logits are not finite"))
      if tree.fault is None:
        tree.sample(node, tokens, logps)
    for tree in self.open:
      if tree.fault is not None:
        continue
      try:
        tree.advance()
      except Exception as e:
        self._drop(tree, e)
    self._judging = [tree for tree in self._judging if not tree.done]
    if self._verdicts is not None:
      for tree in self._running:
        if tree.done and not tree.fault:
          for new in self._verdicts.submit(tree):
            new.row_shard = tree.row_shard
            self._judging.append(new)
      self._verdicts.check()
    self._running = [tree for tree in self._running if not tree.done]
    self._on_tick(self._running)
    return self._frontier.plan([(tree, node) for tree in self.open for node in tree.acting()])

  def _drop(self, tree: Tree, error: Exception) -> None:
    self.last_fault = error
    log.error("tree of task %s dropped", tree.task.id, exc_info=error)
    tree.fault = repr(error)
    tree.close()


def _share(
  owned: Sequence[Sequence[Tree]], counts: collections.Counter, judged: dict | None
) -> tuple[collections.Counter, list[dict | None]]:
  """Gives every process the trees, counts and verdicts of all; owned: the trees of each process."""
  if jax.process_count() == 1:
    return counts, [judged]
  with together():
    known = json.dumps([counts, judged]).encode()
    data = len(known).to_bytes(8, "little") + known + to_bytes(owned[jax.process_index()])
  total, verdicts = collections.Counter(), []
  for process, message in enumerate(exchange(data)):
    end = 8 + int.from_bytes(message[:8], "little")
    counts, judged = json.loads(message[8:end])
    total.update(counts)
    verdicts.append(judged)
    if process != jax.process_index():
      from_bytes(message[end:], owned[process])
  return total, verdicts
