"""Impure: runs the cells that a model writes, in a sandboxed worker process.

`Interpreter` is what the engine needs; `MontyInterpreter` runs cells with pydantic-monty, which interprets a subset of
Python without access to the host, under hard limits. A cell that awaits `launch_subagent(...)` is suspended and resumed
when the answers are there. Between cells and while suspended, a session is a dump of a kB or so: any number of nodes
share one worker.

Everything a cell can do wrong comes back as a `CellResult`. What is raised is a fault of the harness: an exception of
`call`, a state used for the wrong thing, answers that do not fit the launches, no sandbox to be had.
"""

import contextlib
import dataclasses
import datetime
import functools
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import pydantic_monty as monty

from rao_jax.envs.base import Show
from rao_jax.rollout.values import plain

LAUNCH = "launch_subagent"
FINISH = "finish"

Call = Callable[[str, tuple, dict[str, Any]], Any]  # (name, args, kwargs) -> the value the cell gets, or a Show


@dataclasses.dataclass(frozen=True)
class Limits:
  """What one cell may use. All but `cell_seconds` bind at the same place in every run.

  Attributes:
    cell_seconds: time while code of the cell runs, not while it is suspended. A backstop: it makes a tree unreplayable.
    memory_bytes: memory of the worker; a session between cells may fill about half of it, as its dump is made there.
    host_calls: calls out of the sandbox per cell, launches and look-ups of unknown names included.
    recursion: depth of the call stack.
    output_chars: printed text that is kept.
    flood_chars: printed text at which the session is ended.
    value_chars: size of one value that leaves the sandbox (characters, and 32 for each item); the rest is cut.
    error_chars: length of an error text.
  """

  cell_seconds: float = 2.0
  memory_bytes: int = 16 << 20
  host_calls: int = 256
  recursion: int = 200
  output_chars: int = 1 << 14
  flood_chars: int = 1 << 20
  value_chars: int = 1 << 20
  error_chars: int = 240


@dataclasses.dataclass(frozen=True)
class Launch:
  """One call of `launch_subagent`.

  Attributes:
    number: how many launch calls the cell made before this one.
    args, kwargs: its arguments, as plain values.
    call_id: the sandbox's own number of the call; answers are handed over in this order.
  """

  number: int
  args: tuple
  kwargs: dict[str, Any]
  call_id: int


@dataclasses.dataclass(frozen=True)
class CellResult:
  """What became of a cell, as far as it has run.

  Attributes:
    status: `ended` (to its end, or by an ordinary error: the session goes on), `waiting` (for answers to `launches`),
      `finished` (it called finish), `dead` (a limit was hit or the worker died: the session is lost).
    state: what the next `run` (ended) or `resume` (waiting) takes; None when finished or dead.
    stdout: what the cell printed since it was run or resumed; at most `output_chars` in all.
    value: its last expression as a plain value, or None.
    error: one line like CPython's `Type: message`, or None.
    launches: waiting: every launch called and not yet answered, by call id. Otherwise those that no wait ever covered.
    launch_calls: launch calls made so far in this cell.
    finish: the argument of finish as a plain value, never None when finished.
    timed_out: a clock, or the loss of the worker, ended the cell: another run may differ.
  """

  status: Literal["ended", "waiting", "finished", "dead"]
  state: Any = None
  stdout: str = ""
  value: Any = None
  error: str | None = None
  launches: tuple[Launch, ...] = ()
  launch_calls: int = 0
  finish: Any = None
  timed_out: bool = False


class Interpreter(Protocol):
  """Runs cells. A state is opaque to the caller and belongs to the interpreter that made it."""

  def run(self, state: Any, code: str, names: frozenset[str], call: Call) -> CellResult:
    """Runs `code` in the session of `state` (None: a fresh one). `names` are callable, and `finish` always is."""

  def resume(
    self, state: Any, answers: Sequence[Any] | Mapping[int, Any], names: frozenset[str], call: Call
  ) -> CellResult:
    """Goes on with a waiting cell. `answers`: in the order of its launches, or by launch number; all of them."""

  def discard(self, state: Any) -> None:
    """Releases a state that will not be used."""

  def close(self) -> None:
    """Ends all workers."""


