"""Random agents under random caps: no cap is exceeded, the books agree, and a tree depends on itself alone."""

import itertools
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Outcome, Status, Tree, record
from rao_jax.rollout.summary import tree_metrics
from rao_jax.tree.buffer import build
from tests.rollout.logged import LAUNCH_A, TASK, Logged

CELLS = (
  "note(1)",
  "x = note(2)\nprint('y' * 50)",
  "1/0",
  "(",
  "'long' # and it goes on, and on, and on, and on, and on, and on",
  LAUNCH_A,
  LAUNCH_A,
  "await asyncio.gather(*[launch_subagent('a') for _ in range(3)])",
  "await asyncio.gather(launch_subagent('no'), launch_subagent('a'))",
  "x = await launch_subagent('a')\nawait launch_subagent(x)\nfinish(.5)",
  "await launch_subagent('b' * 140)",
  "await launch_subagent(7)",
  "launch_subagent('a')",
  "launch_subagent('a')\nfinish(1)",
  "finish('failed')",
  "finish(.5)",
  "finish('ok')",
)
CAPS = st.fixed_dictionaries(
  {
    "max_depth": st.integers(0, 3),
    "max_nodes": st.integers(1, 8),
    "max_turns": st.integers(1, 4),
    "loop_repeats": st.sampled_from([0, 2, 3]),
    "launches_per_cell": st.integers(1, 3),
    "turn_tokens": st.integers(8, 80),
    "output_tokens": st.integers(4, 40),
    "window": st.integers(50, 250),
    "min_turn": st.integers(1, 20),
    "result_tokens": st.integers(1, 30),
  }
)


def random_agent(goal, rng):
  while True:
    yield rng.choice(CELLS)


def work_watched(tree, protocol, seed):
  """Plays with random agents; (path, turn) -> launches granted to that cell."""
  agents, granted = {}, Counter()
  while not tree.done:
    for node in tree.acting():
      agents.setdefault(node.path, random_agent(None, random.Random(f"{seed} {node.path}")))
      tokens = protocol.script(next(agents[node.path]))[: tree.room(node)]
      tree.sample(node, tokens, [-1.0] * len(tokens))
    known = len(tree.nodes)
    tree.advance()
    granted.update((node.parent.path, len(node.parent.turns)) for node in tree.nodes[known:])
  return granted


def runs(flags):
  """(start, end) of the stretches of True."""
  edges = [i for i, (a, b) in enumerate(zip([False, *flags], [*flags, False])) if a != b]
  return list(zip(edges[::2], edges[1::2]))


def assert_within_caps(tree, protocol, granted):
  """A tree that is done, and the launches granted to its cells: all as its caps have it, and the books agree."""
  ids, caps, nodes, ledger = protocol.ids, tree.caps, tree.nodes, tree.ledger
  assert len(nodes) <= caps.max_nodes
  assert all(n <= caps.launches_per_cell for n in granted.values())
  for node in nodes:
    assert node.depth <= caps.max_depth
    assert 1 <= len(node.turns) <= caps.max_turns
    assert len(node.tokens) <= caps.window
    turns = runs(node.is_action)
    assert len(turns) == len(node.turns)
    for begin, end in turns:
      assert end - begin <= caps.turn_tokens
      assert caps.window - begin >= caps.min_turn
      is_whole = node.tokens[end - 1] == ids["<end>"]
      assert is_whole or (node.outcome is Outcome.TRUNCATED and end == len(node.tokens))
      assert not set(node.tokens[begin : end - is_whole]) & protocol.tokenizer.not_text
    for (_, end), (begin, _) in itertools.pairwise(turns):
      assert begin - end <= caps.output_tokens
      assert (node.tokens[end], node.tokens[begin - 1]) == (ids["<out>"], ids["<cell>"])

    assert node.status is Status.ENDED and node.outcome in Outcome
    assert node.success == 0.0 or node.outcome in (Outcome.FINISHED, Outcome.LOOPED)
    assert node.sandbox is None and not node.pending
    assert (node.parent is None) == (node.path == ()) and (node.parent is None or node.parent.path == node.path[:-1])

  begun = [path for _, path, _ in tree.episode.only("begin")]
  ended = [path for _, path, _ in tree.episode.only("end")]
  assert sorted(begun) == sorted(ended) == sorted(node.path for node in nodes)
  assert len(set(begun)) == len(nodes)

  assert ledger.nodes == len(nodes)
  assert ledger.turns == sum(len(node.turns) for node in nodes)
  assert ledger.sampled == sum(sum(node.is_action) for node in nodes)
  # Every call of launch_subagent became a child or was refused for a reason.
  assert sum(node.launch_base for node in nodes) == len(nodes) - 1 + sum(ledger.refused.values())

  buffer = build([record(tree)])
  assert int(buffer.sampled.sum()) == ledger.sampled
  assert tree_metrics([tree], "x")["x/nodes_per_tree"] == ledger.nodes


