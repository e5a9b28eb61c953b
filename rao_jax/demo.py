"""The demo: trains a recursive agent and two that may not delegate, side by side, and compares them on unseen worlds.

  python -m rao_jax.demo --out=runs/demo --seed=0

Impure: starts the training and evaluation commands of this package, one lane of them per core. The recursive agent
has one core; the single agent, then the single agent with four times the window, have the other.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from rao_jax.build import make_environment
from rao_jax.envs.textcraft.windows import share_by_window
from rao_jax.report import write_report

AGENTS = ("recursive", "single", "single_4x")
DIFFICULTIES = ("easy", "medium", "hard")
WINDOWS = (128, 192, 256, 320, 384, 512, 768, 1536)
WINDOW_TASKS = 100  # development tasks of a kind for the table of windows
SHOWN = ("step ", "evaluation at", "warm start", "going on", "test_")  # lines of a log that go to the terminal
EXPERIMENT = pathlib.Path(__file__).parents[1] / "experiments" / "demo.py"


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


def train_job(agent: str, out: pathlib.Path, seed: int, overrides: Sequence[str] = ()) -> Job:
  command = [
    sys.executable, "-m", "rao_jax.train", f"--config={EXPERIMENT}:{agent}", f"--workdir={out / agent}", "--quiet",
    f"--config.seed={seed}", f"--config.environment.options.data_dir={out / 'data'}",
    f"--config.compile_cache={out / 'compile_cache'}", *overrides,
  ]  # fmt: skip
  return Job(f"train {agent}", command, out / f"train_{agent}.log")


def test_jobs(agent: str, out: pathlib.Path, tasks: dict[str, int]) -> list[Job]:
  """The final evaluation, of the warm start and of the trained agent: the only readers of the test worlds."""
  jobs = []
  for checkpoint in ("warm_start", "last"):
    log = out / f"test_{agent}_{checkpoint}.log"
    splits = ",".join(f"test_{difficulty}:{n}" for difficulty, n in tasks.items())
    command = [
      sys.executable, "-m", "rao_jax.evaluate", f"--workdir={out / agent}", f"--checkpoint={checkpoint}",
      f"--splits={splits}", f"--json={out / agent / f'test_{checkpoint}.json'}",
      f"--trees={out / agent / 'trees' / f'test_{checkpoint}.jsonl'}",
    ]  # fmt: skip
    jobs.append(Job(f"test {agent}", command, log))
  return jobs


def agent_summary(agent: str, out: pathlib.Path) -> dict:
  """What summary.json says of one agent."""
  tests = {name: json.loads((out / agent / f"test_{name}.json").read_text()) for name in ("warm_start", "last")}
  success = {
    name: {split.removeprefix("test_"): r["success"] for split, r in t["splits"].items()} for name, t in tests.items()
  }
  intervals = {
    name: {split.removeprefix("test_"): r["interval"] for split, r in t["splits"].items()} for name, t in tests.items()
  }
  return {
    "warm_start": success["warm_start"],
    "trained": success["last"],
    "intervals": {"warm_start": intervals["warm_start"], "trained": intervals["last"]},
    "sampled_tokens": tests["last"]["sampled_tokens"],
    "warm_start_tokens": tests["last"]["warm_start_tokens"],
    "max_depth_solved": max(r["deepest_solved"] for r in tests["last"]["splits"].values()),
    "nodes_per_tree": {s.removeprefix("test_"): r["nodes_per_tree"] for s, r in tests["last"]["splits"].items()},
  }


def window_table(shares: dict[str, dict[int, float]], window: int) -> str:
  rows = [f"{'window':>8}" + "".join(f"{w:>8}" for w in WINDOWS)]
  rows += [f"{d:>8}" + "".join(f"{shares[d][w]:8.2f}" for w in WINDOWS) for d in shares]
  return "\n".join(
    ["share of development tasks that a scripted single agent solves, by context window:", *rows]
    + [f"the agents have {window} tokens"]
  )


def final_table(summary: dict) -> str:
  rows = [f"{'agent':12} {'':12}" + "".join(f"{d:>24}" for d in DIFFICULTIES)]
  for agent in AGENTS:
    for stage, label in (("warm_start", "warm start"), ("trained", "trained")):
      s = summary[agent]
      cells = []
      for d in DIFFICULTIES:
        low, high = s["intervals"][stage][d]
        cells.append(f"{s[stage][d]:10.3f} [{low:.3f}, {high:.3f}]")
      rows.append(f"{agent:12} {label:12}" + "".join(f"{c:>24}" for c in cells))
  for agent in AGENTS:
    s = summary[agent]
    rows.append(
      f"{agent:12} warm start {s['warm_start_tokens']:,} tokens, RL {s['sampled_tokens']:,} sampled tokens, deepest "
      f"tree solved {s['max_depth_solved']}"
    )
  return "\n".join(rows)


def run_demo(out: pathlib.Path, seed: int, started: float, tasks: dict[str, int], overrides: Sequence[str]) -> dict:
  """Trains, tests, writes summary.json and report.html; returns the summary.

  Args:
    out: folder of all that is written.
    seed: of the three trainings.
    started: when the clock began, in seconds since the epoch: before the installation, under make.
    tasks: difficulty -> test tasks.
    overrides: `--config.key=value` words for the trainings.
  """
  spec = importlib.util.spec_from_file_location("experiment", EXPERIMENT)
  experiment = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(experiment)
  config = experiment.get_config("recursive")
  config.environment.options.data_dir = str(out / "data")
  out.mkdir(parents=True, exist_ok=True)
  print(f"installed after {time.time() - started:.0f} s; drawing worlds and tasks", flush=True)
  environment = make_environment(config)
  shares = share_by_window(
    environment, {d: environment.tasks(f"dev_{d}")[:WINDOW_TASKS] for d in DIFFICULTIES}, WINDOWS, config
  )
  print(window_table(shares, config.caps.window), flush=True)

  cores = sorted(os.sched_getaffinity(0))
  pins = cores[:2] if len(cores) >= 2 else [None, None]
  single = [train_job("single", out, seed, overrides)]
  four = [f"--config.warm_start.from_workdir={out / 'single'}", *overrides]
  lanes = [
    Lane(pins[0], [train_job("recursive", out, seed, overrides), *test_jobs("recursive", out, tasks)], 0),
    Lane(
      pins[1],
      [
        *single,
        train_job("single_4x", out, seed, four),
        *test_jobs("single", out, tasks),
        *test_jobs("single_4x", out, tasks),
      ],
      1,
    ),
  ]
  run_lanes(lanes)
  summary = {agent: agent_summary(agent, out) for agent in AGENTS}
  summary |= {
    "script_by_window": shares,
    "window": config.caps.window,
    "tasks_per_difficulty": tasks,
    "seed": seed,
    "seconds": round(time.time() - started),
  }
  (out / "summary.json").write_text(json.dumps(summary, indent=2))
  write_report({agent: out / agent for agent in AGENTS}, out / "report.html", summary)
  print("\n" + final_table(summary))
  print(f"\n{out / 'report.html'} and {out / 'summary.json'}, {summary['seconds']} s in all")
  return summary


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(prog="python -m rao_jax.demo", description=__doc__)
  parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/demo"))
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--tasks", default="100,200,200", help="test tasks: easy, medium, hard")
  args, overrides = parser.parse_known_args(argv)
  unknown = [word for word in overrides if not word.startswith("--config.")]
  if unknown:
    parser.error(f"left over on the command line: {unknown}; settings read --config.key=value")
  counts = args.tasks.split(",")
  if len(counts) != len(DIFFICULTIES) or not all(n.isdigit() and int(n) > 0 for n in counts):
    parser.error(f"--tasks={args.tasks}: write three numbers, e.g. 100,200,200")
  started = float(os.environ.get("RAO_START", time.time()))
  run_demo(args.out, args.seed, started, dict(zip(DIFFICULTIES, map(int, counts))), overrides)


if __name__ == "__main__":
  main()
