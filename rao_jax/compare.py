"""Trains agents of one experiment file side by side, tests them on the same unseen tasks, compares them.

Impure: starts the training and evaluation commands of this package, in lanes of one core each on a CPU.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from rao_jax.report import write_report
from rao_jax.report.data import order_difficulties, short_split

# Lines of a log that go to the terminal.
SHOWN = ("step ", "evaluation at", "warm start", "going on", "split ", "test_")
CHECKPOINTS = ("warm_start", "last")  # that are tested


@dataclasses.dataclass
class Job:
  """One command of a lane."""

  name: str
  command: list[str]
  log: pathlib.Path


class Lane:
  """Commands run one after another, on one core."""

  def __init__(self, core: int | None, jobs: Sequence[Job], position: int):
    self.core, self.jobs, self.at = core, list(jobs), -1
    self.process: subprocess.Popen | None = None
    self.bar = tqdm(
      total=1, position=position, bar_format="{desc:<58} {percentage:3.0f}%|{bar}| {elapsed}", leave=True, disable=None
    )
    self._shown = 0

  @property
  def done(self) -> bool:
    return self.at >= len(self.jobs)

  def poll(self) -> None:
    """Starts the next command when one has ended; raises with the end of its log if it failed."""
    if self.process is not None and self.process.poll() is None:
      self._show(self.jobs[self.at])
      return
    if self.process is not None:
      job = self.jobs[self.at]
      self._show(job)
      if self.process.returncode:
        tail = "\n".join(job.log.read_text().splitlines()[-20:])
        raise RuntimeError(f"{job.name} failed (exit {self.process.returncode}); the end of {job.log}:\n{tail}")
    self.at += 1
    if self.done:
      self.bar.n = 1
      self.bar.set_description_str("done")
      self.bar.close()
      return
    job = self.jobs[self.at]
    self._shown = 0
    pin = None if self.core is None else lambda: os.sched_setaffinity(0, {self.core})
    with job.log.open("w") as log:
      self.process = subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=pin)

  def _show(self, job: Job) -> None:
    """New lines of the log go to the terminal; `step 3/60` and the like move the bar."""
    lines = [line for line in job.log.read_text().splitlines() if line.startswith(SHOWN)]
    for line in lines[self._shown :]:
      tqdm.write(f"{job.name:>21} | {line}")
    self._shown = len(lines)
    part = re.search(r" (\d+)/(\d+)", lines[-1]) if lines else None
    self.bar.n = min(int(part[1]) / int(part[2]), 1) if part else 0
    self.bar.set_description_str(f"{job.name}: {lines[-1].split('  ')[0] if lines else 'starting'}"[:58])

  def stop(self) -> None:
    if self.process is not None and self.process.poll() is None:
      self.process.kill()


def run_lanes(lanes: Sequence[Lane]) -> None:
  """Works all lanes to their ends."""
  try:
    while not all(lane.done for lane in lanes):
      for lane in lanes:
        if not lane.done:
          lane.poll()
      time.sleep(0.5)
  finally:
    for lane in lanes:
      lane.stop()


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Where the agents come from and what they are tested on.

  Attributes:
    experiment: file with `get_config(agent)`.
    agents: their names.
    out: folder that gets a workdir for each.
    tests: split -> tasks; nothing but the final evaluation reads them.
    overrides: `--config.key=value` words for all trainings.
  """

  experiment: pathlib.Path
  agents: Sequence[str]
  out: pathlib.Path
  tests: Mapping[str, int]
  overrides: Sequence[str] = ()

  def train_job(self, agent: str, *overrides: str) -> Job:
    command = [
      sys.executable, "-m", "rao_jax.train", f"--config={self.experiment}:{agent}",
      f"--workdir={self.out / agent}", "--quiet", *overrides, *self.overrides,
    ]  # fmt: skip
    return Job(f"train {agent}", command, self.out / f"train_{agent}.log")

  def test_jobs(self, agent: str) -> list[Job]:
    """The final evaluation, of the warm start and of the trained agent; not again if it is there already."""
    jobs = []
    for checkpoint in CHECKPOINTS:
      splits = ",".join(f"{split}:{n}" for split, n in self.tests.items())
      command = [
        sys.executable, "-m", "rao_jax.evaluate", f"--workdir={self.out / agent}", f"--checkpoint={checkpoint}",
        f"--split={splits}", "--nosingle", "--reuse", f"--json={self.out / agent / f'test_{checkpoint}.json'}",
        f"--trees={self.out / agent / 'trees' / f'test_{checkpoint}.jsonl'}",
      ]  # fmt: skip
      jobs.append(Job(f"test {agent}", command, self.out / f"test_{agent}_{checkpoint}.log"))
    return jobs

  def run(self, lanes: Sequence[Sequence[Job]]) -> None:
    """Works the lanes side by side, each on a core of its own; one after another on an accelerator or a lone core."""
    self.out.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    # Asked in another process: this one must not take hold of an accelerator.
    backend = subprocess.run(
      [sys.executable, "-c", "import jax; print(jax.default_backend())"], capture_output=True, text=True, check=True
    )
    if len(cores) < len(lanes) or backend.stdout.split()[-1] != "cpu":
      lanes, cores = [[job for lane in lanes for job in lane]], [None]
    run_lanes([Lane(core, jobs, i) for i, (core, jobs) in enumerate(zip(cores, lanes))])

  def summary(self) -> dict[str, Any]:
    """agent -> what its tests found, by split; see `agent_summary`."""
    return {agent: self.agent_summary(agent) for agent in self.agents}

  def agent_summary(self, agent: str) -> dict[str, Any]:
    tests = {name: json.loads((self.out / agent / f"test_{name}.json").read_text()) for name in CHECKPOINTS}
    found = {
      stage: {short_split(split): r for split, r in tests[name]["splits"].items()} for name, stage in STAGES.items()
    }
    success = {stage: {split: r["success"] for split, r in by.items()} for stage, by in found.items()}
    return {
      **success,
      "intervals": {stage: {split: r["interval"] for split, r in by.items()} for stage, by in found.items()},
      "sampled_tokens": tests["last"]["sampled_tokens"],
      "warm_start_tokens": tests["last"]["warm_start_tokens"],
      "max_depth_solved": max(r["deepest_solved"] for r in found["trained"].values()),
      "nodes_per_tree": {split: r["nodes_per_tree"] for split, r in found["trained"].items()},
    }

  def report(self, summary: Mapping[str, Any]) -> None:
    """Writes summary.json and report.html, and prints the final table."""
    (self.out / "summary.json").write_text(json.dumps(summary, indent=2))
    write_report({agent: self.out / agent for agent in self.agents}, self.out / "report.html", summary)
    print("\n" + final_table({agent: summary[agent] for agent in self.agents}))
    print(f"\n{self.out / 'report.html'} and {self.out / 'summary.json'}, {summary['seconds']} s in all")


