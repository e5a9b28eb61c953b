"""Hostile and broken cells in the real sandbox: each costs its own node at most, and touches nothing outside."""

import collections
import itertools
import os
import secrets
import socket
import time

import pytest

from rao_jax.envs.base import Show
from rao_jax.envs.textcraft.script import recursive
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Outcome, Tree
from rao_jax.rollout.guard import GuardedInterpreter
from rao_jax.rollout.interpreter import Limits
from rao_jax.rollout.scripted import play, turns
from tests.rollout.hostile import CELLS, FINISHED, GOES_ON, TIMED_OUT
from tests.rollout.logged import TASK, WIDE, Logged, LoggedEpisode, agents
from tests.rollout.sandboxed import family

CAPS = {**vars(WIDE), "window": 1_040_000, "turn_tokens": 1_040_000, "max_nodes": 1000}
VARIABLE = "RAO_CANARY"
LIMITS = Limits(cell_seconds=0.4)  # what ends by another limit takes 0.15 at most on a busy machine


class Shown(Logged):
  """The logged world, with a function whose answer is shown."""

  functions = ("note", "show")

  def start(self, task):
    return ShownEpisode()


class ShownEpisode(LoggedEpisode):
  def call(self, path, name, args, kwargs):
    answer = super().call(path, name, args, kwargs)
    return Show(answer) if name == "show" else answer


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
  """Things that no cell may reach, set up before the sandbox starts; checks that none was."""
  folder, secret, listener = tmp_path_factory.mktemp("outside"), secrets.token_hex(16), socket.socket()
  (folder / "file").write_text(secret)
  listener.bind(("127.0.0.1", 0))
  listener.listen()
  listener.setblocking(False)
  os.environ[VARIABLE] = secret
  seen = lambda: [(path.name, path.read_text(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
  before = seen()

  def check(texts):
    assert seen() == before
    with pytest.raises(BlockingIOError):
      listener.accept()
    assert os.environ[VARIABLE] == secret and secret not in texts

  names = {"FILE": folder / "file", "FOLDER": folder, "VARIABLE": VARIABLE, "PORT": listener.getsockname()[1]}
  check.names = {**names, "ADDRESS": "127.0.0.1"}
  yield check
  del os.environ[VARIABLE]
  listener.close()


@pytest.fixture(scope="module")
def guarded(outside):
  """A sandbox of this file, and a check that it has two processes at most: its own, and its worker."""
  before = family().keys()
  with GuardedInterpreter(LIMITS, grace=0.5) as sandbox:
    yield sandbox, lambda: {pid: name for pid, name in family().items() if pid not in before}


def end_of(code, sandbox, protocol, side=()):
  """A tree whose root asks an agent with that cell, and one that works beside it, which waits while the cell runs."""
  scripts = collections.defaultdict(lambda: ["finish('A')"])
  scripts |= {
    "root": ["r = await asyncio.gather(launch_subagent('hostile'), launch_subagent('other'))", "finish(r)"],
    "hostile": [code, "finish('went on')"],
    "other": ["x = 6", "y = await launch_subagent('a')", "finish([x * 7, y])"],
  }
  tree = Tree(Shown(), TASK, Caps(**CAPS), protocol, sandbox)
  for _ in itertools.zip_longest(turns(tree, agents(scripts), protocol, 0), *side):
    pass
  return tree


@pytest.mark.parametrize("name", CELLS)
def test_a_hostile_cell_costs_its_own_node_at_most(
  name, outside, guarded, byte_protocol, textcraft, textcraft_tasks, textcraft_protocol
):
  code, outcome, part = CELLS[name]
  for word, thing in outside.names.items():
    code = code.replace(word, str(thing))
  sandbox, processes = guarded
  task = Tree(textcraft, textcraft_tasks[5], Caps(), textcraft_protocol, sandbox)
  tree = end_of(code, sandbox, byte_protocol, [turns(task, recursive, textcraft_protocol, 0)])

  hostile = tree.nodes[1]
  assert (hostile.goal, hostile.outcome) == ("hostile", outcome or Outcome.FINISHED)
  read = hostile.turns[0].output if outcome is not FINISHED else str(hostile.message)
  assert part in read
  assert hostile.success == (outcome in (GOES_ON, FINISHED))
  assert tree.root.message == [hostile.message or f"Error: {outcome}", [42, "A"]] or outcome is FINISHED
  assert all(node.outcome is Outcome.FINISHED for node in tree.nodes if node is not hostile)
  assert task.root.success == 1.0
  outside("".join([*(turn.output for node in tree.nodes for turn in node.turns), str(tree.episode.log)]))
  assert len(processes()) <= 2


def test_many_agents_with_hostile_cells_in_one_tree(guarded, byte_protocol):
  """Those that need no clock, eight at a time side by side; all of their siblings end as they would alone."""
  sandbox, processes = guarded
  chosen = {name: cell for name, cell in CELLS.items() if cell[1] is not TIMED_OUT and len(cell[0]) < 2000}
  names = list(chosen)
  scripts = collections.defaultdict(lambda: ["finish('A')"])
  scripts |= {name: [code, "finish('went on')"] for name, (code, _, _) in chosen.items()}
  groups = [names[i : i + 8] for i in range(0, len(names), 8)]
  scripts["root"] = [f"await asyncio.gather(*[launch_subagent(n) for n in {group}])" for group in groups] + [
    "finish(1)"
  ]
  tree = play(Tree(Shown(), TASK, Caps(**CAPS), byte_protocol, sandbox), agents(scripts), byte_protocol, 0)
  ended = {node.goal: node.outcome for node in tree.nodes}
  assert {name: ended[name] for name in names} == {name: cell[1] or FINISHED for name, cell in chosen.items()}
  assert len(names) > 120 and tree.root.outcome is FINISHED and len(processes()) <= 2


class SlowEpisode(ShownEpisode):
  def call(self, path, name, args, kwargs):
    time.sleep(0.3)
    return super().call(path, name, args, kwargs)


class Slow(Shown):
  def start(self, task):
    return SlowEpisode()


def test_the_clock_stands_while_functions_answer_and_children_work(guarded, byte_protocol):
  """Of 0.4 s the root's cell takes next to nothing, though its calls take 0.6 s and its child 0.6 s more."""
  scripts = {
    "root": ["note(1)\nnote(2)\nr = await launch_subagent('a')\nfinish([r])"],
    "a": ["note(3)", "note(4)\nfinish('A')"],
  }
  tree = play(Tree(Slow(), TASK, Caps(**CAPS), byte_protocol, guarded[0]), agents(scripts), byte_protocol, 0)
  assert tree.root.message == ["A"] and tree.replayable


def test_the_clock_goes_on_over_all_stretches_of_a_cell(guarded, byte_protocol):
  cell = "while True:\n  for i in range(500_000): pass\n  await launch_subagent('no')"
  tree = end_of(cell, guarded[0], byte_protocol)
  assert tree.nodes[1].outcome is TIMED_OUT
  assert len(tree.episode.only("asks")) > 4  # two of the root, one of its other child: several stretches, none too long


@pytest.mark.full
def test_all_cells_at_once_with_the_limits_of_a_run(byte_protocol, interpreter):
  """A batch of trees that go on side by side, one for each cell, in one sandbox."""
  trees = {}
  ticks = []
  for name, (code, _, _) in CELLS.items():
    scripts = {"root": ["x = 6", "await launch_subagent('hostile')", "finish([x])"], "hostile": [code, "finish('on')"]}
    trees[name] = Tree(Shown(), TASK, Caps(**CAPS), byte_protocol, interpreter)
    ticks.append(
      turns(trees[name], agents(collections.defaultdict(lambda: ["finish('A')"], scripts)), byte_protocol, 0)
    )
  for _ in itertools.zip_longest(*ticks):
    pass
  for name, tree in trees.items():
    assert tree.nodes[1].outcome is (CELLS[name][1] or FINISHED), name
    assert tree.root.message == [6], name
