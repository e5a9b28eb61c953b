"""What the benchmarks share: sides that take turns in one run, medians, a table, and the JSON line at the end."""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from rao_jax.heap import keep_memory

PACKAGES = ("jax", "jaxlib", "rao-jax", "google-tunix", "torch", "transformers")


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, list[float]]:
  """Seconds of every side in every round; a first call that compiles is not counted.

  The sides take turns, beginning with another one each round, so what slows the machine for a while hits all of them.

  Args:
    sides: what to run, by name; a call returns when its work is done.
    rounds: at least 5.
  """
  if rounds < 5:
    raise ValueError(f"a median of {rounds} rounds says little: use 5 or more")
  names, seconds = list(sides), {name: [] for name in sides}
  for side in sides.values():
    side()
  for turn in range(rounds):
    at = turn % len(names)
    for name in names[at:] + names[:at]:
      began = time.perf_counter()
      sides[name]()
      seconds[name].append(time.perf_counter() - began)
  return seconds


class Apart:
  """A side in a process of its own, which waits idle for its turn; the peers keep the process they are made for.

  Args:
    words: `-m module ...`, a command that calls `serve`.
    devices: among which the cores are shared out; 1 is what a run has unless told otherwise.
  """

  def __init__(self, *words: str, devices: int):
    env = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    self._process = subprocess.Popen(
      [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    self._words = words
    self._wait()

  def _wait(self) -> None:
    if not self._process.stdout.readline():
      raise RuntimeError(f"{' '.join(self._words)} ended")

  def __call__(self) -> None:
    self._process.stdin.write("\n")
    self._process.stdin.flush()
    self._wait()


def serve(make: Callable[[], Callable[[], object]]) -> None:
  """Makes a side in a process set up as a run's is; runs it once, and for every line of the standard input.

  Prints a line whenever it has run. Peers must not be imported there: `keep_memory` comes too late for the heaps of
  their threads, which those of the devices would then share.
  """
  keep_memory()
  side = make()
  side()
  print("ready", flush=True)
  for _ in sys.stdin:
    side()
    print("done", flush=True)


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
  return {name: statistics.median(values) for name, values in seconds.items()}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
  """A Markdown table: the first column to the left, numbers with three digits that count."""
  print("| " + " | ".join(columns) + " |\n|---|" + "--:|" * (len(columns) - 1))
  for row in rows:
    print("| " + " | ".join(f"{x:,.4g}" if isinstance(x, float) else str(x) for x in row) + " |", flush=True)


class Summary:
  """The last line of a benchmark: one JSON object.

  Attributes:
    ratios: ours over the peer's, by name; above 1 is in our favour.
    targets_met: by name.
    medians: what the ratios were made of, by name.
  """

  def __init__(self):
    self.ratios: dict[str, float] = {}
    self.targets_met: dict[str, bool] = {}
    self.medians: dict[str, float] = {}
    self._load = [os.getloadavg()[0]]

  def ratio(self, name: str, value: float, target: float | None = None) -> None:
    """Notes a ratio, and whether it is at least the target, if there is one."""
    self.ratios[name] = round(value, 4)
    if target is not None:
      self.targets_met[name] = bool(value >= target)

  def print(self) -> None:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
      try:
        versions[name] = importlib.metadata.version(name)
      except importlib.metadata.PackageNotFoundError:
        continue
    load = [round(x, 2) for x in (*self._load, os.getloadavg()[0])]
    print(f"\nload average of the last minute {load[0]} at the start, {load[1]} at the end; {os.cpu_count()} cores")
    line = dict(
      ratios=self.ratios, targets_met=self.targets_met, medians={k: round(v, 5) for k, v in self.medians.items()},
      load=load, versions=versions, date=time.strftime("%Y-%m-%d"),
    )  # fmt: skip
    print(json.dumps(line))