@dataclasses.dataclass
class _Cell:
  """The books of one cell, kept over its suspensions."""

  pending: dict[int, Launch] = dataclasses.field(default_factory=dict)  # call id -> launch called and not answered
  launch_calls: int = 0
  host_calls: int = 0
  stdout: str = ""  # of this run or resume
  printed: int = 0  # characters, over all of the cell
  seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class _State:
  """A session between cells, or within a waiting cell: plain data, good for any number of uses."""

  dump: bytes | None = None
  cell: _Cell | None = None  # of a waiting cell


_ASYNCIO = re.compile(r"module 'asyncio' has no attribute '(\w+)'|cannot import name '(\w+)' from 'asyncio'")
_HINTS = (  # what the sandbox says, and what an agent reads in its place, after the same kind of error
  ("gather() does not yet support keyword", "asyncio.gather takes no keywords here: await asyncio.gather(*launches)"),
  ("asyncio scheduler stalled", "awaited a launch of an earlier cell: launch and await in the same cell"),
  ("async context managers", "no 'async with' here: await asyncio.gather(*launches)"),
  ("async for loops", "no 'async for' here: await asyncio.gather(*launches)"),
  ("'coroutine' object has no", "a launch has to be awaited first: await asyncio.gather(*launches)"),
  *(
    (f"No module named '{module}'", f"no {module} here: await asyncio.gather(*launches)")
    for module in ("threading", "concurrent", "multiprocessing")
  ),
)


def _explain(error: monty.MontySyntaxError | monty.MontyRuntimeError, limits: Limits) -> str:
  """One line for an error of a cell; says what to write instead of what this sandbox does not have."""
  text = error.display("type-msg")
  missing = _ASYNCIO.search(text[:200])
  if missing:
    name = missing.group(1) or missing.group(2)
    return f"AttributeError: no asyncio.{name} here: await asyncio.gather(*launches)"
  kind = text.partition(": ")[0]
  for sign, hint in _HINTS:
    if sign in text[:400]:
      return f"{kind}: {hint}"
  text = text.replace("The monty syntax parser does not yet support", "not supported here:").replace(" in monty", "")
  if "object can't be awaited" in text or "an awaitable is required" in text:
    text += f"; only {LAUNCH} is awaited, other functions answer at once"
  kind, colon, message = text.partition(": ")
  if kind == "KeyError" and colon and not message.startswith(("'", '"')):
    text = f"KeyError: {message!r}"
  text = " ".join(text.split("\n")[:2])
  return text if len(text) <= limits.error_chars else text[: limits.error_chars] + "..."


