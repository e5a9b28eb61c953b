"""Makes docs/experiments.md and its figures of what results/ holds. Needs matplotlib, which nothing else does.

python docs/experiments.py
"""

import importlib.util
import json
import pathlib
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
COLOURS = {"recursive": "#0072B2", "single": "#D55E00"}
SPLITS = ("easy", "medium", "hard", "extreme")
STAGES = {"warm_start": "warm start", "last": "trained"}
COSTS = {
  "nodes_per_tree": ("agents a tree", "{:.1f}"),
  "depth_reached": ("depth", "{:.1f}"),
  "parallel_share": ("launched side by side", "{:.2f}"),
  "sampled_tokens_per_tree": ("tokens sampled", "{:,.0f}"),
  "critical_path_per_tree": ("on the critical path", "{:,.0f}"),
}
Seeds = Mapping[int, Mapping[str, Any]]  # seed -> what results/record.py kept


def load(name: str) -> Seeds:
  found = [json.loads(path.read_text()) for path in (ROOT / "results" / name).glob("*.json")]
  return {one["seed"]: one for one in sorted(found, key=lambda one: one["seed"])}


def about(name: str) -> str:
  """The experiment file's own words but for the first line, its commands as blocks."""
  spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  _, *parts = module.__doc__.strip().split("\n\n")
  return "\n\n".join(f"```\n{textwrap.dedent(p)}\n```" if p.startswith("  ") else p for p in parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  line = lambda cells: "| " + " | ".join(cells) + " |"
  return [line(head), "|---" * len(head) + "|", *map(line, rows), ""]


def seeds_of(values: Sequence[float]) -> str:
  """One number a seed, and their mean if there are several."""
  each = " / ".join(f"{x:.2f}" for x in values)
  return each if len(values) == 1 else f"{each} (mean {statistics.fmean(values):.2f})"


def split_of(test: Mapping[str, Any], difficulty: str) -> Mapping[str, Any]:
  return test["splits"].get(f"val_{difficulty}", {})


def canonical_table(seeds: Seeds) -> list[str]:
  rows = []
  for agent in COLOURS:
    for stage, name in STAGES.items():
      tests = [one["agents"][agent]["tests"].get(stage) for one in seeds.values() if agent in one["agents"]]
      cells = []
      for difficulty in SPLITS:
        found = [s for test in tests if test and (s := split_of(test, difficulty))]
        cell = seeds_of([s["success"] for s in found]) if found else ""
        if len(found) == 1:
          low, high = found[0]["interval"]
          cell += f" [{low:.2f}, {high:.2f}] of {found[0]['tasks']}"
        cells.append(cell)
      rows.append([f"{agent}, {name}", *cells])
  return table(["success on val, greedy", *SPLITS], rows)


def costs_table(seeds: Seeds) -> list[str]:
  rows = []
  for agent in COLOURS:
    for difficulty in SPLITS:
      found = [split_of(one["agents"][agent]["tests"]["last"], difficulty) for one in seeds.values()]
      found = [s for s in found if s]
      if found:
        mean = {key: statistics.fmean(s[key] for s in found) for key in COSTS}
        rows.append([agent, difficulty, *(form.format(mean[key]) for key, (_, form) in COSTS.items())])
  return table(["agent", "val", *(name for name, _ in COSTS.values())], rows)


def canonical_figure(seeds: Seeds, out: pathlib.Path) -> None:
  """Left: success on development tasks while training; right: success by tier."""
  figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
  for agent, colour in COLOURS.items():
    for one in seeds.values():
      curves = one["agents"][agent]["curves"]
      spent = dict(zip(curves["step"], curves["sampled_tokens"])) | {0: 0}
      for difficulty, style in zip(SPLITS, ("-", "--", ":")):
        steps, success = curves["evaluated"].get(difficulty, ([], []))
        label = f"{agent}, {difficulty}" if one is next(iter(seeds.values())) else None
        left.plot([spent.get(s, 0) / 1e6 for s in steps], success, style, color=colour, marker=".", label=label)
    tiers: dict[int, list[float]] = {}
    for one in seeds.values():
      for tier, figures in one["agents"][agent]["tests"]["last"]["tiers"].items():
        tiers.setdefault(int(tier), []).append(figures["success"])
    at = sorted(tiers)
    right.plot(at, [statistics.fmean(tiers[t]) for t in at], color=colour, marker="o", label=agent)
    right.fill_between(at, [min(tiers[t]) for t in at], [max(tiers[t]) for t in at], color=colour, alpha=0.15)
  left.set_xlabel("tokens sampled in RL, millions")
  left.set_ylabel("success, development tasks")
  left.legend(fontsize=7, frameon=False)
  right.set_xlabel("tier of the item to make (trained on tiers 4 to 6)")
  right.set_ylabel("success, val")
  right.axvspan(4, 6, color="0.93", zorder=0)
  right.legend(fontsize=8, frameon=False)
  for ax in (left, right):
    ax.set_ylim(-0.03, 1.03)
    ax.spines[["top", "right"]].set_visible(False)
  figure.savefig(out, metadata={"Date": None})
  plt.close(figure)


def canonical() -> list[str]:
  name = "canonical_cpu"
  seeds = load(name)
  if not seeds:
    return []
  canonical_figure(seeds, DOCS / f"{name}.svg")
  runs = [
    f"- seed {seed}: {one['seconds'] or '?'} s, {one['machine']}, {one['date']}, commit {one['commit']}"
    for seed, one in seeds.items()
  ]
  return [
    "## The paper's table on its own benchmark\n", about(name), "", *canonical_table(seeds),
    f"![learning curves, and success by tier]({name}.svg)\n", *costs_table(seeds), *runs, "",
  ]  # fmt: skip


def main() -> None:
  head = [
    "# Experiments\n",
    "Made of the files in `results/` by `python docs/experiments.py`; `results/record.py` makes these of runs. Every",
    "experiment is a file in `experiments/` whose first lines say how to run it again.\n",
  ]
  (DOCS / "experiments.md").write_text("\n".join([*head, *canonical()]))


if __name__ == "__main__":
  main()
