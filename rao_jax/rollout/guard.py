"""Impure: the sandbox in a process of its own, so that nothing a cell hands out can hang or crash the trainer.

A worker's limits end where its values become Python objects. A tuple that holds another one twice, that one again, and
so on for forty levels is small, but as the key of a dict it takes the host hours to hash, in C, where no signal is
heard. So that is done in a process that can be killed. It has none of the trainer's environment variables either.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from rao_jax.envs.base import Show
from rao_jax.rollout.interpreter import Call, CellResult, Limits, MontyInterpreter
from rao_jax.rollout.values import plain

START_SECONDS = 60.0
PARENT_DEATH_SIGNAL = 1  # of prctl(2)
KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")  # of the environment: enough to start Python and the worker


class GuardedInterpreter:
  """`Interpreter` that runs a `MontyInterpreter` in another process. For one thread.

  When that process dies, or is silent for longer than its own limits allow, it is replaced and the cell is dead; the
  states of other nodes are plain data and go on.

  Args:
    limits: of every cell.
    seed: of the sandbox's `random`.
    grace: seconds beyond a cell's clock after which a worker that does not answer is ended.
  """

  def __init__(self, limits: Limits | None = None, seed: int = 0, grace: float = 5.0):
    self.limits = limits or Limits()
    self._seed, self._grace = seed, grace
    self._start()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()

  def run(self, state: Any, code: str, names: frozenset[str], call: Call) -> CellResult:
    """See `Interpreter`."""
    return self._ask(("run", state, code, names), call)

  def resume(
    self, state: Any, answers: Sequence[Any] | Mapping[int, Any], names: frozenset[str], call: Call
  ) -> CellResult:
    """See `Interpreter`."""
    answers = dict(answers) if isinstance(answers, Mapping) else list(answers)
    return self._ask(("resume", state, plain(answers), names), call)

  def discard(self, state: Any) -> None:
    """See `Interpreter`. A state is a dump: it holds nothing."""

  def close(self) -> None:
    """See `Interpreter`."""
    if self._process is None:
      return
    self._pipe.close()  # the process ends when it reads that
    try:
      self._process.wait(self._grace)
    except subprocess.TimeoutExpired:
      self._kill()
    self._process = None

  def _start(self) -> None:
    self._pipe, theirs = multiprocessing.Pipe()
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    self._process = subprocess.Popen(
      [sys.executable, "-c", f"from rao_jax.rollout import guard; guard.serve({theirs.fileno()})"],
      pass_fds=[theirs.fileno()],
      stdin=subprocess.DEVNULL,
      env={**kept, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
    )
    theirs.close()
    if self._exchange((self.limits, self._seed, self._grace), START_SECONDS) != ("ready", None):
      self._kill()
      raise RuntimeError(f"the sandbox's process did not start: {sys.executable} ended with {self._process.returncode}")

  def _kill(self) -> None:
    self._process.kill()
    self._process.wait()

  def _replace(self) -> None:
    self._pipe.close()
    self._kill()
    self._start()

  def _ask(self, request: tuple, call: Call) -> CellResult:
    """Has a cell run, and answers what it calls."""
    # A worker that hangs is ended after the clock and `grace`: who is silent for longer hangs itself.
    patience = self.limits.cell_seconds + 1.5 * self._grace
    kind, content = self._exchange(request, patience)
    if kind == "died":  # perhaps long ago, and nothing of this cell has reached the world: once more
      self._replace()
      kind, content = self._exchange(request, patience)
    while kind == "call":
      kind, content = self._exchange(self._called(call, *content), patience)
    if kind == "error":
      raise content
    if kind == "result":
      return content
    self._replace()
    return CellResult("dead", error="RuntimeError: the sandbox was lost", timed_out=True)

  def _exchange(self, message: Any, patience: float) -> tuple[str, Any]:
    """Sends a message and waits for what the process has to say, some seconds at most."""
    try:
      self._pipe.send(message)
      return self._pipe.recv() if self._pipe.poll(patience) else ("silent", None)
    except (EOFError, ConnectionError):
      return "died", None

  def _called(self, call: Call, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    with contextlib.ExitStack() as failed:
      failed.callback(self._replace)  # it would wait for an answer that does not come
      answer = call(name, args, kwargs)
      failed.pop_all()
    return answer if isinstance(answer, Show) else plain(answer)


def serve(descriptor: int) -> None:
  """The life of the process: runs cells for the one at the other end of a pipe, until that is closed."""
  if sys.platform == "linux":  # or it would outlive a trainer that is killed while this one hangs
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
  for number in (signal.SIGINT, signal.SIGTERM):  # meant for the trainer, which decides when this one ends
    signal.signal(number, signal.SIG_IGN)
  pipe = Connection(descriptor)

  def call(name, args, kwargs):
    pipe.send(("call", (name, args, kwargs)))
    return pipe.recv()

  with contextlib.suppress(EOFError, ConnectionError), MontyInterpreter(*pipe.recv()) as sandbox:
    pipe.send(("ready", None))
    while True:
      kind, state, given, names = pipe.recv()
      try:
        result = getattr(sandbox, kind)(state, given, names, call)
      except (EOFError, ConnectionError):
        raise
      except ValueError as error:  # a state or answers that do not fit
        pipe.send(("error", error))
      except Exception as error:
        pipe.send(("error", RuntimeError(f"the sandbox failed: {error!r}")))
      else:
        pipe.send(("result", result))
