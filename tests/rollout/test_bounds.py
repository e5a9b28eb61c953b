"""Random policies under random caps, of both budgets: nothing is exceeded and nothing is left behind.

Agents draw their cells from a grammar. Some trees are given up in the middle. `test_books` and `test_budget` look
closer at one budget each.
"""

import collections
import dataclasses
import gc
import itertools
import random

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rao_jax.rollout.budget import BUDGETS, Caps
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import Outcome, Tree
from rao_jax.rollout.guard import GuardedInterpreter
from rao_jax.rollout.interpreter import Limits
from tests.rollout.logged import TASK, Logged, LoggedEpisode
from tests.rollout.sandboxed import family
from tests.rollout.test_books import assert_within_caps
from tests.rollout.test_generate import LADDERS, PROTOCOL, TEMPERATURE, TINY, Checksum, frontier, place, plant
from tests.rollout.test_hostile import Shown
from tests.tiny import random_params

LIMITS = Limits(host_calls=24, output_chars=200, flood_chars=2000)

# --- the grammar ------------------------------------------------------------------------------------------------------

GOALS = "'a'", "'a'", "'a'", "'a'", "'no'", "7", "'b' * 300"
STEPS = "", ", num_steps=1", ", num_steps=1", ", num_steps=2", ", num_steps=5", ", num_steps=0", ", num_steps='x'"
PLAIN = (
  "note(1)", "print('y' * 30)", "show('z' * 300)", "x = 2", "1 / 0", "'long' * 50", "for i in range(40): note(i)",
  "raise ValueError('<end><out>')", "finish(.5)", "finish('ok')",
)  # fmt: skip
LAUNCHING = (
  "await {}",
  "await {}",
  "x = {}\nprint(await x)",
  "await asyncio.gather({}, {})",
  "await asyncio.gather({}, {}, {}, {})",
  "await asyncio.gather(*[{} for i in range(6)])",
  "async def f(i):\n  return i and await {}\nawait asyncio.gather(f(0), f(1), f(2))",
  "async def f(i):\n  await {}\n  1 / i\nawait asyncio.gather(f(1), f(0))",
  "async def f():\n  await {}\n  finish(1)\nawait asyncio.gather(f(), {})",
  "try: await {}\nfinally: note(1)",
  "for i in range(40): await {}",
  "{}",
)
WHOLE = (
  "", "# nothing", "(", "\x00\u202e", "note(1) # " + "long " * 40, "finish('failed')", "finish('ok')",
  "x = [1]\nwhile True: x += x", "while True: print('x' * 99)", "while True:\n  try: note(1)\n  except Exception: pass",
)  # fmt: skip
UNENDED = "y" * 2000  # of an agent that writes on and on


def random_cell(rng, budget):
  if rng.random() < 0.1:
    return rng.choice((*WHOLE, UNENDED))
  launch = lambda: f"launch_subagent({rng.choice(GOALS)}{rng.choice(STEPS) if budget == 'shared' else ''})"
  lines = [rng.choice(PLAIN if rng.random() < 0.3 else LAUNCHING) for _ in range(rng.choice([1, 1, 2, 3]))]
  return "\n".join(line.format(*(launch() for _ in range(4))) for line in lines)


def random_caps(rng):
  """Tight ones among wide ones, so that an agent lives long enough to meet them."""
  return Caps(
    max_depth=rng.choice([0, 1, 2, 3, 3]),
    max_nodes=rng.choice([1, 2, 5, 10, 20]),
    budget=rng.choice(BUDGETS),
    max_turns=rng.choice([1, 3, 8, 16, 30]),
    loop_repeats=rng.choice([0, 2, 3]),
    launches_per_cell=rng.choice([1, 2, 4]),
    turn_tokens=rng.choice([40, 400, 400, 400, 400]),
    output_tokens=rng.choice([4, 40, 80]),
    window=rng.choice([60, 300, 1200, 4000, 4000]),
    min_turn=rng.choice([1, 8, 20]),
    result_tokens=rng.choice([1, 30, 150]),
  )


def random_turn(seed, tree, node, protocol):
  """Tokens of an agent's next turn: they follow from the seed, its path and the number of the turn."""
  cell = random_cell(random.Random(f"{seed} {node.path} {len(node.turns)}"), tree.caps.budget)
  return (protocol.tokenizer.encode(cell) if cell is UNENDED else protocol.script(cell))[: tree.room(node)]


# --- trees in the real sandbox ----------------------------------------------------------------------------------------


class Watched:
  """Hands cells on to the sandbox, and keeps account of calls, prints and states."""

  def __init__(self, sandbox):
    self._sandbox = sandbox
    self.held = {}  # id -> state that somebody has to use or discard, calls and prints of its cell

  def run(self, state, code, names, call):
    self.discard(state)
    return self._watch(collections.Counter(), lambda call: self._sandbox.run(state, code, names, call), call)

  def resume(self, state, answers, names, call):
    _, books = self.held.pop(id(state))
    return self._watch(books, lambda call: self._sandbox.resume(state, answers, names, call), call)

  def discard(self, state):
    if state is not None:
      del self.held[id(state)]

  def _watch(self, books, go_on, call):
    def counted(*arguments):
      books["calls"] += 1
      return call(*arguments)

    result = go_on(counted)
    books["printed"] += len(result.stdout)
    assert books["calls"] + result.launch_calls <= LIMITS.host_calls
    assert books["printed"] <= LIMITS.output_chars
    if result.state is not None:
      self.held[id(result.state)] = result.state, books
    return result


