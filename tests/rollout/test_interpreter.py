"""Cells as a model may write them, kind and hostile, in the real sandbox."""

import os
import pickle
import signal
import time

import pytest

from rao_jax.envs.base import Show
from rao_jax.rollout.interpreter import MontyInterpreter
from rao_jax.rollout.values import plain
from tests.rollout.sandboxed import NAMES, SHORT, World, run

# (code, value): launches are answered with their argument.
GOOD = {
  "await": ("await launch_subagent(1)", 1),
  "sequential": ("a = await launch_subagent(1)\nb = await launch_subagent(a + 1)\n(a, b)", (1, 2)),
  "hold_then_await": ("a = launch_subagent(1)\nb = launch_subagent(2)\n(await b, await a)", (2, 1)),
  "gather": ("await asyncio.gather(launch_subagent(1), launch_subagent(2))", [1, 2]),
  "gather_imported": ("from asyncio import gather\nawait gather(launch_subagent(1))", [1]),
  "gather_list": ("await asyncio.gather(*[launch_subagent(i) for i in range(4)])", [0, 1, 2, 3]),
  "gather_variable": ("t = [launch_subagent(i) for i in range(3)]\nr = await asyncio.gather(*t)\nsum(r)", 3),
  "gather_nothing": ("await asyncio.gather()", []),
  "helper": (
    "async def f(i):\n  return await launch_subagent(i) + await launch_subagent(10 * i)\n"
    "await asyncio.gather(f(1), f(2))",
    [11, 22],
  ),
  "nested_gather": (
    "async def f(i):\n  return await asyncio.gather(launch_subagent(i), launch_subagent(-i))\n"
    "await asyncio.gather(f(1), f(2))",
    [[1, -1], [2, -2]],
  ),
  "asyncio_run": ("async def main():\n  return await launch_subagent(7)\nasyncio.run(main())", 7),
  "await_twice": ("a = launch_subagent(1)\n(await a, await a)", (1, 1)),
  "in_comprehension": ("[await launch_subagent(i) for i in range(3)]", [0, 1, 2]),
  "in_a_call": ("get_info(await launch_subagent('x'))", "x"),
  "in_eval": ("eval('get_info(5)')", 5),
  "name_as_value": ("f = get_info\ng = [launch_subagent]\nf(await g[0](4))", 4),
  "own_function": ("def get_info(x):\n  return 'mine'\nget_info(1)", "mine"),
  "caught_host_error": (
    "try:\n  nothing_here(1)\nexcept NameError as e:\n  r = str(e)\nr",
    "name 'nothing_here' is not defined",
  ),
  "null_in_text": ("'a\\x00b' + get_info('\\x00')", "a\x00b\x00"),
  "unicode": ("get_info('\U0001f600\u0301') + '\u00e9'", "\U0001f600\u0301\u00e9"),
  "megabyte_cell": ("x = '" + "y" * 1_000_000 + "'\nlen(x)", 1_000_000),
  "odd_result": ("craft(1)", "<odd>"),
  "set_is_sorted": ("{'d', 'a', 'c', 'b'}", ["a", "b", "c", "d"]),
  "set_in_keys": ("{frozenset([1]): 2}", {"[1]": 2}),
  "function": ("def f():\n  pass\nf", "<function 'f' at 0xc>"),
  "instance": ("class A:\n  def __init__(self):\n    self.x = [1]\nA()", "A(x=[1])"),
  "huge_int": ("10 ** 6000", "<int of 19932 bits>"),
  "cycle": ("x = []\nx.append(x)\nx", ["[...]"]),
  "sleep_is_free": ("import time\ntime.sleep(1000)\nawait asyncio.sleep(1000)\n1", 1),
  "recursion_caught": ("def f():\n  return f()\ntry:\n  f()\nexcept RecursionError:\n  r = 1\nr", 1),
}


@pytest.mark.parametrize("name", GOOD)
def test_cell_gives_its_value(sandbox, name):
  code, value = GOOD[name]
  result = run(sandbox, code)
  assert (result.status, result.error, result.value) == ("ended", None, value)


