"""A long training run with random faults: does anything grow? Prints what it found and ends with 1 if something does.

  python -m tests.soak --workdir=runs/soak --minutes=60      (then docs/figures.py draws docs/soak.svg from its samples)

The demo's recursive agent is trained, evaluated and saved without a pause, in one process. Meanwhile worlds raise,
cells are exchanged for those of the hostile corpus, the sandbox's processes are killed, and updates turn NaN. Watched
from a thread: resident memory, open files, threads, processes below this one and their memory, programs compiled.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import statistics
import threading
import time

import jax

import rao_jax.build
import rao_jax.train
from experiments import demo
from rao_jax.envs.textcraft import factory
from rao_jax.learn.step import Learner
from rao_jax.metrics import read_metrics
from rao_jax.rollout.collect import collect
from rao_jax.rollout.guard import GuardedInterpreter
from tests.rollout.hostile import CELLS
from tests.rollout.sandboxed import family

COMPILED = "/jax/core/compile/backend_compile_duration"
RAISES, HOSTILE, NAN = 0.002, 0.01, 0.05  # chances: an agent's end, a cell, an update
KILL_SECONDS = 20.0  # between two kills of a process of the sandbox, on average
OUTSIDE = {"FILE": "/etc/hostname", "FOLDER": "/etc", "VARIABLE": "HOME", "ADDRESS": "127.0.0.1", "PORT": "9"}
# What may still be added after the warm-up, which is the first third: to what was there at its end.
SLACK = {"rss_mb": 1.03, "open_files": 1.0, "threads": 1.0, "processes": 1.0, "compiled": 1.0}

faults = {"world_raised": 0, "hostile_cells": 0, "nan_updates": 0, "sandbox_killed": 0}
chance = random.Random(0)
begun = threading.Event()  # with the first rollout; a demonstration that fails would rightly stop the run


def strikes(kind: str, probability: float) -> bool:
  """Whether this fault happens now; counts it."""
  struck = begun.is_set() and chance.random() < probability
  faults[kind] += struck
  return struck


class FaultyEpisode:
  """An episode whose end raises now and then."""

  def __init__(self, episode):
    self._episode = episode

  def __getattr__(self, name):
    return getattr(self._episode, name)

  def end(self, path, message):
    if strikes("world_raised", RAISES):
      raise OSError("a bug of the world")
    return self._episode.end(path, message)


def make_world(**options):
  """`config.environment.name=tests.soak:make_world`: TextCraft-Synth, in episodes that raise now and then."""
  world = factory.make(**options)
  start = world.start
  world.start = lambda task: FaultyEpisode(start(task))
  return world


class HostileInterpreter(GuardedInterpreter):
  """The sandbox, in which some cells are not what the agent wrote."""

  def run(self, state, code, names, call):
    if strikes("hostile_cells", HOSTILE):
      code = chance.choice(list(CELLS.values()))[0]
      for name, value in OUTSIDE.items():
        code = code.replace(name, value)
    return super().run(state, code, names, call)


class FaultyLearner(Learner):
  """A learner some of whose updates are not finite."""

  def update(self, state, parts, scales, reference=None):
    if strikes("nan_updates", NAN):
      scales = (float("nan"), float("nan"))
    return super().update(state, parts, scales, reference)


def begin_and_collect(*args, **kwargs):
  begun.set()
  return collect(*args, **kwargs)


def resident_mb(pid: int | str) -> float:
  """Resident memory of a process in MiB, 0 if it has ended."""
  try:
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
  except OSError:
    return 0.0


class Watch(threading.Thread):
  """Samples what the process holds, and kills the sandbox's processes.

  Args:
    path: gets a line of JSON a sample.
    seconds: between samples.
  """

  def __init__(self, path: pathlib.Path, seconds: float):
    super().__init__(daemon=True)
    self.samples, self._path, self._seconds = [], path, seconds
    self._over, self._compiled, self._began = threading.Event(), 0, time.monotonic()
    jax.monitoring.register_event_duration_secs_listener(self._count)

  def _count(self, event: str, _: float, **__) -> None:
    self._compiled += event == COMPILED

  def run(self):
    mine = random.Random(1)
    while not self._over.wait(self._seconds):
      below = family()
      self.samples.append({
        "seconds": round(time.monotonic() - self._began, 1),
        "rss_mb": round(resident_mb("self"), 1),
        "below_mb": round(sum(map(resident_mb, below)), 1),
        "open_files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "processes": len(below),
        "compiled": self._compiled,
        **faults,
      })  # fmt: skip
      with self._path.open("a") as file:
        file.write(json.dumps(self.samples[-1]) + "\n")
      if begun.is_set() and below and mine.random() < self._seconds / KILL_SECONDS:
        try:
          os.kill(mine.choice(sorted(below)), signal.SIGKILL)
        except ProcessLookupError:
          continue
        faults["sandbox_killed"] += 1

  def stop(self) -> list[dict[str, float]]:
    self._over.set()
    self.join()
    jax.monitoring.unregister_event_duration_listener(self._count)
    return self.samples


def grown(samples: list[dict[str, float]]) -> dict[str, str]:
  """What holds more in the last third than in the second, by medians, allowing for SLACK: name -> both figures.

  A save under way holds files and threads for a moment. Programs are counted, so there it is the most that counts.
  """
  third = len(samples) // 3
  out = {}
  for name, slack in SLACK.items():
    middle = max if name == "compiled" else statistics.median
    before, after = (middle([sample[name] for sample in part]) for part in (samples[third:-third], samples[-third:]))
    if after > before * slack:
      out[name] = f"{before} in the second third, {after} in the last"
  return out


def config(minutes: float):
  """The demo's recursive agent, with rollouts, evaluations and saves in quick turns."""
  c = demo.get_config("recursive")
  c.environment.name = "tests.soak:make_world"
  c.tasks.train, c.tasks.dev = dict(train_easy=1, train_medium=3), dict(dev_easy=5, dev_medium=5)
  c.steps, c.sampled_tokens, c.max_seconds = 100_000, 0, 60 * minutes
  c.evaluation.every, c.checkpoint.every, c.learn.max_skipped = 5, 5, 100
  c.sandbox.cell_seconds = 0.5
  return c


