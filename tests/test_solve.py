"""One task for a trained agent: finding it, and showing its tree as it grows."""

import json
import re

import pytest

from rao_jax import solve
from rao_jax.envs.textcraft.factory import TextCraftSynth
from rao_jax.envs.textcraft.tasks import asked_task
from rao_jax.envs.textcraft.world import World
from rao_jax.evaluate import Options
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.scripted import turns
from rao_jax.solve import Live, Log, find_task, picture
from rao_jax.train import train
from tests.rollout.logged import TASK, WIDE, Logged, agents
from tests.test_evaluation import untrained


class Shelf:
  """Tasks by split, without goals in words."""

  functions = ()

  def tasks(self, split):
    if split not in ("dev", "test"):
      raise ValueError(f"no split {split!r}: choose dev or test")
    return [asked_task(WORLD, f"{i + 1}x {WORLD.tier(2)[i]}") for i in range(3)]


class Talks(Shelf):
  def task_from(self, text):
    return asked_task(WORLD, text)


WORLD = World.generate(1_000_000, 10, "small")


def test_a_task_is_found_by_number_by_id_and_by_words():
  shelf = Shelf()
  wanted = shelf.tasks("dev")[2]
  assert find_task(shelf, "dev/2", ["dev"]) == wanted
  assert find_task(shelf, wanted.id, ["dev", "test"]) == wanted
  assert find_task(Talks(), f"craft 3 of {WORLD.tier(2)[2]}", ["dev"]) == wanted
  with pytest.raises(ValueError, match=r"--task=dev/3: split dev has 3 tasks, the last is 2"):
    find_task(shelf, "dev/3", ["dev"])
  with pytest.raises(ValueError, match=r"takes no goals in words: name one as SPLIT/NUMBER, e\.g\. dev/0"):
    find_task(shelf, "craft 2 of m0_i3", ["dev", "test"])
  with pytest.raises(ValueError, match="no split 'val': choose dev or test"):
    find_task(shelf, "val/0", ["dev"])


def test_words_ask_for_items_with_a_stock_that_suffices(textcraft_tasks):
  a, b = WORLD.tier(5)[0], WORLD.tier(2)[1]
  task = asked_task(WORLD, f"craft 2 of {a}, 3x {b} and {a}")
  assert task.data["targets"] == {a: 3, b: 3}
  assert (task.difficulty, task.data["max_depth"]) == ("medium", 5)
  assert task == asked_task(WORLD, f"3x {a}, 3 of item {b}")
  assert task.data.keys() == textcraft_tasks[0].data.keys()
  crafted = dict(task.data["gold"])
  assert crafted[a] >= 3 and crafted[b] >= 3


@pytest.mark.parametrize(
  ("words", "said"),
  [
    ("bake a cake", r"'bake a cake' asks for nothing to craft: name items of world 1000000"),
    ("craft 0 of ITEM", r"asks for nothing to craft"),
    ("craft 1001 of ITEM", r"1 to 1000 of each"),
    ("craft 2 of m0_i99", r"world 1000000 can craft no 'm0_i99': it can craft m"),
    ("craft 2 of m0_ore", r"can craft no 'm0_ore'"),
  ],
)
def test_words_that_ask_for_nothing_are_refused_with_what_there_is(words, said):
  with pytest.raises(ValueError, match=said):
    asked_task(WORLD, words.replace("ITEM", WORLD.tier(2)[0]))


@pytest.mark.full
def test_the_world_of_a_task_in_words_can_be_named(tmp_path_factory):
  environment = TextCraftSynth(str(tmp_path_factory.mktemp("solve")))
  item = World.generate(7, 10, "small").tier(4)[0]
  task = environment.task_from(f"craft 2 of {item} in world 7")
  assert task.data["world_seed"] == 7 and task.data["profile"] == "small"
  assert environment.task_from(f"craft 2 of {item}").data["world_seed"] == 1_000_000


SCRIPTS = {
  "root": ["import asyncio\nawait asyncio.gather(launch_subagent('a'), launch_subagent('b'))", "finish(1)"],
  "a": ["await launch_subagent('c')", "finish(0.5)"],
  "b": ["note(5)", "finish(0)"],
  "c": ["finish(1)"],
}


@pytest.fixture
def stages(byte_protocol, interpreter):
  """A tree, after each time that its agents have acted."""

  def stages():
    tree = Tree(Logged(), TASK, WIDE, byte_protocol, interpreter)
    yield tree
    for _ in turns(tree, agents(SCRIPTS), byte_protocol, 0):
      yield tree

  return stages