# (code, part of the error): the session goes on after each.
WRONG = {
  "empty": ("", "SyntaxError: no code to run"),
  "blank": (" \n\t\n", "SyntaxError: no code to run"),
  "comments": ("# nothing\n\n  # at all", "SyntaxError: no code to run"),
  "no_closing_quote": ("x = 'abc", "SyntaxError: missing closing quote in string literal"),
  "megabyte_without_closing_quote": ("x = '" + "y" * 1_000_000, "SyntaxError: missing closing quote"),
  "syntax": ("x = = 1", "SyntaxError: "),
  "null": ("x = 1\x00", "SyntaxError: "),
  "surrogate": ("x = '\ud800'", "SyntaxError: "),
  "nested_brackets": ("(" * 5000, "SyntaxError: "),
  "long_sum": ("1+" * 50000 + "1", "SyntaxError: "),
  "no_name": ("nothing", "NameError: name 'nothing' is not defined"),
  "no_function": ("nothing(1)", "NameError: name 'nothing' is not defined"),
  "input": ("input()", "NameError"),
  "exit": ("exit()", "NameError"),
  "globals": ("globals()", "NameError"),
  "zero": ("1 / 0", "ZeroDivisionError: division by zero"),
  "key": ("{}['a']", "KeyError: 'a'"),
  "assert": ("assert 1 == 2", "AssertionError: assert 1 == 2"),
  "recursion": ("def f():\n  return f()\nf()", "RecursionError"),
  "import": ("import numpy", "ModuleNotFoundError: No module named 'numpy'"),
  "subprocess": ("import subprocess", "ModuleNotFoundError"),
  "socket": ("import socket", "ModuleNotFoundError"),
  "file": ("open('/etc/passwd').read()", "PermissionError"),
  "path": ("from pathlib import Path\nPath('/etc/passwd').read_text()", "PermissionError"),
  "listdir": ("import os\nos.listdir('/')", "PermissionError"),
  "environ": ("import os\nos.environ['HOME']", "not supported"),
  "system": ("import os\nos.system('ls')", "AttributeError"),
  "dunder_class": ("().__class__.__base__.__subclasses__()", "AttributeError"),
  "dunder_globals": ("get_info.__globals__", "AttributeError"),
  "dunder_code": ("(lambda: 1).__code__", "AttributeError"),
  "giant_error": ("raise ValueError('x' * 10_000_000)", "ValueError: xxx"),
  "own_timeout": ("raise TimeoutError('feed time limit exceeded: 2s > 2s')", "TimeoutError: feed time"),
  "await_plain": ("await get_info(1)", "only launch_subagent is awaited"),
  "gather_plain": ("await asyncio.gather(get_info(1), get_info(2))", "only launch_subagent is awaited"),
  "create_task": ("asyncio.create_task(launch_subagent(1))", "no asyncio.create_task here: await asyncio.gather("),
  "wait_for": ("await asyncio.wait_for(launch_subagent(1), 5)", "no asyncio.wait_for here: await asyncio.gather("),
  "as_completed": ("asyncio.as_completed([launch_subagent(1)])", "await asyncio.gather("),
  "async_for": (
    "async for x in asyncio.as_completed([launch_subagent(1)]):\n  pass",
    "no 'async for' here: await asyncio.gather(",
  ),
  "thread": ("from threading import Thread", "no threading here: await asyncio.gather("),
  "thread_pool": ("import concurrent.futures", "no concurrent here: await asyncio.gather("),
  "result_of_a_launch": ("launch_subagent(1).result()", "has to be awaited first: await asyncio.gather("),
  "import_create_task": ("from asyncio import create_task", "no asyncio.create_task here: await asyncio.gather("),
  "task_group": (
    "async def main():\n  async with asyncio.TaskGroup() as group:\n    pass\nawait main()",
    "await asyncio.gather(",
  ),
  "return_exceptions": ("await asyncio.gather(launch_subagent(1), return_exceptions=True)", "await asyncio.gather("),
  "raise_in_gather": (
    "async def f(i):\n  if await launch_subagent(i) == 0:\n    raise ValueError('boo')\n"
    "await asyncio.gather(f(0), f(1), f(2))",
    "ValueError: boo",
  ),
  "raise_before_siblings": (
    "async def f(i):\n  if i == 0:\n    raise ValueError('boo')\n  return await launch_subagent(i)\n"
    "await asyncio.gather(f(1), f(0))",
    "ValueError: boo",
  ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_cell_is_one_line_of_error_and_the_session_goes_on(sandbox, name):
  code, part = WRONG[name]
  first = sandbox.run(None, "kept = 3", NAMES, World())
  result = sandbox.run(first.state, code, NAMES, World())
  while result.status == "waiting":
    result = sandbox.resume(result.state, [n.args[0] for n in result.launches], NAMES, World())
  assert result.status == "ended" and part in result.error
  assert "\n" not in result.error and len(result.error) < 260 and not result.timed_out
  after = sandbox.run(result.state, "kept + 1", NAMES, World())
  assert after.value == 4


# (code, part of the error, a clock ended it)
DEADLY = {
  "loop": ("while True: pass", "TimeoutError: the cell ran longer than 0.25 s", True),
  "swallow": ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "TimeoutError", True),
  "finally": ("def f():\n  try: f()\n  finally: f()\nf()", "TimeoutError", True),
  "big_list": ("x = [1]\nwhile True: x += x", "MemoryError", False),
  "slow_list": ("x = []\nwhile True: x.append('a' * 9999 + str(len(x)))", "MemoryError", False),
  "big_string": ("'a' * 10 ** 10", "MemoryError", False),
  "big_power": ("2 ** 10 ** 9", "MemoryError", False),
  "caught_memory": ("try:\n  x = 'a' * 10 ** 10\nexcept BaseException: x = 1\nx", "MemoryError", False),
  "big_repr": ("x = []\nfor i in range(40): x = [x, x]\nprint(x)", "MemoryError", False),
  "flood": ("while True: print('x' * 1000)", "MemoryError: printed more than 1048576 characters", False),
  "one_big_print": ("print('x' * 2_000_000)\nget_info(1)", "printed more than", False),
  "flood_then_error": ("print('x' * 2_000_000)\n1 / 0", "printed more than", False),
  "swallowed_calls": ("while True:\n  try: get_info(1)\n  except BaseException: pass", "more than 256 calls", False),
  "swallowed_names": ("while True:\n  try: nothing\n  except NameError: pass", "more than 256 calls", False),
  "swallowed_files": ("while True:\n  try: open('x')\n  except OSError: pass", "more than 256 calls", False),
}


@pytest.mark.parametrize("name", DEADLY)
def test_limit_cannot_be_caught_and_costs_the_session(sandbox, name):
  code, part, timed_out = DEADLY[name]
  began = time.monotonic()
  result = run(sandbox, code)
  assert (result.status, result.state, result.timed_out) == ("dead", None, timed_out)
  assert part in result.error and len(result.stdout) <= 1 << 14
  assert time.monotonic() - began < 3
  assert run(sandbox, "1 + 1").value == 2


def test_flood_stops_before_the_call_behind_it(sandbox, world):
  for _ in range(20):
    assert run(sandbox, "print('x' * 1_100_000)\ncraft(1)", world=world).status == "dead"
  assert world.calls == []


def test_call_257_is_an_error_and_the_first_256_have_happened(sandbox, world):
  result = run(sandbox, "for i in range(300): get_info(i)", world=world)
  assert (result.status, result.error) == ("ended", "RuntimeError: more than 256 calls in one cell")
  assert [args[0] for _, args, _ in world.calls] == list(range(256))
  world.calls.clear()
  result = run(sandbox, *["for i in range(200): get_info(i)"] * 3, world=world)
  assert result.error is None and len(world.calls) == 600  # the count is per cell


def test_value_that_unfolds_exponentially_is_cut_in_bounded_time(sandbox):
  began = time.monotonic()
  result = run(sandbox, "x = ('a', 'b')\nfor i in range(60): x = (x, x)\nx")
  assert result.status == "ended" and "..." in str(result.value)
  assert time.monotonic() - began < 2


# ---- finish


@pytest.mark.parametrize(
  "code, message",
  [
    ("finish('done')", "done"),
    ("finish(message={'a': [1]})", {"a": [1]}),
    ("finish()", ""),
    ("finish(None)", ""),
    ("try:\n  finish(1)\nexcept BaseException:\n  craft(1)\nfinally:\n  craft(2)", 1),
    ("finish(1)\nfinish(2)", 1),
    ("f = finish\nf(3)", 3),
    ("await finish(4)", 4),
    ("async def f(i):\n  await launch_subagent(i)\n  finish(i)\nawait asyncio.gather(f(5), f(6))", 5),
    ("async def f():\n  finish(await launch_subagent(8))\nasyncio.run(f())", 8),
    ("for i in range(256): get_info(i)\nfinish(9)", 9),
  ],
)
def test_finish_ends_the_node_at_the_call(sandbox, world, code, message):
  result = run(sandbox, code, world=world)
  assert (result.status, result.state, result.finish) == ("finished", None, message)
  assert all(name != "craft" for name, _, _ in world.calls)


# ---- texts that functions show, and ranges


def answer_with_show(name, args, kwargs):
  return Show(args[0]) if name == "craft" else plain(args)


def test_a_shown_text_stands_among_the_prints_and_its_call_gives_none(sandbox):
  code = "print('a')\nx = craft('b')\nprint(x, end='')\ncraft('c\\n')\nawait launch_subagent(1)\nprint('d')\ncraft('e')"
  result = sandbox.run(None, code, NAMES, answer_with_show)
  assert (result.status, result.stdout) == ("waiting", "a\nb\nNonec\n")
  result = sandbox.resume(result.state, [1], NAMES, answer_with_show)
  assert (result.status, result.value, result.stdout) == ("ended", None, "d\ne\n")


def test_a_shown_text_counts_against_the_cap_of_prints(sandbox):
  result = sandbox.run(None, "print('x' * 16_000)\ncraft('y' * 1000)\nprint('z')", NAMES, answer_with_show)
  assert result.stdout == "x" * 16_000 + "\n" + "y" * 383  # 16,384 in all
  result = sandbox.run(None, "for i in range(200): craft('x' * 9999)", NAMES, answer_with_show)
  assert (result.status, result.error) == ("dead", "MemoryError: printed more than 1048576 characters")


def test_a_range_lives_in_the_session_and_leaves_it_as_text(sandbox):
  """On the host it cannot be told apart from a string of those characters."""
  state = sandbox.run(None, "h = range(0, 480)", NAMES, answer_with_show).state
  assert run(sandbox, "get_info(range(3), k=1)").value == "range(0, 3)"
  result = sandbox.run(state, "r = await launch_subagent('g', part=h[100:][3:10])", NAMES, answer_with_show)
  assert result.launches[0].kwargs == {"part": "range(103, 110)"}
  result = sandbox.resume(result.state, [range(4)], NAMES, answer_with_show)
  result = sandbox.run(result.state, "get_info(h[::2], 'range(1, 2)', r, len(h))", NAMES, answer_with_show)
  assert result.value == ("range(0, 480, 2)", "range(1, 2)", "range(0, 4)", 480)


# ---- launches


# ---- sessions


def test_session_keeps_variables_functions_classes_and_imports(sandbox):
  cells = [
    "import math\nfrom collections import Counter\nx = {'a': [1]}",
    "def double(v):\n  return 2 * v\nclass Box:\n  def __init__(self, v):\n    self.v = v\nbox = Box(5)",
    "x['a'].append(await launch_subagent(2))",
    "1 / 0",
    "await asyncio.sleep(0)\n(x, double(box.v), math.floor(2.5), Counter('aab')['a'])",
  ]
  assert run(sandbox, *cells).value == ({"a": [1, 2]}, 10, 2, 2)


def test_asyncio_is_there_in_any_cell(sandbox):
  assert run(sandbox, "x = 1", "asyncio = = 1", "def f():\n  yield asyncio", "await asyncio.gather()").value == []
  assert run(sandbox, "asyncio = 5", "asyncio + 1").value == 6


def test_sessions_are_apart(sandbox):
  states = [sandbox.run(None, f"x = {i}", NAMES, World()).state for i in range(12)]
  for _ in range(2):
    states = [sandbox.run(state, "x += 100", NAMES, World()).state for state in states]
  results = [sandbox.run(state, "x", NAMES, World()) for state in states]
  assert [r.value for r in results] == [200 + i for i in range(12)]


def test_stdout_is_kept_up_to_its_cap(sandbox):
  assert run(sandbox, "print('a', end='')\nprint('b')").stdout == "ab\n"
  result = run(sandbox, "for i in range(200): print('x' * 999)\n'end'")
  assert result.stdout == ("x" * 999 + "\n") * 16 + "x" * 384 and result.value == "end"


def test_stdout_cap_holds_over_resumes(sandbox):
  code = "print('x' * 10_000)\nawait launch_subagent(1)\nprint('y' * 10_000)"
  first = sandbox.run(None, code, NAMES, World())
  second = sandbox.resume(first.state, [1], NAMES, World())
  assert (first.stdout, second.stdout) == ("x" * 10_000 + "\n", "y" * 6383)  # 16,384 in all


def test_random_and_clock_are_the_same_in_every_run(sandbox):
  cells = ["import random, time, datetime\na = random.random()", "await launch_subagent(1)"]
  last = "(a, random.random(), random.Random().random(), time.time(), time.perf_counter(), hash('a'), str({'a', 'b'}))"
  values = {str(run(sandbox, *cells, last).value) for _ in range(5)}
  with MontyInterpreter(SHORT) as other:
    values.add(str(run(other, *cells, last).value))
  with MontyInterpreter(SHORT, seed=1) as other:
    assert str(run(other, *cells, last).value) not in values
  assert len(values) == 1 and "0.8444218515250481" in values.pop()  # what Python's random.seed(0) draws first


def test_state_of_the_wrong_kind_is_refused(sandbox):
  first = sandbox.run(None, "x = 1", NAMES, World())
  with pytest.raises(ValueError, match="waits for nothing"):
    sandbox.resume(first.state, [], NAMES, World())
  second = sandbox.run(first.state, "await launch_subagent(1)", NAMES, World())
  with pytest.raises(ValueError, match="waits for answers"):
    sandbox.run(second.state, "x", NAMES, World())


def test_state_is_plain_data_that_any_interpreter_takes_any_number_of_times(sandbox, world):
  code = "x = await launch_subagent(1)\ny = await launch_subagent(2)\n(x, y)"
  state = pickle.loads(pickle.dumps(sandbox.run(None, code, NAMES, world).state))
  with MontyInterpreter(SHORT) as other:
    for answer in ("A", "B"):
      result = other.resume(state, [answer], NAMES, world)
      assert [n.number for n in result.launches] == [1]
      result = other.resume(result.state, {1: "C"}, NAMES, world)
      assert result.value == (answer, "C")
      assert sandbox.run(pickle.loads(pickle.dumps(result.state)), "x", NAMES, world).value == answer


def test_session_too_big_for_its_dump_ends_the_same_way_every_time(sandbox):
  code = "x = ['a' * 50_000 + str(i) for i in range({})]\nlen(x)"
  assert run(sandbox, code.format(100), "len(x)").value == 100
  for _ in range(2):
    result = run(sandbox, code.format(280))
    assert (result.status, result.error) == ("dead", "MemoryError: more than 16 MB in use")


def test_exception_of_the_environment_is_raised_and_the_worker_goes_on(sandbox):
  def call(name, args, kwargs):
    raise ZeroDivisionError("a bug of the world")

  with pytest.raises(ZeroDivisionError, match="a bug"):
    sandbox.run(None, "try:\n  get_info(1)\nexcept BaseException: pass", NAMES, call)
  assert run(sandbox, "1 + 1").value == 2


def workers():
  """Process ids of our children that run the sandbox."""
  found = []
  for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
      with open(f"/proc/{pid}/stat") as file:
        name, rest = file.read().rsplit(")", 1)
    except OSError:
      continue
    if rest.split()[1] == str(os.getpid()) and rest.split()[0] != "Z" and "monty" in name:
      found.append(int(pid))
  return found


def kill_workers(pids):
  for pid in pids:
    os.kill(pid, signal.SIGKILL)


def test_worker_killed_while_idle_is_replaced_unseen():
  before = set(workers())
  with MontyInterpreter(SHORT) as sandbox:
    state = sandbox.run(None, "x = 41", NAMES, World()).state
    kill_workers(set(workers()) - before)
    result = sandbox.run(state, "x + 1", NAMES, World())
    assert (result.status, result.value) == ("ended", 42)


def test_worker_killed_in_a_call_costs_that_node_alone():
  before = set(workers())
  with MontyInterpreter(SHORT) as sandbox:
    calls = []

    def call(name, args, kwargs):
      calls.append(name)
      kill_workers(set(workers()) - before)

    other = sandbox.run(None, "y = await launch_subagent(1)\ny", NAMES, World())
    result = sandbox.run(None, "get_info(1)\nget_info(2)", NAMES, call)
    assert (result.status, result.error, result.timed_out) == ("dead", "RuntimeError: the sandbox was lost", True)
    assert calls == ["get_info"]  # what has happened is not repeated
    assert sandbox.resume(other.state, ["ok"], NAMES, World()).value == "ok"


def test_one_worker_serves_any_number_of_nodes_and_none_is_left_behind():
  before = set(workers())
  with MontyInterpreter(SHORT) as sandbox:
    results = [sandbox.run(None, f"await launch_subagent({i})", NAMES, World()) for i in range(100)]
    assert len(set(workers()) - before) == 1
    assert [sandbox.resume(r.state, ["ok"], NAMES, World()).value for r in results] == ["ok"] * 100
    run(sandbox, "while True: print('x' * 1000)")  # its worker is killed and replaced
    assert len(set(workers()) - before) <= 1
  deadline = time.monotonic() + 5
  while set(workers()) - before and time.monotonic() < deadline:
    time.sleep(0.02)
  assert set(workers()) <= before
