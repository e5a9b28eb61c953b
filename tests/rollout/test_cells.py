"""What a cell may be like: broken in any way, a launch in any spelling, with texts that functions show."""

import pytest

from rao_jax.envs.base import Show
from tests.rollout.logged import Logged, LoggedEpisode, outputs

# (cell, part of the one line that the agent reads)
BROKEN = {
  "empty": ("", "SyntaxError: no code to run"),
  "blank": (" \n\t\n", "SyntaxError: no code to run"),
  "comments": ("# note(1)\n\n  # that was all", "SyntaxError: no code to run"),
  "syntax": ("note(1)\nx = = 1", "SyntaxError: "),
  "bracket": ("note(1)\nnote(", "SyntaxError: "),
  "indent": ("note(1)\n  note(2)", "SyntaxError: "),
  "quote": ("note(1)\nx = 'abc", "SyntaxError: missing closing quote"),
  "three_quotes": ("note(1)\n'''abc", "SyntaxError: missing closing quote"),
  "null": ("note(1)\nx = 1\x00", "SyntaxError: "),
  "fence": ("```python\nnote(1)\n```", "SyntaxError: "),
  "yield": ("note(1)\ndef f():\n  yield 1", "not supported here: yield"),
  "huge_without_quote": ("note(1)\nx = '" + "y" * 100_000, "SyntaxError: missing closing quote"),
  "huge_brackets": ("note(1)\n" + "(" * 100_000, "SyntaxError: "),
  "huge_sum": ("note(1)\n" + "1+" * 50_000 + "1", "SyntaxError: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_cell_costs_a_turn_and_runs_nothing(work, name):
  cell, part = BROKEN[name]
  tree = work({"root": ["x = 3", cell, "finish(x / 4)"]}, window=1 << 20, turn_tokens=1 << 18)
  line = outputs(tree.root)[1]
  assert part in line and "\n" not in line and len(line) < 260
  assert not tree.episode.only("note")
  assert (tree.ledger.turns, tree.root.success) == (3, 0.75)  # the session is as it was before


@pytest.mark.parametrize("cell", ["1/0", "nobody()", "await note(1)", "raise KeyError('x')"])
def test_an_error_in_a_cell_is_one_line_and_the_node_goes_on(work, cell):
  tree = work({"root": [cell, "finish('ok')"]})
  line = outputs(tree.root)[0]
  assert "Error: " in line and "\n" not in line
  assert tree.root.success == 1.0


# Each cell ends on the results of the agents a and b.
SPELLINGS = {
  "await": "a = await launch_subagent('a')\nb = await launch_subagent('b')\n[a, b]",
  "await_in_an_expression": "[await launch_subagent('a'), await launch_subagent('b')]",
  "hold_then_await": "a = launch_subagent('a')\nb = launch_subagent('b')\n[await a, await b]",
  "hold_then_await_in_other_order": "a = launch_subagent('a')\nb = launch_subagent('b')\nb = await b\n[await a, b]",
  "gather": "await asyncio.gather(launch_subagent('a'), launch_subagent('b'))",
  "gather_imported": "import asyncio\nawait asyncio.gather(launch_subagent('a'), launch_subagent('b'))",
  "gather_by_name": "from asyncio import gather\nawait gather(launch_subagent('a'), launch_subagent('b'))",
  "gather_a_list": "await asyncio.gather(*[launch_subagent('a'), launch_subagent('b')])",
  "gather_a_comprehension": "await asyncio.gather(*[launch_subagent(c) for c in 'ab'])",
  "gather_a_generator": "await asyncio.gather(*(launch_subagent(c) for c in 'ab'))",
  "gather_a_variable": "g = [launch_subagent(c) for c in 'ab']\nawait asyncio.gather(*g)",
  "gather_held": "g = asyncio.gather(launch_subagent('a'), launch_subagent('b'))\nawait g",
  "gather_unpacked": "a, b = await asyncio.gather(launch_subagent('a'), launch_subagent('b'))\n[a, b]",
  "helpers": "async def f(c):\n  return await launch_subagent(c)\nawait asyncio.gather(f('a'), f('b'))",
  "run": (
    "async def main():\n  return await asyncio.gather(launch_subagent('a'), launch_subagent('b'))\nasyncio.run(main())"
  ),
  "await_main": "async def main():\n  return [await launch_subagent(c) for c in 'ab']\nawait main()",
  "comprehension": "[await launch_subagent(c) for c in 'ab']",
  "loop": "r = []\nfor c in 'ab':\n  r.append(await launch_subagent(c))\nr",
  "while": "r = []\nwhile len(r) < 2:\n  r.append(await launch_subagent('ab'[len(r)]))\nr",
  "f_string": "f\"['{await launch_subagent('a')}', '{await launch_subagent('b')}']\"",
  "try": "try:\n  r = [await launch_subagent(c) for c in 'ab']\nexcept Exception:\n  r = None\nr",
  "other_name": "go = launch_subagent\n[await go(c) for c in 'ab']",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_of_two_launches_that_exists_makes_two_children(work, name):
  tree = work({"root": [SPELLINGS[name], "finish(1)"], "a": ["finish('A')"], "b": ["finish('B')"]})
  assert outputs(tree.root)[0] == "['A', 'B']"
  assert [node.goal for node in tree.nodes] == ["root", "a", "b"]
  assert not tree.ledger.refused


MISSING = {
  "create_task": "t = asyncio.create_task(launch_subagent('a'))\nawait t",
  "create_task_by_name": "from asyncio import create_task\nawait create_task(launch_subagent('a'))",
  "ensure_future": "await asyncio.ensure_future(launch_subagent('a'))",
  "as_completed": "for f in asyncio.as_completed([launch_subagent('a')]):\n  await f",
  "async_for": "async for f in asyncio.as_completed([launch_subagent('a')]):\n  await f",
  "wait_for": "await asyncio.wait_for(launch_subagent('a'), 60)",
  "wait": "await asyncio.wait([launch_subagent('a')])",
  "timeout": "async with asyncio.timeout(60):\n  await launch_subagent('a')",
  "shield": "await asyncio.shield(launch_subagent('a'))",
  "semaphore": "async with asyncio.Semaphore(2):\n  await launch_subagent('a')",
  "task_group": "async with asyncio.TaskGroup() as g:\n  g.create_task(launch_subagent('a'))",
  "return_exceptions": "await asyncio.gather(launch_subagent('a'), return_exceptions=True)",
  "event_loop": "asyncio.get_event_loop().run_until_complete(launch_subagent('a'))",
  "thread": "import threading\nthreading.Thread(target=launch_subagent, args=('a',)).start()",
  "thread_pool": "from concurrent.futures import ThreadPoolExecutor",
  "result": "launch_subagent('a').result()",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_spelling_that_does_not_exist_is_answered_with_gather(work, name):
  tree = work({"root": [MISSING[name], "finish(1)"]})
  line, *more = outputs(tree.root)[0].split("\n")
  assert line.endswith("await asyncio.gather(*launches)")
  assert more in ([], ["Error: 1 launches were not awaited"])
  assert len(tree.nodes) == 1 and tree.root.success == 1.0


# --- what an episode puts into a session and into outputs -------------------------------------------------------------


class Library(Logged):
  """Agents have a handle `part`, as long as their goal, and read slices of it."""

  functions = ("note", "read")

  def start(self, task):
    return LibraryEpisode()


class LibraryEpisode(LoggedEpisode):
  def prelude(self, goal):
    return "" if goal == "bare" else f"part = range({len(goal)})" if goal != "broken" else "part = nothing"

  def call(self, path, name, args, kwargs):
    return Show(f"<{args[0]}>") if name == "read" else super().call(path, name, args, kwargs)


def test_every_agent_finds_its_prelude_done_and_keeps_it(work):
  tree = work(
    {
      "root": ["note(len(part))\npart = part[1:]", "note(len(part))\nawait launch_subagent('seven__')", "finish(1)"],
      "seven__": ["(", "note(len(part))", "finish(len(part) / 8)"],
    },
    world=Library,
  )
  assert tree.episode.only("note") == [("note", (), 4), ("note", (), 3), ("note", (0,), 7)]
  assert tree.nodes[1].success == 7 / 8
  assert tree.ledger.turns == 6 and outputs(tree.root)[0] == ""  # no turn, no output


def test_an_agent_without_a_prelude_starts_empty(work):
  tree = work({"root": ["await launch_subagent('bare')", "finish(1)"], "bare": ["part", "finish(1)"]}, world=Library)
  assert outputs(tree.nodes[1])[0] == "NameError: name 'part' is not defined"


def test_an_error_in_a_prelude_is_a_fault_of_the_environment(work):
  with pytest.raises(RuntimeError, match=r"task logged.root: the prelude of \(0,\) ended .*'nothing' is not defined"):
    work({"root": ["await launch_subagent('broken')"], "broken": ["finish(1)"]}, world=Library)


def test_a_shown_text_is_read_by_the_agent_and_not_by_its_code(work):
  cell = "print('a')\nx = read(part[1:3])\nprint(x)\nawait launch_subagent('bare')\nread(part[3:])"
  tree = work({"root": [cell, "finish(1)"], "bare": ["finish('done')"]}, world=Library)
  assert outputs(tree.root)[0] == "a\n<range(1, 3)>\nNone\n<range(3, 4)>"


def test_a_shown_text_is_cut_at_the_cap_of_outputs(work, byte_protocol):
  tree = work({"root": ["read('y' * 100)", "finish(1)"]}, world=Library, output_tokens=20)
  output = tree.root.tokens[6 + 16 :][:20]  # 6 of prompt, 16 of the cell
  assert byte_protocol.tokenizer.decode(output[1:-1]) == "<" + "y" * 12 + "[cut]"