@given(caps=CAPS, seed=st.integers(0, 10**6))
@settings(max_examples=200)
def test_no_cap_is_exceeded_and_the_books_agree(byte_protocol, interpreter, caps, seed):
  tree = Tree(Logged(), TASK, Caps(**caps), byte_protocol, interpreter)
  assert_within_caps(tree, byte_protocol, work_watched(tree, byte_protocol, seed))


def test_random_agents_run_into_every_cap(byte_protocol, interpreter):
  """Else the property above would hold for want of trying."""
  outcomes, refused = Counter(), Counter()
  for seed in range(150):
    rng = random.Random(seed)
    caps = Caps(
      max_depth=rng.randint(1, 3),
      max_nodes=rng.randint(2, 12),
      max_turns=rng.randint(2, 5),
      loop_repeats=2,
      launches_per_cell=rng.randint(1, 3),
      turn_tokens=80,
      output_tokens=40,
      window=rng.randint(70, 250),
      result_tokens=30,
    )
    tree = Tree(Logged(), TASK, caps, byte_protocol, interpreter)
    work_watched(tree, byte_protocol, seed)
    outcomes.update(node.outcome for node in tree.nodes)
    refused.update(tree.ledger.refused)
  assert set(outcomes) == set(Outcome) - {Outcome.DEAD, Outcome.TIMED_OUT}
  assert set(refused) == {"goal", "depth", "launches", "nodes", "room", "prompt", "not_awaited"}


def work_in_any_order(trees, protocol, rng):
  """Trees take turns at random, nodes sample slices of random length."""
  agents, queued = {}, {}
  while running := [tree for tree in trees if not tree.done]:
    tree = rng.choice(running)
    node = rng.choice(tree.acting())
    where = (trees.index(tree), node.path)
    if not queued.get(where):
      agents.setdefault(where, random_agent(None, random.Random(repr(where))))
      queued[where] = protocol.script(next(agents[where]))[: tree.room(node)]
    n = rng.randint(1, len(queued[where]))
    slice_, queued[where] = queued[where][:n], queued[where][n:]
    tree.sample(node, slice_, [-1.0] * n)
    tree.advance()


def test_a_tree_depends_on_itself_alone(byte_protocol, interpreter):
  """The same scripts, their trees and nodes interleaved in two ways, leave the same records, books and worlds."""
  caps = Caps(window=300, turn_tokens=80, output_tokens=40, max_nodes=8, max_turns=4, max_depth=3)

  def worked(seed):
    trees = [Tree(Logged(), TASK, caps, byte_protocol, interpreter, group=i) for i in range(8)]
    work_in_any_order(trees, byte_protocol, random.Random(seed))
    return trees

  one, other = worked(1), worked(2)
  assert [record(tree) for tree in one] == [record(tree) for tree in other]
  assert [tree.episode.log for tree in one] == [tree.episode.log for tree in other]
  assert [vars(tree.ledger) for tree in one] == [vars(tree.ledger) for tree in other]
  assert max(len(tree.nodes) for tree in one) > 3  # the scripts do make trees
