"""Works a batch of trees to their ends: the frontier samples, the trees run their cells, until none is open."""

import logging
from collections.abc import Callable, Sequence

from rao_jax.judge.base import Verdicts
from rao_jax.policy.transformer import Params
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.frontier import Frontier

log = logging.getLogger(__name__)


def collect(
  params: Params, trees: Sequence[Tree], frontier: Frontier, temperature: float,
  on_tick: Callable[[Sequence[Tree]], None] = len, verdicts: Verdicts | None = None,
) -> dict[str, float]:  # fmt: skip
  """Runs every tree to its end, in place.

  A tree whose environment or sandbox raises is a fault of the harness: it is closed with `tree.fault` set and counts
  nowhere. If all trees fault an error is raised.

  Args:
    params: policy parameters under the rollout's sharding.
    trees: fresh trees.
    frontier: decodes them.
    temperature: 0 is greedy.
    on_tick: called with the open trees after each slice of tokens.
    verdicts: asked about every tree as soon as it is done; None leaves the environment's grades.
  Returns:
    metrics of the verdicts.
  """
  running = list(trees)
  judging = []  # the trees of verdicts, worked in the same batches
  error = None
  try:
    while running or judging:
      frontier.tick(params, [(tree, node) for tree in running + judging for node in tree.acting()], temperature)
      for tree in running + judging:
        try:
          tree.advance()
        except Exception as e:
          error = e
          log.exception("tree of task %s dropped", tree.task.id)
          tree.fault = repr(e)
          tree.close()
      if verdicts is not None:
        judging = [tree for tree in judging if not tree.done]
        judging += [new for tree in running if tree.done and not tree.fault for new in verdicts.submit(tree)]
        verdicts.check()
      running = [tree for tree in running if not tree.done]
      on_tick(running)
  finally:
    for tree in running + judging:  # none, unless something was raised: their cache slots go back
      tree.close()
  metrics = {} if verdicts is None else verdicts.settle()
  if trees and all(tree.fault for tree in trees):
    raise RuntimeError(
      f"every tree of the batch failed outside the policy's doing, the last by {trees[-1].fault}"
    ) from error
  return metrics
