"""A run that is killed, or asked to end, and then started again ends where the uninterrupted one ends."""

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from rao_jax.build import make_run
from rao_jax.checkpoint import DIGESTS, Checkpointer
from rao_jax.metrics import read_metrics
from tests.branches import get_config

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 12
# What a function of the main thread means, the first that is found.
PHASES = {
  "warmstart.py:clone": "cloning",
  "warm_start.py:warm_start": "warm start",
  "train.py:evaluate": "evaluation",
  "collect.py:collect": "rollout",
  "train.py:update": "update",
}
# Runs the training command and, on SIGUSR1, adds a line to a file: the functions that its main thread is in.
DRIVER = """
import os, runpy, signal, sys, traceback
stacks = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT)
say = lambda names: os.write(stacks, " ".join([*names, "\\n"]).encode())  # at once: signals may come in between
name = lambda code: f"{os.path.basename(code.co_filename)}:{code.co_name}"
signal.signal(signal.SIGUSR1, lambda _, frame: say(name(f.f_code) for f, _ in traceback.walk_stack(frame)))
say(["ready"])
runpy.run_module("rao_jax.train", run_name="__main__", alter_sys=True)
"""


class Running:
  """The training command."""

  def __init__(self, workdir, *words):
    self.workdir = workdir
    self._stacks = workdir.parent / f"{workdir.name}.stacks"
    self._stacks.unlink(missing_ok=True)
    self._left = None  # unfinished checkpoints that a kill has left: they stay until their step is saved again
    command = [
      sys.executable, "-c", DRIVER, str(self._stacks), "--config=tests/branches.py:", f"--workdir={workdir}", "--quiet",
      f"--config.compile_cache={workdir.parent / 'cache'}", f"--config.steps={STEPS}", "--config.evaluation.every=3",
      "--config.checkpoint.every=2", *words,
    ]  # fmt: skip
    env = os.environ | {
      "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0",
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }  # fmt: skip
    self._output = workdir.parent / f"{workdir.name}.output"
    with self._output.open("w") as output:
      self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)

  def wait(self):
    """(exit code, output)"""
    return self.process.wait(240), self._output.read_text()

  def phase(self):
    """What it is at."""
    if self._left is None and re.search("going on from|warm start: ", self._output.read_text()):
      self._left = self._unfinished()
    if self._left is not None and self._unfinished() - self._left:
      return "checkpoint"
    at = self._stacks.stat().st_size
    self.process.send_signal(signal.SIGUSR1)
    while self._stacks.stat().st_size == at and self.process.poll() is None:  # until it is back from a program
      time.sleep(0.002)
    functions = self._stacks.read_text()[at:].split()
    return next((phase for name, phase in PHASES.items() if name in functions), "start")

  def strike(self, number, phase, step):
    """Sends the signal once it is in `phase` of a step after `step`; returns what it was at then."""
    until = time.monotonic() + 90
    waiting = lambda: self.process.poll() is None and time.monotonic() < until
    while waiting() and not (self._stacks.exists() and self._stacks.stat().st_size and self._step() >= step):
      time.sleep(0.02)
    now = None
    while waiting() and now != phase:
      now = self.phase()
    assert waiting(), f"it was not struck in {phase}:\n{self.wait()[1]}"
    self.process.send_signal(number)
    return now

  def _unfinished(self):
    """Checkpoints that are being written, by name and inode."""
    folder = self.workdir / "checkpoints"
    found = os.scandir(folder) if folder.exists() else ()
    return {(entry.name, entry.inode()) for entry in found if "-tmp" in entry.name}

  def _step(self):
    return max((row["step"] for row in read_metrics(self.workdir / "metrics.jsonl")), default=-1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """The workdir of a run that nothing interrupted."""
  workdir = tmp_path_factory.mktemp("resume") / "whole"
  code, output = Running(workdir).wait()
  assert code == 0, output
  return workdir


def assert_same_run(workdir, other):
  """Equal bit for bit: metrics but for clocks, trees, parameters, optimiser state, counters."""
  rows, others = (
    [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(w / "metrics.jsonl")]
    for w in (workdir, other)
  )
  assert rows == others
  for dumped in (other / "trees").iterdir():
    assert (workdir / "trees" / dumped.name).read_text() == dumped.read_text()
  (step, state, meta), (other_step, other_state, other_meta) = state_of(workdir), state_of(other)
  assert step == other_step == STEPS
  jax.tree.map(np.testing.assert_array_equal, state, other_state)
  assert {**meta, "seconds": 0} == {**other_meta, "seconds": 0}


def state_of(workdir):
  run = make_run(get_config("data=1,fsdp=4,tensor=2"), workdir)
  try:
    with Checkpointer(workdir / "checkpoints") as checkpoints:
      step, state, meta = checkpoints.restore(run.abstract_state())
  finally:
    run.close()
  return step, jax.device_get(state), meta


def killed_and_resumed(workdir, strikes):
  """Strikes (signal, phase, step) one after another, then lets the run go to its end; returns phases struck."""
  struck, left = [], ""
  for number, phase, step in strikes:
    running = Running(workdir)
    struck.append(running.strike(number, phase, step))
    code, output = running.wait()
    assert code == (0 if number == signal.SIGTERM else -number), output
    assert left in output, output
    left = ""
    if (number, phase) == (TERM, "cloning"):
      saved = re.search(r"the warm start is saved as far as it came, (\d+) tokens: the same command", output)
      left = f"going on with the warm start, {saved[1]} of "
    if number == signal.SIGTERM and step >= 0:
      saved = re.search(r"stopped: asked to end by SIGTERM\nthe state of step (\d+) is saved below", output)
      assert saved and (workdir / "checkpoints" / saved[1] / DIGESTS).exists(), output
      assert max(row["step"] for row in read_metrics(workdir / "metrics.jsonl")) == int(saved[1])
    assert "Traceback" not in output
  code, output = Running(workdir, "--resume").wait()
  assert code == 0 and "going on from the checkpoint of step" in output, output
  return struck


KILL, TERM = signal.SIGKILL, signal.SIGTERM


def test_a_run_killed_at_any_moment_ends_bit_for_bit_where_the_uninterrupted_run_ends(whole):
  workdir = whole.parent / "few"
  strikes = [(TERM, "cloning", -1), (KILL, "rollout", 1), (TERM, "evaluation", 3), (KILL, "checkpoint", 5)]
  strikes += [(KILL, "update", 9)]
  struck = killed_and_resumed(workdir, strikes)
  assert struck == [phase for _, phase, _ in strikes]
  assert_same_run(workdir, whole)


@pytest.mark.full
def test_a_run_killed_twenty_times_ends_bit_for_bit_where_the_uninterrupted_run_ends(whole):
  rng, workdir = random.Random(7), whole.parent / "many"
  signals = [KILL] * 20 + [TERM] * 3
  phases = ["rollout", "update", "checkpoint", "evaluation"] * 5 + ["rollout", "update", "evaluation"]
  steps = sorted(rng.choices(range(STEPS - 3), k=len(phases)))
  strikes = [(KILL, "start", -1), (KILL, "warm start", -1), (TERM, "cloning", -1), (KILL, "cloning", -1)]
  strikes += [(KILL, "evaluation", -1)]
  strikes += [(*which, step) for which, step in zip(rng.sample(list(zip(signals, phases)), len(phases)), steps)]
  struck = killed_and_resumed(workdir, strikes)
  assert struck == [phase for _, phase, _ in strikes]
  assert_same_run(workdir, whole)
