"""Keeps what a run found, small enough for the repository.

  python results/record.py runs/canonical_cpu/0 results/canonical_cpu/0.json

The run is a workdir, or a folder with the workdirs of several agents. Kept: success, costs and shape of every test and
evaluation, by split and by tier; the curves; the commit, the machine, the seconds. `docs/experiments.py` makes the page
of all of it. Of the trees of tests, when their agents delegate (`delegation.py`).
"""

import argparse
import itertools
import json
import os
import pathlib
from typing import Any

from delegation import delegation

from rao_jax.report.data import Run, read_run

FIGURES = (
  "tasks", "success", "interval", "nodes_per_tree", "depth_reached", "branching", "parallel_share", "deepest_solved",
  "sampled_tokens_per_tree", "read_tokens_per_tree", "critical_path_per_tree",
)  # fmt: skip
CAPS = ("checkpoint", "temperature", "k", "max_depth", "max_nodes", "window")
DIGITS = 4


def rounded(value: Any) -> Any:
  if isinstance(value, float):
    return round(value, DIGITS)
  if isinstance(value, dict):
    return {key: rounded(x) for key, x in value.items()}
  return [rounded(x) for x in value] if isinstance(value, list | tuple) else value


def found(evaluation: dict[str, Any], world: str, trees: pathlib.Path | None) -> dict[str, Any]:
  """What is kept of the JSON of one evaluation, and of its trees, if it wrote them, what they tell of delegation."""
  keep = lambda figures: {name: figures[name] for name in FIGURES if name in figures}
  kept = {name: evaluation[name] for name in CAPS} | {
    kind: {name: keep(figures) for name, figures in evaluation[kind].items()} for kind in ("splits", "tiers")
  }
  if world == "textcraft_synth" and evaluation["max_depth"] and trees and trees.exists():
    with trees.open() as lines:
      kept["delegation"] = delegation(lines, evaluation["max_depth"])
  return kept


def curves(run: Run) -> dict[str, Any]:
  """Series over steps: training success, and tokens and seconds so far; of evaluations success by difficulty."""
  steps, sampled = run.series("funnel/tokens_sampled")
  _, seconds = run.series("time/step_seconds")
  return {
    "step": steps,
    "success": run.series("train/success")[1],
    "nodes_per_tree": run.series("train/nodes_per_tree")[1],
    "sampled_tokens": list(itertools.accumulate(sampled)),
    "seconds": list(itertools.accumulate(seconds)),
    "evaluated": {key.rpartition("/")[2]: run.series(key) for key in run.keys("eval/success/")},
  }


def agent(workdir: pathlib.Path) -> dict[str, Any]:
  run = read_run(workdir, workdir.name)
  world = json.loads((workdir / "config.json").read_text())["environment"]["name"]
  tests = {c: found(test, world, workdir / "trees" / f"test_{c}.jsonl") for c, test in run.tests.items()}
  first = run.rows[0] if run.rows else {}
  return {
    "warm_start": {
      name: first[name] for name in ("warmstart/tokens", "warmstart/loss", "time/warm_start") if name in first
    },
    "curves": curves(run),
    "tests": tests,
    "evaluations": [
      found(one, world, pathlib.Path(trees) if (trees := one.get("trees")) else None) for one in run.evaluations
    ],
  }


def machine() -> str:
  """The processor and how many cores of it a run may use."""
  lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
  model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor")
  return f"{len(os.sched_getaffinity(0))} cores of {model}"


def record(folder: pathlib.Path) -> dict[str, Any]:
  workdirs = [folder] if (folder / "config.json").exists() else sorted(p.parent for p in folder.glob("*/config.json"))
  if not workdirs:
    raise SystemExit(f"{folder} is no workdir and holds none: name the folder of a run")
  config = json.loads((workdirs[0] / "config.json").read_text())
  summary = folder / "summary.json"
  start = json.loads((workdirs[0] / "starts.jsonl").read_text().splitlines()[-1])
  return {
    "seed": config["seed"],
    "date": start["time"][:10],
    "commit": (start["git"] or {}).get("commit", "unknown")[:7],
    "machine": machine(),
    "seconds": json.loads(summary.read_text())["seconds"] if summary.exists() else None,
    "agents": {workdir.name: agent(workdir) for workdir in workdirs},
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  o = parser.parse_args()
  o.out.parent.mkdir(parents=True, exist_ok=True)
  o.out.write_text(json.dumps(rounded(record(o.folder)), separators=(",", ":")) + "\n")
  print(f"{o.out}, {o.out.stat().st_size} bytes")


if __name__ == "__main__":
  main()
