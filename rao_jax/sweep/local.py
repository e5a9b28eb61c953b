"""The points of a sweep on this machine, some side by side. Impure: starts training commands and watches them.

They are processes of their own and go on if this one dies. Begun again, it tells them by the locks of their workdirs,
waits for them as for its own, and resumes those that have stopped half-way.
"""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from rao_jax.sweep.points import Point
from rao_jax.sweep.state import State, state_of
from rao_jax.workdir import LOCK, in_use

POLL = 0.5  # seconds


@dataclasses.dataclass
class Started:
  """A point that this process has started."""

  point: Point
  process: subprocess.Popen
  cores: list[int]


def lanes(slots: int, cores: Sequence[int]) -> list[list[int]]:
  """The machine's cores dealt out to the slots; a ValueError if there are not enough."""
  if slots > len(cores):
    raise ValueError(
      f"--slots={slots}: this process may use {len(cores)} core(s), and each run takes one of its own: set it to "
      f"{len(cores)} or less"
    )
  return [list(cores[i::slots]) for i in range(slots)]


def default_backend() -> str:
  """JAX's, asked in another process: this one must not take hold of an accelerator."""
  command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
  return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def command_of(experiment: str, point: Point, workdir: str) -> list[str]:
  """The words of a point's training."""
  return [f"--config={experiment}", f"--workdir={workdir}", *point.words()]


class LocalSweep:
  """Runs what is not done of some points.

  Args:
    experiment: `FILE` or `FILE:ARGUMENT`.
    points: of it.
    folder: has a workdir and a log for each.
    slots: runs side by side.
    say: takes a line for the terminal.
    changed: called when a point has ended.
  """

  def __init__(
    self, experiment: str, points: Sequence[Point], folder: pathlib.Path, slots: int, say: Callable[[str], None],
    changed: Callable[[], None],
  ):  # fmt: skip
    self._experiment, self._folder, self._say, self._changed = experiment, folder, say, changed
    if slots > 1 and os.environ.get("JAX_PLATFORMS") != "cpu" and (backend := default_backend()) != "cpu":
      raise ValueError(
        f"--slots={slots}: runs side by side would share this machine's {backend}: set it to 1, or JAX_PLATFORMS=cpu"
      )
    self._lanes = lanes(slots, sorted(os.sched_getaffinity(0)))
    self._waiting = [point for point in points if state_of(point, folder) in (State.NEW, State.BEGUN)]
    self._watched = [point for point in points if state_of(point, folder) is State.RUNNING]  # started by another
    self._own: list[Started] = []
    self.failed: list[Point] = []
    self._ending = False

  def run(self) -> None:
    """Works until no point is left; SIGTERM and Ctrl-C end the runs at their next checkpoint."""
    for point in self._watched:
      self._say(f"{point.name} is running already  ({point.label})")
    old = {one: signal.signal(one, self._end) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
      while self._own or (not self._ending and (self._waiting or self._watched)):
        self._settle()
        while self._waiting and not self._ending and len(self._own) + len(self._watched) < len(self._lanes):
          self._start(self._waiting.pop(0))
        time.sleep(POLL)
    finally:
      for one, handler in old.items():
        signal.signal(one, handler)

  @property
  def unfinished(self) -> list[Point]:
    """Points that a sweep that was ended has left."""
    return [*(started.point for started in self._own), *self._watched, *self._waiting]

  def _start(self, point: Point) -> None:
    cores = self._free_lane()
    resumed = (self._folder / point.name / "config.json").exists()
    command = command_of(self._experiment, point, str(self._folder / point.name))
    with (self._folder / f"{point.name}.log").open("ab") as log:
      process = subprocess.Popen(
        [sys.executable, "-m", "rao_jax.train", "--quiet", *command], stdin=subprocess.DEVNULL, stdout=log,
        stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
      )  # fmt: skip
    self._own.append(Started(point, process, cores))
    self._say(f"{point.name} {'goes on' if resumed else 'begins'}  ({point.label})")

  def _free_lane(self) -> list[int]:
    """The lane that the fewest runs are in, those of others included."""
    taken = [started.cores for started in self._own] + [self._cores_of(point) for point in self._watched]
    return min(self._lanes, key=lambda lane: sum(cores == lane for cores in taken))

  def _cores_of(self, point: Point) -> list[int]:
    """The cores of a run that another process has started; none if it does not tell."""
    try:
      holder = (self._folder / point.name / LOCK).read_text()  # "process 123 on host"
      return sorted(os.sched_getaffinity(int(holder.split()[1])))
    except (OSError, ValueError, IndexError):
      return []

  def _settle(self) -> None:
    """Looks who has ended."""
    for started in [one for one in self._own if one.process.poll() is not None]:
      self._own.remove(started)
      self._ended(started.point, started.process.returncode)
    for point in [one for one in self._watched if not in_use(self._folder / one.name)]:
      self._watched.remove(point)
      if state_of(point, self._folder) is State.DONE:
        self._done(point)
      else:
        self._waiting.insert(0, point)

  def _ended(self, point: Point, code: int) -> None:
    if state_of(point, self._folder) is State.DONE:
      self._done(point)
    elif in_use(self._folder / point.name):  # it was refused: another one is at work there after all
      self._watched.append(point)
    elif self._ending:
      self._waiting.append(point)
    else:
      self.failed.append(point)
      log = self._folder / f"{point.name}.log"
      tail = "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-5:])
      self._say(f"{point.name} did not come to its end (exit {code}); the end of {log}:\n{tail}")
      self._changed()

  def _done(self, point: Point) -> None:
    self._say(f"{point.name} is done")
    self._changed()

  def _end(self, *_) -> None:
    if self._ending:
      raise KeyboardInterrupt
    self._ending = True
    self._say("ending the runs at their next checkpoint; the same command goes on")
    for started in self._own:
      started.process.terminate()