def test_the_log_tells_who_begins_what_every_turn_does_and_how_agents_end(stages, capsys):
  log, told = Log(), []
  for tree in stages():
    log.show(tree)
    told.append(capsys.readouterr().out.splitlines())
  log.show(tree)
  assert capsys.readouterr().out == ""
  assert told == [
    ["root begins: root"],
    ["0 begins: a", "1 begins: b"],
    ["1 turn 1: note(5)  ->  5"],
    ["1 turn 2: finish(0)", "1 ends: finished, success 0, 18 tokens", "0.0 begins: c"],
    [
      "0.0 turn 1: finish(1)", "0.0 ends: finished, success 1, 10 tokens",
      "0 turn 1: await launch_subagent('c')  ->  1",
    ],
    [
      "0 turn 2: finish(0.5)", "0 ends: finished, success 0.5, 39 tokens",
      "root turn 1: import asyncio await asyncio.gather(launch_subagent('a'), launch_subagent('b'))  ->  [0.5, 0]",
    ],
    ["root turn 2: finish(1)", "root ends: finished, success 1, 90 tokens"],
  ]  # fmt: skip


def test_a_growing_tree_is_drawn_with_what_its_agents_do(stages):
  _, _, after_two, *_, done = (picture(tree, 3.2, 60, 24) for tree in stages())
  assert after_two == [
    "4 agents, 4 at work, 115 tokens, 3 s",
    "\u00b7 root  root  [waits for 2 agents, 1 turn, 80 tokens]",
    "\u251c\u2500 \u00b7 0  a  [waits for 1 agent, 1 turn, 27 tokens]",
    "\u2502  \u2514\u2500 \u00b7 0.0  c  [about to begin, 0 turns, 0 tokens]",
    "\u2514\u2500 \u00b7 1  b  [writes, 1 turn, 8 tokens]",
  ]
  assert done[0] == "4 agents, 0 at work, 157 tokens, 3 s"
  assert [line.partition("  [")[0] for line in done[1:3]] == ["\u2713 root  root", "\u251c\u2500 \u00bd 0  a"]


def test_a_tree_too_large_for_the_terminal_shows_who_is_at_work(stages):
  whole, busy, cut = ([picture(tree, 0, 60, height) for tree in stages()][3][1:] for height in (5, 4, 3))
  assert len(whole) == 4 and whole[3].startswith("\u2514\u2500 \u2717 1  b")
  assert [line.partition("  [")[0].split()[-1] for line in busy] == ["root", "a", "c"]
  assert cut == [whole[0], "... and 2 more at work"]


def test_the_terminal_is_painted_over_and_left_clean(stages, capsys, monkeypatch):
  monkeypatch.setattr(solve, "REPAINT", 0)
  live = Live()
  for tree in stages():
    live.show(tree)
  live.close()
  screen = []
  for part in re.split(r"(\x1b\[\d+A)?\r\x1b\[J", capsys.readouterr().out):
    if part is None:
      continue
    if up := re.fullmatch(r"\x1b\[(\d+)A", part):
      assert int(up[1]) == len(screen)  # neither a line too many nor one left standing
      screen = []
    else:
      screen += part.splitlines()
  assert screen == []


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("solve") / "run"
  train(untrained(), folder, quiet=True)
  return folder


OPTIONS = Options(max_depth=1, context=80, temperature=1.0)


def test_one_task_with_a_checkpoint_in_lines_and_as_json(workdir, capsys):
  found = solve.solve(workdir, "dev/1", OPTIONS, seed=4)
  said = capsys.readouterr().out
  assert (found["task"], found["max_depth"], found["window"], found["seed"]) == ("logged.1", 1, 80, 4)
  assert found["sampled"] == sum(node["sampled"] for node in found["tree"]["nodes"]) > 0
  assert json.loads(json.dumps(found, default=str))["tree"]["task"] == "logged.1"
  assert "root begins: root" in said and "root turn 1: " in said
  assert re.search(r"^turn 1$", said, re.M) and f"{found['sampled']:,} tokens sampled" in said


@pytest.mark.full
def test_the_seed_decides_what_is_sampled(workdir, capsys):
  one, again = (solve.solve(workdir, asked, OPTIONS, 4, turns=False) for asked in ("dev/1", "logged.1"))
  assert one["tree"] == again["tree"]
  assert not re.search(r"^turn 1$", capsys.readouterr().out, re.M)
  assert solve.solve(workdir, "dev/1", OPTIONS, 5, live=True)["tree"] != one["tree"]
  assert "\x1b[" in capsys.readouterr().out