class MontyInterpreter:
  """`Interpreter` on pydantic-monty. For one thread.

  Sessions kept live in a worker each were tried: with many nodes in turn they win a quarter at most, with all processes
  on one core, and lose otherwise, because every switch wakes a cold process.

  Args:
    limits: of every cell.
    seed: of the sandbox's `random`. Its clock stands still.
    grace: seconds beyond a cell's clock after which a worker that does not answer is ended.
  """

  def __init__(self, limits: Limits | None = None, seed: int = 0, grace: float = 5.0):
    self.limits = limits = limits or Limits()
    self._functions: dict[str, Callable] = {}
    self._settings = {
      "limits": {
        "max_feed_duration_secs": limits.cell_seconds,
        "max_memory": limits.memory_bytes,
        "max_recursion_depth": limits.recursion,
        "max_suspensions": 2**31 - 1,  # the pool's own count starts anew with each dump; ours is `host_calls`
      },
      "os_policy": {
        "datetime": datetime.datetime(2024, 1, 1),
        "sleep": "zero",
        "random_start": {"seed": seed},
      },
    }
    self._pool = monty.Monty(min_processes=1, max_processes=1, request_timeout=limits.cell_seconds + grace)
    self._pool.__enter__()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()

  def run(self, state: Any, code: str, names: frozenset[str], call: Call) -> CellResult:
    """See `Interpreter`."""
    state = state or _State()
    if state.cell is not None:
      raise ValueError("this state waits for answers to its launches: resume it")
    if all(not line.strip() or line.lstrip().startswith("#") for line in code.splitlines()):
      code = "raise SyntaxError('no code to run')"
    if "asyncio." in code:  # it is there without an import; a look-up of the name could not be answered with a module
      code = "import asyncio\n" + code

    def start(session, on_print):
      if state.dump is not None:
        session.load_session(state.dump)
      return session.feed_start(code, print_callback=on_print)

    return self._drive(start, _Cell(), names, call)

  def resume(
    self, state: Any, answers: Sequence[Any] | Mapping[int, Any], names: frozenset[str], call: Call
  ) -> CellResult:
    """See `Interpreter`."""
    if state.cell is None:
      raise ValueError("this state waits for nothing: run a cell in it")
    launches = state.cell.pending.values()  # by call id
    if not isinstance(answers, Mapping):
      if len(answers) != len(launches):
        raise ValueError(f"{len(answers)} answers for {len(launches)} launches")
      answers = {launch.number: answer for launch, answer in zip(launches, answers)}
    if set(answers) != {launch.number for launch in launches}:
      raise ValueError(f"answers to {sorted(answers)}, launches are {sorted(n.number for n in launches)}")
    # The order of this dict decides which coroutine goes on first.
    results = {launch.call_id: {"return_value": plain(answers[launch.number])} for launch in launches}

    def start(session, on_print):
      return session.load_snapshot(state.dump, print_callback=on_print).resume(results)

    return self._drive(start, dataclasses.replace(state.cell, pending={}, stdout=""), names, call)

  def discard(self, state: Any) -> None:
    """See `Interpreter`. A dump holds nothing."""

  def close(self) -> None:
    """See `Interpreter`."""
    if self._pool is not None:
      self._pool.__exit__(None, None, None)
      self._pool = None

  def _drive(self, start: Callable, cell: _Cell, names: frozenset[str], call: Call) -> CellResult:
    """Runs until the cell ends or waits. `start(session, on_print)` makes the first step in a fresh session."""
    before = cell
    for attempt in range(2):
      cell = dataclasses.replace(before, pending=dict(before.pending))
      try:
        with self._pool.checkout(**self._settings) as session:
          on_print = functools.partial(self._printed, cell, session.worker_pid)
          return self._steps(session, functools.partial(start, session, on_print), cell, names, call)
      except monty.MontyCrashedError as error:
        if self._flooded(cell):
          return self._flood(cell)
        if attempt == 1 or error.timed_out or cell.host_calls > before.host_calls:
          break
        # The worker died while it was idle, and nothing of this cell has reached the world yet: once more.
    return self._result("dead", cell, error="RuntimeError: the sandbox was lost", timed_out=True)

  def _printed(self, cell: _Cell, worker: int, stream: str, text: str) -> None:
    """Keeps what a cell prints; ends the worker at a flood, as the sandbox would print until its time is up."""
    was_flooded = self._flooded(cell)
    self._show(cell, text)
    if self._flooded(cell) and not was_flooded:
      with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)

  def _show(self, cell: _Cell, text: str) -> None:
    cell.stdout += text[: max(self.limits.output_chars - cell.printed, 0)]
    cell.printed += len(text)

  def _flooded(self, cell: _Cell) -> bool:
    return cell.printed > self.limits.flood_chars

  def _steps(
    self, session: monty.MontySession, start: Callable[[], Any], cell: _Cell, names: frozenset[str], call: Call
  ) -> CellResult:
    """The loop over the places where the sandbox stops and asks."""
    limits = self.limits
    step, argument = start, ()
    while True:
      began = time.perf_counter()
      try:
        snapshot = step(*argument)
      except (monty.MontySyntaxError, monty.MontyRuntimeError) as error:
        cell.seconds += time.perf_counter() - began
        return self._flood(cell) if self._flooded(cell) else self._failed(session, cell, error)
      cell.seconds += time.perf_counter() - began
      if self._flooded(cell):  # a call that was made after the flood is not answered
        return self._flood(cell)
      if isinstance(snapshot, monty.MontyComplete):
        return self._ended(session, cell, value=plain(snapshot.output, limits.value_chars))
      if isinstance(snapshot, monty.FutureSnapshot):
        waits = cell.pending.keys() & set(snapshot.pending_call_ids)
        if not waits:  # nothing can answer this await: let the sandbox say so
          step, argument = snapshot.resume, ({},)
          continue
        return self._waiting(snapshot, cell, waits)

      is_lookup = isinstance(snapshot, monty.NameLookupSnapshot)
      name = snapshot.variable_name if is_lookup else snapshot.function_name
      if name == FINISH and not is_lookup and not snapshot.is_os_function:
        return self._finished(snapshot, cell)
      cell.host_calls += 1
      if cell.host_calls > limits.host_calls + 16:  # the cell swallows the error it gets below
        return self._result("dead", cell, error=f"RuntimeError: more than {limits.host_calls} calls in one cell")
      if is_lookup:
        known = name == FINISH or name in names
        step = functools.partial(snapshot.resume, value=self._function(name)) if known else snapshot.resume
        argument = ()
      elif snapshot.is_os_function:
        step, argument = snapshot.resume_not_handled, ()
      else:
        step, argument = snapshot.resume, (self._answer(cell, snapshot, name, names, call),)
        if self._flooded(cell):
          return self._flood(cell)

  def _answer(self, cell: _Cell, snapshot: Any, name: str, names: frozenset[str], call: Call) -> dict[str, Any]:
    """What a called function answers to the sandbox."""
    limits = self.limits
    if name not in names:
      return {"exc_type": "NameError", "message": f"name {name!r} is not defined"}
    if cell.host_calls > limits.host_calls:
      return {"exc_type": "RuntimeError", "message": f"more than {limits.host_calls} calls in one cell"}
    args, kwargs = snapshot.args, snapshot.kwargs
    args = plain(args, limits.value_chars) if args else ()
    kwargs = plain(kwargs, limits.value_chars) if kwargs else {}
    if name == LAUNCH:
      call_id = snapshot.call_id
      cell.pending[call_id] = Launch(cell.launch_calls, args, kwargs, call_id)
      cell.launch_calls += 1
      return {"future": ...}
    answer = call(name, args, kwargs)
    if isinstance(answer, Show):
      self._show(cell, answer if answer.endswith("\n") else answer + "\n")
      answer = None
    return {"return_value": plain(answer)}

  def _function(self, name: str) -> Callable:
    """What a name is bound to that is read without a call: only its name crosses."""
    if name not in self._functions:
      function = lambda *args, **kwargs: None
      function.__name__ = name
      self._functions[name] = function
    return self._functions[name]

  def _result(self, status: str, cell: _Cell, **fields) -> CellResult:
    launches = tuple(cell.pending[call_id] for call_id in sorted(cell.pending))
    return CellResult(status=status, stdout=cell.stdout, launches=launches, launch_calls=cell.launch_calls, **fields)

  def _ended(self, session: monty.MontySession, cell: _Cell, **fields) -> CellResult:
    try:
      return self._result("ended", cell, state=_State(session.dump()), **fields)
    except monty.MontyRuntimeError:  # the heap leaves no room for its dump
      return self._out_of_memory(cell)

  def _waiting(self, snapshot: monty.FutureSnapshot, cell: _Cell, waits: set[int]) -> CellResult:
    if waits != cell.pending.keys():  # never seen
      return self._result("dead", cell, error="RuntimeError: the sandbox forgot a launch")
    cell.pending = {call_id: cell.pending[call_id] for call_id in sorted(waits)}
    try:
      return self._result("waiting", cell, state=_State(snapshot.dump(), cell=cell))
    except monty.MontyRuntimeError:
      return self._out_of_memory(cell)

  def _finished(self, snapshot: monty.FunctionSnapshot, cell: _Cell) -> CellResult:
    # The session is dropped here, at the call: no code of the cell runs after it, nothing can catch it.
    given = snapshot.args[:1] or tuple(snapshot.kwargs.values())[:1]
    message = plain(given[0], self.limits.value_chars) if given else None
    return self._result("finished", cell, finish="" if message is None else message)

  def _out_of_memory(self, cell: _Cell) -> CellResult:
    return self._result("dead", cell, error=f"MemoryError: more than {self.limits.memory_bytes >> 20} MB in use")

  def _flood(self, cell: _Cell) -> CellResult:
    error = f"MemoryError: printed more than {self.limits.flood_chars} characters"
    return self._result("dead", cell, error=error)

  def _failed(self, session: monty.MontySession, cell: _Cell, error: monty.MontyError) -> CellResult:
    """An exception that the cell did not catch, or a limit that it cannot catch."""
    kind = error.display("type-msg").partition(":")[0]
    if kind == "MemoryError":
      return self._out_of_memory(cell)
    # A cell may raise a TimeoutError of its own: only one that took the time counts.
    if kind == "TimeoutError" and cell.seconds > 0.9 * self.limits.cell_seconds:
      error = f"TimeoutError: the cell ran longer than {self.limits.cell_seconds:g} s"
      return self._result("dead", cell, error=error, timed_out=True)
    return self._ended(session, cell, error=_explain(error, self.limits))