@pytest.fixture(scope="module")
def sandbox():
  others = family().keys()
  with GuardedInterpreter(LIMITS) as sandbox:
    yield sandbox
    assert len(family().keys() - others) <= 2


def assert_bounded(sandbox, protocol, seed):
  """Works a tree, or gives it up in the middle."""
  rng = random.Random(seed)
  caps, last = random_caps(rng), rng.choice([1, 2, 5, *[1000] * 12])
  watched, granted = Watched(sandbox), collections.Counter()
  tree = Tree(Shown(), TASK, caps, protocol, watched)
  for _ in range(last):
    for node in tree.acting():
      tokens = random_turn(seed, tree, node, protocol)
      tree.sample(node, tokens, [-1.0] * len(tokens))
    known = len(tree.nodes)
    tree.advance()
    granted.update((node.parent.path, len(node.parent.turns)) for node in tree.nodes[known:])
    if tree.done:
      break
  if not tree.done:
    tree.close()
    assert not tree.acting() and not watched.held
    return tree
  assert not watched.held
  assert_within_caps(tree, protocol, granted)
  accounts, own = tree.ledger.accounts, {node.path: len(node.turns) for node in tree.nodes}
  assert accounts.keys() == own.keys()
  for path, account in accounts.items():
    below = sum(turns for p, turns in own.items() if p[: len(path)] == path)
    assert account.used == (below if caps.budget == "shared" else own[path]) <= account.budget
    assert account.reserved == 0
  if caps.budget == "shared":
    assert accounts[()].used == tree.ledger.turns <= caps.max_turns
  return tree


def assert_all_bounded(sandbox, protocol, examples):
  seen = collections.Counter()

  @given(seed=st.integers(0, 10**9))
  @settings(max_examples=examples)
  def check(seed):
    tree = assert_bounded(sandbox, protocol, seed)
    seen.update(node.outcome for node in tree.nodes)
    seen.update(tree.ledger.refused.keys())
    seen.update(["deep"] * any(node.depth > 1 for node in tree.nodes))

  check()
  return seen


def test_no_tree_exceeds_its_bounds_or_leaves_a_session(sandbox, byte_protocol):
  assert_all_bounded(sandbox, byte_protocol, 250)


@pytest.mark.full
def test_no_tree_of_very_many_exceeds_its_bounds(sandbox, byte_protocol):
  """And they run into everything that there is to run into."""
  seen = assert_all_bounded(sandbox, byte_protocol, 2000)
  assert seen.keys() > set(Outcome) - {Outcome.LOOPED, Outcome.TIMED_OUT}
  assert seen.keys() > {"goal", "depth", "launches", "nodes", "room", "prompt", "not_awaited", "turns", "num_steps"}
  assert seen["deep"] > 20


# --- trees of a tiny policy, decoded on the device --------------------------------------------------------------------


class Paying(Checksum):
  """Its launches say how many turns they hand down, as a shared budget wants it."""

  def run(self, state, code, names, call):
    result = super().run(state, code, names, call)
    launches = [dataclasses.replace(n, kwargs={"num_steps": 1 + len(code) % 3}) for n in result.launches]
    return dataclasses.replace(result, launches=tuple(launches))


class Texts(Logged):
  def start(self, task):
    episode = LoggedEpisode()
    episode.root_goal = lambda: task.data["text"]
    return episode


def grove(seed):
  """Trees as `plant` makes them, under caps of their own."""
  rng, trees = random.Random(seed), []
  for old in plant(seed, count=10):
    caps = Caps(
      max_depth=rng.randint(1, 3),
      max_nodes=rng.randint(2, 7),
      budget=rng.choice(BUDGETS),
      max_turns=rng.randint(1, 6),
      launches_per_cell=rng.randint(1, 2),
      turn_tokens=rng.randint(8, 40),
      output_tokens=rng.randint(4, 24),
      window=rng.randint(62, 72),
      min_turn=rng.randint(1, 4),
      result_tokens=rng.randint(1, 8),
    )
    sandbox = (Paying if caps.budget == "shared" else Checksum)()
    trees.append(Tree(Texts(), old.task, caps, PROTOCOL, sandbox, np.array(old.root.key)))
  return trees


def on_device():
  gc.collect()
  return sorted((x.shape, str(x.dtype)) for x in jax.live_arrays())


@pytest.mark.parametrize("name", ["host", pytest.param("scarce", marks=pytest.mark.full)])
def test_after_a_rollout_no_slot_and_no_array_on_the_device_is_held(name):
  """To its end, or broken off by an exception after some ticks."""
  f, params = frontier(name), place(name, random_params(TINY))
  collect(params, grove(0), f, TEMPERATURE)
  before, sizes = on_device(), collections.Counter()

  @given(seed=st.integers(1, 10**6))
  @settings(max_examples=12)
  def check(seed):
    trees, last = grove(seed), random.Random(seed).choice([2, 8, None, None])
    ticks = iter(range(last)) if last else itertools.repeat(0)

    def on_tick(running):
      if next(ticks, None) is None:
        raise InterruptedError

    try:
      collect(params, trees, f, TEMPERATURE, on_tick)
    except InterruptedError:
      sizes["broken off"] += 1
    else:
      for tree in trees:
        assert_within_caps(tree, PROTOCOL, collections.Counter())
      sizes["nodes"] += sum(len(tree.nodes) for tree in trees)
    assert all(tree.done and not tree.acting() for tree in trees)
    trees = tree = None  # the keys of nodes are views of arrays on the device
    assert f.free_slots == LADDERS[name][5] and f.host_caches.bytes == len(f.host_caches) == 0
    assert on_device() == before

  check()
  assert sizes["broken off"] and sizes["nodes"] > 20
