"""Works a batch of trees to their ends: the frontier samples, the trees run their cells, until none is open."""

import logging
from collections.abc import Callable, Sequence

from rao_jax.policy.transformer import Params
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.frontier import Frontier

log = logging.getLogger(__name__)


def collect(
  params: Params, trees: Sequence[Tree], frontier: Frontier, temperature: float, on_tick: Callable[[int], None] = len
) -> None:
  """Runs every tree to its end, in place.

  A tree whose environment or sandbox raises is a fault of the harness: it is closed with `tree.fault` set and counts
  nowhere. If all trees fault the last error is raised.

  Args:
    params: policy parameters under the rollout's sharding.
    trees: fresh trees.
    frontier: decodes them.
    temperature: 0 is greedy.
    on_tick: called with the open trees after each slice of tokens.
  """
  running = list(trees)
  error = None
  while running:
    frontier.tick(params, [(tree, node) for tree in running for node in tree.acting()], temperature)
    for tree in running:
      try:
        tree.advance()
      except Exception as e:
        error = e
        log.exception("tree of task %s dropped", tree.task.id)
        tree.fault = repr(e)
        tree.close()
    running = [tree for tree in running if not tree.done]
    on_tick(running)
  if error is not None and all(tree.fault for tree in trees):
    raise RuntimeError("every tree of the batch failed outside the policy's doing") from error