STAGES = {"warm_start": "warm_start", "last": "trained"}  # checkpoint -> its name in a summary


def final_table(agents: Mapping[str, Any]) -> str:
  """Success with its 95% interval: a row for each agent and stage, a column for each split."""
  splits = order_difficulties(next(iter(agents.values()))["trained"])
  rows = [f"{'agent':12} {'':12}" + "".join(f"{split:>24}" for split in splits)]
  for agent, s in agents.items():
    for stage in STAGES.values():
      cells = []
      for split in splits:
        low, high = s["intervals"][stage][split]
        cells.append(f"{s[stage][split]:10.3f} [{low:.3f}, {high:.3f}]")
      rows.append(f"{agent:12} {stage.replace('_', ' '):12}" + "".join(f"{c:>24}" for c in cells))
  for agent, s in agents.items():
    rows.append(
      f"{agent:12} warm start {s['warm_start_tokens']:,} tokens, RL {s['sampled_tokens']:,} sampled tokens, deepest "
      f"tree solved {s['max_depth_solved']}"
    )
  return "\n".join(rows)


def train_and_compare(comparison: Comparison) -> dict[str, Any]:
  """The first agent has a lane of its own, the others share the second."""
  started = time.time()
  first, *others = comparison.agents
  lanes = [[comparison.train_job(first), *comparison.test_jobs(first)]]
  if others:
    lanes.append([job for a in others for job in (comparison.train_job(a), *comparison.test_jobs(a))])
  comparison.run(lanes)
  summary = {**comparison.summary(), "seconds": round(time.time() - started)}
  comparison.report(summary)
  return summary
