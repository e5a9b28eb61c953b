"""Cells that launch sub-agents, suspended and resumed, in the real sandbox."""

import pytest

from tests.rollout.sandboxed import NAMES, World, run


def test_waiting_lists_all_open_launches_with_numbers_that_go_on_over_resumes(sandbox, world):
  code = (
    "a = launch_subagent({'x': 1}, hint='h')\nget_info(0)\nb = launch_subagent(2)\n"
    "r = await a\nprint(r)\ns = await launch_subagent(3)\nlaunch_subagent(4)\n(r, await b, s)"
  )
  result = sandbox.run(None, code, NAMES, world)
  assert result.status == "waiting" and result.launch_calls == 2
  assert [(n.number, n.args, n.kwargs) for n in result.launches] == [(0, ({"x": 1},), {"hint": "h"}), (1, (2,), {})]
  result = sandbox.resume(result.state, ["A", "B"], NAMES, world)
  assert (result.status, result.stdout, [n.number for n in result.launches]) == ("waiting", "A\n", [2])
  result = sandbox.resume(result.state, {2: "C"}, NAMES, world)
  assert (result.status, result.value, result.stdout) == ("ended", ("A", "B", "C"), "")
  assert [(n.number, n.args) for n in result.launches] == [(3, (4,))] and result.launch_calls == 4


@pytest.mark.parametrize(
  "code, printed",
  [
    ("x = launch_subagent(1)", ""),
    ("launch_subagent(1)\n5", ""),
    ("print(launch_subagent(1))", "<coroutine external_future(0)>\n"),
    ("launch_subagent(1)\nget_info(1)\n1 / 0", ""),
    ("import asyncio\ng = asyncio.gather(launch_subagent(1))", ""),
  ],
)
def test_launch_never_awaited_is_reported_when_the_cell_ends(sandbox, code, printed):
  result = run(sandbox, code)
  assert result.status == "ended" and result.stdout == printed
  assert [(n.number, n.args) for n in result.launches] == [(0, (1,))] and result.launch_calls == 1


def test_launch_of_an_earlier_cell_cannot_be_awaited_but_an_answered_one_can(sandbox):
  stale = run(sandbox, "x = launch_subagent(1)", "await x")
  assert stale.status == "ended" and "awaited a launch of an earlier cell" in stale.error
  mixed = run(sandbox, "x = launch_subagent(1)", "y = launch_subagent(2)\nz = await y\nawait x")
  assert "awaited a launch of an earlier cell" in mixed.error
  assert run(sandbox, "x = launch_subagent(1)\ny = await launch_subagent(2)", "await x").value == 1


def test_without_launch_in_names_it_does_not_exist(sandbox):
  result = run(sandbox, "await launch_subagent(1)", names=frozenset({"get_info"}))
  assert result.error == "NameError: name 'launch_subagent' is not defined" and result.launch_calls == 0


def test_coroutines_go_on_in_the_order_of_their_calls_every_time(sandbox):
  code = (
    "async def f(i):\n  get_info(await launch_subagent(i))\n  get_info(10 + await launch_subagent(i))\n"
    "await asyncio.gather(f(2), f(0), launch_subagent(9), f(1), f(3))"
  )
  seen = set()
  for _ in range(40):
    world, numbers = World(), []
    result = sandbox.run(None, code, NAMES, world)
    while result.status == "waiting":
      numbers.append([n.number for n in result.launches])
      assert [n.call_id for n in result.launches] == sorted(n.call_id for n in result.launches)
      # The order in which the caller lists its answers does not matter.
      answers = {n.number: n.args[0] for n in reversed(result.launches)}
      result = sandbox.resume(result.state, answers, NAMES, world)
    seen.add((str(numbers), str([args[0] for _, args, _ in world.calls])))
  # gather calls launch_subagent(9) itself before any helper starts; the helpers then start in order.
  assert seen == {("[[0, 1, 2, 3, 4], [5, 6, 7, 8]]", "[2, 0, 1, 3, 12, 10, 11, 13]")}


def test_sibling_of_a_failed_helper_is_answered_and_the_cell_goes_on(sandbox, world):
  code = (
    "async def f(i):\n  r = await launch_subagent(i)\n  if r == 0:\n    raise ValueError('boo')\n"
    "  return await launch_subagent(r + 10)\n"
    "try:\n  await asyncio.gather(f(1), f(0), f(2))\nexcept ValueError as e:\n  get_info(str(e))\n"
    "await launch_subagent(7)"
  )
  outcomes = {(r.status, r.error, r.value, r.stdout, r.launch_calls) for r in (run(sandbox, code) for _ in range(10))}
  assert outcomes == {("ended", None, 7, "", 6)}  # 0, 1, 2, then 11, 12 and 7


def test_answers_must_fit_the_launches(sandbox):
  for answers in ([1], [1, 2, 3], {0: 1}, {0: 1, 5: 2}):
    result = sandbox.run(None, "await asyncio.gather(launch_subagent(1), launch_subagent(2))", NAMES, World())
    with pytest.raises(ValueError, match="answers"):
      sandbox.resume(result.state, answers, NAMES, World())