def soak(workdir: pathlib.Path, minutes: float, quiet: bool) -> dict:
  """Trains for so long and says what happened."""
  workdir.mkdir(parents=True, exist_ok=True)
  rao_jax.build.GuardedInterpreter, rao_jax.build.Learner = HostileInterpreter, FaultyLearner
  rao_jax.train.collect = begin_and_collect
  watch = Watch(workdir / "samples.jsonl", min(5.0, minutes))
  watch.start()
  try:
    summary = rao_jax.train.train(config(minutes), workdir, quiet=quiet)
  finally:
    samples = watch.stop()
  rows = [row for row in read_metrics(workdir / "metrics.jsonl") if "funnel/trees_started" in row]
  samples = [sample for sample in samples if sample["seconds"] > samples[-1]["seconds"] - 60 * minutes]  # of RL
  return {
    "minutes": minutes,
    "steps": summary["steps"],
    "trees": sum(row["funnel/trees_started"] for row in rows),
    "trees_dropped": sum(row["funnel/trees_dropped_fault"] for row in rows),
    "updates_skipped": sum(row.get("train/updates_skipped", 0) for row in rows),
    "faults": faults,
    "at_the_end": {name: samples[-1][name] for name in (*SLACK, "below_mb")},
    "grown": grown(samples),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True, help="fresh; gets the run, and samples.jsonl")
  parser.add_argument("--minutes", type=float, default=60.0)
  parser.add_argument("--quiet", action="store_true", help="plain lines in place of progress bars")
  args = parser.parse_args()
  result = soak(args.workdir, args.minutes, args.quiet)
  (args.workdir / "soak.json").write_text(json.dumps(result, indent=1))
  print(json.dumps(result, indent=1))
  raise SystemExit(bool(result["grown"]))


if __name__ == "__main__":
  from tests import soak as module  # not __main__, of which the world's module would be a copy

  module.main()
