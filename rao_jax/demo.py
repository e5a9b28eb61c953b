"""The demo: trains a recursive agent and two that may not delegate, side by side, and compares them on unseen worlds.

  python -m rao_jax.demo --out=runs/demo --seed=0

Impure: starts the training and evaluation commands of this package (`compare.py`). The recursive agent has one core;
the single agent, then the single agent with four times the window, have the other.
"""

import argparse
import importlib.util
import os
import pathlib
import time
from collections.abc import Sequence

from rao_jax.build import make_environment
from rao_jax.compare import Comparison
from rao_jax.envs.textcraft.windows import share_by_window

AGENTS = ("recursive", "single", "single_4x")
DIFFICULTIES = ("easy", "medium", "hard")
WINDOWS = (128, 192, 256, 320, 384, 512, 768, 1536)
WINDOW_TASKS = 100  # development tasks of a kind for the table of windows
EXPERIMENT = pathlib.Path(__file__).parents[1] / "experiments" / "demo.py"


def window_table(shares: dict[str, dict[int, float]], window: int) -> str:
  rows = [f"{'window':>8}" + "".join(f"{w:>8}" for w in WINDOWS)]
  rows += [f"{d:>8}" + "".join(f"{shares[d][w]:8.2f}" for w in WINDOWS) for d in shares]
  return "\n".join(
    ["share of development tasks that a scripted single agent solves, by context window:", *rows]
    + [f"the agents have {window} tokens"]
  )


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

  own = [
    f"--config.seed={seed}", f"--config.environment.options.data_dir={out / 'data'}",
    f"--config.compile_cache={out / 'compile_cache'}",
  ]  # fmt: skip
  tests = {f"test_{difficulty}": n for difficulty, n in tasks.items()}
  comparison = Comparison(EXPERIMENT, AGENTS, out, tests, [*own, *overrides])
  four = f"--config.warm_start.from_workdir={out / 'single'}"
  comparison.run(
    [
      [comparison.train_job("recursive"), *comparison.test_jobs("recursive")],
      [
        comparison.train_job("single"),
        comparison.train_job("single_4x", four),
        *comparison.test_jobs("single"),
        *comparison.test_jobs("single_4x"),
      ],
    ]
  )
  summary = comparison.summary() | {
    "script_by_window": shares,
    "window": config.caps.window,
    "tasks_per_difficulty": tasks,
    "seed": seed,
    "seconds": round(time.time() - started),
  }
  comparison.report(summary)
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
