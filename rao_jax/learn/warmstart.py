"""The warm start: demonstrations by a scripted agent whose cells really run, then behaviour cloning on their tokens."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rao_jax.envs.base import Demonstrator, Environment, Task
from rao_jax.learn.packing import microbatches
from rao_jax.learn.state import TrainState
from rao_jax.learn.step import Learner
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.interpreter import Interpreter
from rao_jax.rollout.protocol import CompactProtocol
from rao_jax.tree.buffer import TreeBuffer

GIVE_UP = 'finish("failed")'


def play(tree: Tree, demonstrator: Demonstrator, protocol: CompactProtocol, seed: Any) -> Tree:
  """Works a tree to its end with a script at every node.

  Args:
    tree: fresh.
    demonstrator: makes the script of a node.
    protocol: renders cells to tokens.
    seed: hashable; with the node's path it seeds the script's random source.
  """
  scripts = {}
  while not tree.done:
    for node in tree.acting():
      try:
        if node.path in scripts:
          code = scripts[node.path].send(node.turns[-1].output)
        else:
          scripts[node.path] = demonstrator(node.goal, random.Random(repr((seed, node.path))))
          code = next(scripts[node.path])
      except StopIteration:  # the script thought it was done, its last cell did not finish
        code = GIVE_UP
      tokens = protocol.script(code)[: tree.room(node)]
      tree.sample(node, tokens, [0.0] * len(tokens))
    tree.advance()
  return tree


def demonstrate(
  tasks: Sequence[Task],
  environment: Environment,
  demonstrator: Demonstrator,
  caps: Caps,
  protocol: CompactProtocol,
  interpreter: Interpreter,
  seed: int,
) -> Iterator[Tree]:
  """One finished tree for every task, failed ones included."""
  for i, task in enumerate(tasks):
    yield play(Tree(environment, task, caps, protocol, interpreter), demonstrator, protocol, (seed, i))


def texts(trees: Sequence[Tree]) -> list[str]:
  """What a tokenizer for such trees will meet: prompts, cells, outputs."""
  out = []
  for tree in trees:
    for node in tree.nodes:
      out.append(node.goal_text)
      out += [text for turn in node.turns for text in (turn.cell, turn.output)]
  return out


def clone(
  state: TrainState, learner: Learner, buffer: TreeBuffer, tokens: int, tokens_per_update: int, seed: int
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
    parts = microbatches(buffer, nodes, ones, ones, learner.row_lengths, learner.tokens_per_microbatch, rng)
    rng.shuffle(parts)
    for at in range(0, len(parts), per_update):
      some = parts[at : at + per_update]
      scale = 1.0 / max(sum(int(part.is_action.sum()) for part in some), 1)
      state, metrics = learner.update(state, some, (scale, scale))
      read += sum(int(np.count_nonzero(part.segment)) for part in some)
      yield state, read, metrics
      if read >= tokens:
        return
    epoch += 1
