"""Trees worked by a script in place of the policy: its cells really run, its tokens are kept like sampled ones."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from rao_jax.envs.base import Demonstrator, Environment, Task
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.interpreter import Interpreter
from rao_jax.rollout.protocol import TurnProtocol

GIVE_UP = 'finish("failed")'


def play(tree: Tree, demonstrator: Demonstrator, protocol: TurnProtocol, seed: Any) -> Tree:
  """Works a tree to its end with a script at every node; arguments as of `turns`."""
  for _ in turns(tree, demonstrator, protocol, seed):
    pass
  return tree


def turns(tree: Tree, demonstrator: Demonstrator, protocol: TurnProtocol, seed: Any) -> Iterator[None]:
  """Works a tree with a script at every node, a turn of all who act at a time.

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
    yield


def demonstrate(
  tasks: Sequence[Task],
  environment: Environment,
  demonstrator: Demonstrator,
  caps: Caps,
  protocol: TurnProtocol,
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
