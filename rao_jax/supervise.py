"""Keeps the processes of a run alive on one host: when one dies the rest are ended, and all start again. Impure.

python -m rao_jax.supervise [--processes=N] [--restarts=3] -- python -m rao_jax.train --config=... --workdir=DIR

A run goes on from the last good checkpoint of its workdir, so starting again is all there is to do, unless its words or
settings cannot work (exit code 2). With several processes each gets `--distributed --coordinator=... --num_processes=N
--process_id=i`. On several hosts a supervisor runs on each (the scripts of launch/ see to it): JAX aborts the processes
whose peer is gone, and all hosts start again.
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from absl import app, flags

from rao_jax.command import REFUSED

POLL = 0.2  # seconds


class Supervisor:
  """Runs a command as one or several processes until all end well.

  Args:
    command: with a --workdir=DIR, below whose checkpoints/ progress is seen.
    processes: on this host; above 1 each is told its place by flags.
    restarts: in a row without a new checkpoint, after which it gives up.
    pause: seconds before a restart, doubled each time without progress.
    grace: seconds from SIGTERM to SIGKILL.
  """

  def __init__(self, command: Sequence[str], processes: int, restarts: int, pause: float, grace: float = 30.0):
    self.command, self.processes, self.restarts = list(command), processes, restarts
    self.pause, self.grace = pause, grace
    self.folder = checkpoint_folder(command)
    self._signal = 0

  def run(self) -> int:
    """The exit code of the run: 0, the code of the process that died first, or 128 + the signal that ended it."""
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self._stop)
    in_vain = 0
    while True:
      before = last_step(self.folder)
      code = self._attempt()
      if code in (0, REFUSED) or self._signal:  # done, or its words or settings cannot work
        return code
      after = last_step(self.folder)
      in_vain = in_vain + 1 if after == before else 1
      if in_vain > self.restarts:
        say(f"gave up: {in_vain} times in a row a process died before a checkpoint after step {after} was saved")
        return code
      seconds = self.pause * 2 ** (in_vain - 1)
      say(
        f"a process ended with {code}; starting again from step {after} in {seconds:.0f} s ({in_vain}/{self.restarts})"
      )
      self._wait(seconds)
      if self._signal:
        return 128 + self._signal

  def _stop(self, number: int, _) -> None:
    self._signal = number

  def _attempt(self) -> int:
    """Starts all, waits until all have ended or one has died, which ends the rest."""
    running = [subprocess.Popen(words, start_new_session=True) for words in self._commands()]
    ended: list[int] = []
    while running and not self._signal and not any(ended):
      time.sleep(POLL)
      ended += [code for code in (process.poll() for process in running) if code is not None]
      running = [process for process in running if process.returncode is None]
    if running:
      end(running, self._signal or signal.SIGTERM, self.grace)
    if self._signal:
      return 128 + self._signal
    bad = next((code for code in ended if code), 0)
    return 128 - bad if bad < 0 else bad

  def _commands(self) -> list[list[str]]:
    if self.processes == 1:
      return [self.command]
    with socket.socket() as s:
      s.bind(("127.0.0.1", 0))
      port = s.getsockname()[1]
    places = ["--distributed", f"--coordinator=127.0.0.1:{port}", f"--num_processes={self.processes}"]
    return [[*self.command, *places, f"--process_id={i}"] for i in range(self.processes)]

  def _wait(self, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not self._signal:
      time.sleep(min(POLL, seconds))


def end(processes: Sequence[subprocess.Popen], number: int, grace: float) -> None:
  """Sends the signal to processes and to all that they have started; SIGKILL after `grace` seconds."""
  until = time.monotonic() + grace
  for process in processes:
    _signal_group(process, number)
  for process in processes:
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(max(until - time.monotonic(), 0))
    _signal_group(process, signal.SIGKILL)  # what it has started may still be there
    process.wait()


def _signal_group(process: subprocess.Popen, number: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, number)


def checkpoint_folder(command: Sequence[str]) -> pathlib.Path:
  """Where the command's checkpoints are; ValueError if it names no workdir."""
  for word, following in zip(command, [*command[1:], ""]):
    if word.startswith("--workdir="):
      return pathlib.Path(word.partition("=")[2]) / "checkpoints"
    if word == "--workdir" and following:
      return pathlib.Path(following) / "checkpoints"
  raise ValueError(f"no --workdir=DIR in {' '.join(command)!r}: progress is seen by its checkpoints")


def last_step(folder: pathlib.Path) -> int:
  """The newest checkpoint that is whole, -1 if there is none."""
  if not folder.exists():
    return -1
  return max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=-1)


def say(line: str) -> None:
  print(f"supervise: {line}", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> None:
  f = flags.FLAGS
  if len(argv) < 2 or f.processes < 1 or f.restarts < 0:
    raise app.UsageError("it reads: python -m rao_jax.supervise [--processes=N] [--restarts=N] [--pause=S] -- COMMAND")
  try:
    supervisor = Supervisor(argv[1:], f.processes, f.restarts, f.pause)
  except ValueError as e:
    raise app.UsageError(str(e)) from e
  sys.exit(supervisor.run())


if __name__ == "__main__":
  flags.DEFINE_integer("processes", 1, "Processes on this host.")
  flags.DEFINE_integer("restarts", 3, "Restarts in a row without a new checkpoint before it gives up.")
  flags.DEFINE_float("pause", 5.0, "Seconds before a restart, doubled each time without progress.")
  app.run(main)
