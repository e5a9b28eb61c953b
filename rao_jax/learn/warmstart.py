"""The warm start: behaviour cloning on the tokens of demonstrations (`rollout/scripted.py` makes them)."""

from collections.abc import Iterator

import numpy as np

from rao_jax.learn.state import TrainState
from rao_jax.learn.step import Learner
from rao_jax.tree.buffer import TreeBuffer


def clone(
  state: TrainState, learner: Learner, buffer: TreeBuffer, tokens: int, tokens_per_update: int, seed: int, done: int = 0
) -> Iterator[tuple[TrainState, int, dict[str, float]]]:
  """Behaviour cloning: cross entropy of the demonstrator's own tokens, epoch after epoch in a fresh order.

  The learner's loss must be `reinforce`, which with advantage and weight 1 is the cross entropy.

  Args:
    state: donated.
    learner: with the token normaliser in mind: the loss is a mean over the update's action tokens.
    buffer: demonstrations, numpy-backed.
    tokens: to read in all, prompts and outputs included; it stops at the first update that reaches them.
    tokens_per_update: rounded to whole microbatches, one at least.
    seed: of the order.
    done: tokens that `state` has read by an earlier call with the same arguments, which this one goes on with.
  Yields:
    (state, tokens read so far, metrics) after every update.
  """
  ones = np.ones(len(buffer.length), np.float32)
  nodes = np.flatnonzero(buffer.sampled > 0)
  if not len(nodes):
    raise ValueError("the warm start has no demonstrations: set config.warm_start.tasks")
  per_update = max(1, round(tokens_per_update / learner.tokens_per_microbatch))
  read, epoch = 0, 0
  while read < tokens:
    # Packed over the whole epoch, then shuffled by rows: rows are nearly full however small an update is.
    rng = np.random.default_rng((seed, epoch))
    parts = learner.microbatches(buffer, nodes, ones, ones, rng)
    rng.shuffle(parts)
    for at in range(0, len(parts), per_update):
      some = parts[at : at + per_update]
      read += sum(int(np.count_nonzero(part.segment)) for part in some)
      if read <= done:
        continue
      scale = 1.0 / max(sum(int(part.is_action.sum()) for part in some), 1)
      state, metrics = learner.update(state, some, (scale, scale))
      yield state, read, metrics
      if read >= tokens:
        return
    epoch += 1
