"""Forced replay: recorded tokens lead to the same cells, outputs and rewards, however they are fed."""

import random

import pytest

from rao_jax.envs.textcraft.script import Slips, recursive
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree, record
from rao_jax.rollout.scripted import play

CAPS = Caps(max_depth=6, max_nodes=32, turn_tokens=64, output_tokens=64, window=384, result_tokens=8)
SLIPS = Slips(delegate=0.6, quantity=0.1, factor=0.1, ingredient=0.1, early=0.05, base=0.1, unknown=0.2, one_by_one=0.3)


def turns_of(node):
  """The tokens that a node sampled, turn by turn."""
  turns, before = [], False
  for token, sampled in zip(node.tokens, node.is_action):
    if sampled and not before:
      turns.append([])
    if sampled:
      turns[-1].append(token)
    before = sampled
  return turns


def replay(trees, rng):
  """Feeds recorded tokens to all trees at once, a few at a time, to nodes in random order."""
  recorded = [{node.path: turns_of(node) for node in tree.nodes} for tree, _ in trees]
  running = [fresh for _, fresh in trees]
  while any(not tree.done for tree in running):
    work = [(i, node) for i, tree in enumerate(running) for node in tree.acting()]
    i, node = rng.choice(work)
    turn = recorded[i][node.path][len(node.turns)]
    at = len(node.tokens) - node.turn_start
    some = turn[at : at + rng.randint(1, 7)]
    running[i].sample(node, some, [0.0] * len(some))
    running[i].advance()


@pytest.mark.parametrize("seed", range(3))
def test_recorded_tokens_reproduce_trees_under_any_schedule(
  seed, interpreter, textcraft, textcraft_tasks, textcraft_protocol
):
  make = lambda task: Tree(textcraft, task, CAPS, textcraft_protocol, interpreter)
  script = lambda goal, rng: recursive(goal, rng, SLIPS)
  first = [play(make(task), script, textcraft_protocol, (seed, i)) for i, task in enumerate(textcraft_tasks)]
  again = [make(task) for task in textcraft_tasks]
  replay(list(zip(first, again)), random.Random(seed))
  for old, new in zip(first, again):
    assert record(old) == record(new)
    assert [n.path for n in old.nodes] == [n.path for n in new.nodes]
    assert [n.turns for n in old.nodes] == [n.turns for n in new.nodes]
    assert [n.outcome for n in old.nodes] == [n.outcome for n in new.nodes]
    assert old.ledger.refused == new.ledger.refused and old.ledger.turns == new.ledger.turns
  nodes = [node for tree in first for node in tree.nodes]
  assert len(nodes) > len(first) and any(node.success == 0 for node in nodes)
