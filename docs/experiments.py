"""Makes docs/experiments.md and its figures of what results/ holds. Needs matplotlib, as docs/figures.py does.

python docs/experiments.py
"""

import collections
import importlib.util
import itertools
import json
import operator
import pathlib
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
import scipy.stats

from rao_jax.sweep.points import read_points

plt.rcParams["svg.hashsalt"] = "rao_jax"  # the same figure is the same file

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
COLOURS = {"recursive": "#0072B2", "single": "#D55E00", "single_4x": "#009E73"}
NAMES = {"single_4x": "single, four times the window"}
SPLITS = ("easy", "medium", "hard", "extreme")
STYLES = dict(zip(SPLITS, ("-", "--", ":", "-.")))
STAGES = {"warm_start": "warm start", "last": "trained"}
COSTS = {
  "nodes_per_tree": ("agents a tree", "{:.1f}"),
  "depth_reached": ("depth", "{:.1f}"),
  "parallel_share": ("launched side by side", "{:.2f}"),
  "sampled_tokens_per_tree": ("tokens sampled", "{:,.0f}"),
  "critical_path_per_tree": ("on the critical path", "{:,.0f}"),
}
Seeds = Mapping[int, Mapping[str, Any]]  # seed -> what results/record.py kept


# --- results and words ------------------------------------------------------------------------------------------------


def load(name: str) -> Seeds:
  files = (ROOT / "results" / name).glob("*.json")
  return {int(path.stem): json.loads(path.read_text()) for path in sorted(files, key=lambda path: int(path.stem))}


def experiment(name: str) -> ModuleType:
  spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def about(name: str) -> str:
  """The experiment file's own words but for the first line, its commands as blocks."""
  _, *parts = experiment(name).__doc__.strip().split("\n\n")
  return "\n\n".join(f"```\n{textwrap.dedent(p)}\n```" if p.startswith("  ") else p for p in parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
  line = lambda cells: "| " + " | ".join(cells) + " |"
  return [line(head), "|---" * len(head) + "|", *map(line, rows), ""]


def seeds_of(values: Sequence[float]) -> str:
  """One number a seed, and their mean if there are several."""
  each = " / ".join(f"{x:.2f}" for x in values)
  return each if len(values) == 1 else f"{each} (mean {statistics.fmean(values):.2f})"


def of_split(test: Mapping[str, Any], difficulty: str) -> Mapping[str, Any] | None:
  return next((figures for split, figures in test["splits"].items() if split.endswith(f"_{difficulty}")), None)


def agents_of(seeds: Seeds) -> list[str]:
  return [agent for agent in COLOURS if any(agent in one["agents"] for one in seeds.values())]


def machines(seeds: Seeds) -> list[str]:
  return [
    f"- seed {seed}: {one['seconds'] or '?'} s, {one['machine']}, {one['date']}, commit {one['commit']}"
    for seed, one in seeds.items()
  ]


# --- tables -----------------------------------------------------------------------------------------------------------


def success_table(seeds: Seeds) -> list[str]:
  rows = []
  for agent, (stage, name) in itertools.product(agents_of(seeds), STAGES.items()):
    tests = [test for one in seeds.values() if (test := one["agents"].get(agent, {}).get("tests", {}).get(stage))]
    cells = []
    for difficulty in SPLITS:
      found = [s for test in tests if (s := of_split(test, difficulty))]
      cell = seeds_of([s["success"] for s in found]) if found else ""
      if len(found) == 1:
        low, high = found[0]["interval"]
        cell += f" [{low:.2f}, {high:.2f}] of {found[0]['tasks']}"
      cells.append(cell)
    rows.append([f"{NAMES.get(agent, agent)}, {name}", *cells])
  return table(["success on test tasks", *SPLITS], rows)


def costs_table(seeds: Seeds) -> list[str]:
  rows = []
  for agent, difficulty in itertools.product(agents_of(seeds), SPLITS):
    found = [s for one in seeds.values() if (s := of_split(one["agents"][agent]["tests"]["last"], difficulty))]
    if found:
      mean = {key: statistics.fmean(s[key] for s in found) for key in COSTS}
      rows.append([NAMES.get(agent, agent), difficulty, *(form.format(mean[key]) for key, (_, form) in COSTS.items())])
  return table(["agent, trained", "tasks", *(name for name, _ in COSTS.values())], rows)


def delegation_tables(seeds: Seeds) -> list[str]:
  """When the recursive agents delegate, by goal, window and depth left, and what they ask for; all seeds together."""
  agents = [one["agents"]["recursive"] for one in seeds.values()]
  stages = {STAGES[stage]: [agent["tests"][stage]["delegation"] for agent in agents] for stage in STAGES}
  told = {name: total(found, "told") for name, found in stages.items()}
  kinds = dict.fromkeys(kind for counts in told.values() for kind in counts)
  caps = gathered(
    (f"trained, window {test['window']}, depth cap {test['max_depth']}", test["delegation"])
    for agent in agents for test in evaluated(agent) if "delegation" in test
  )  # fmt: skip
  return [
    *shares_table("tier of an agent's goal", {name: total(found, "tiers") for name, found in stages.items()}),
    *table(
      ["what a child is asked for", *stages],
      ([kind, *(f"{counts[kind] / max(sum(counts.values()), 1):.3f}" for counts in told.values())] for kind in kinds),
    ),
    *shares_table(
      "depth that the cap leaves, goals of tier 3 or more",
      {name: total(found, "depth_left") for name, found in caps.items()},
    ),
  ]


def total(found: Iterable[Mapping[str, Any]], what: str) -> dict[str, np.ndarray]:
  """Sums of what was counted, by its keys."""
  out: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros((), int))
  for one in found:
    for key, counts in one[what].items():
      out[key] = out[key] + np.array(counts)
  return out


def shares_table(by: str, rows: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
  """Of agents, by a number, the shares that launch and that succeed."""
  columns = sorted({int(key) for counts in rows.values() for key in counts})
  forms = {
    "agents": lambda c: str(c[0]), "launch": lambda c: f"{c[1] / c[0]:.2f}", "succeed": lambda c: f"{c[2] / c[0]:.2f}",
  }  # fmt: skip
  return table(
    [by, *map(str, columns)],
    (
      [f"{name}: {word}" if word == "agents" else word]
      + [form(counts[str(c)]) if str(c) in counts else "" for c in columns]
      for name, counts in rows.items()
      for word, form in forms.items()
    ),
  )


def wall_clock_table(seeds: Seeds) -> list[str]:
  figures = {
    "success": "{:.2f}", "seconds": "{:.2f}", "steps": "{:,.0f}", "tokens": "{:,.0f}", "critical path": "{:,.0f}",
  }  # fmt: skip
  rows = []
  for kind in ("parallel", "chained"):
    for agent in ("recursive", "single"):
      names = [(f"{kind} {agent} {figure}", form) for figure, form in figures.items()]
      means = [form.format(statistics.fmean(one["medians"][name] for one in seeds.values())) for name, form in names]
      rows.append([f"{kind}, {agent}", *means])
  return table(["tasks, agent", "success", "seconds", "decode steps", "tokens sampled", "critical path"], rows)


def learned(curves: Mapping[str, Any]) -> float:
  """Success while training, averaged over its tokens: higher the sooner an arm learns."""
  spent = [after - before for before, after in itertools.pairwise([0, *curves["sampled_tokens"]])]
  return sum(map(operator.mul, curves["success"], spent)) / sum(spent)


def ablations() -> list[str]:
  """Every arm against `base`, both of the same warm start: the mean difference over seeds and how sure it is."""
  name = "ablations_cpu"
  file = ROOT / "results" / name / "arms.json"
  if not file.exists():
    return []
  module, found = experiment(name), json.loads(file.read_text())
  points = read_points(str(ROOT / "experiments" / f"{name}.py"))
  runs = {key: found["agents"][point.name] for key, point in zip(itertools.product(module.SEEDS, module.ARMS), points)}
  of_seeds = lambda arm, figure: [figure(runs[seed, arm]["curves"]) for seed in module.SEEDS]
  figures = {
    "while training": learned,
    "medium": lambda curves: curves["evaluated"]["medium"][1][-1],
    "hard": lambda curves: curves["evaluated"]["hard"][1][-1],
  }
  values = {what: {arm: of_seeds(arm, figure) for arm in module.ARMS} for what, figure in figures.items()}
  rows = []
  for arm in module.ARMS:
    cells = []
    for what in figures:
      differences = [value - base for value, base in zip(values[what][arm], values[what]["base"])]
      cells.append(seeds_of(values[what][arm]))
      cells.append("" if arm == "base" else f"{statistics.fmean(differences):+.2f}{sure(differences)}")
    nodes = statistics.fmean(of_seeds(arm, lambda curves: curves["nodes_per_tree"][-1]))
    rows.append([arm, *cells, f"{nodes:.1f}"])
  dots(f"{name}.svg", values)
  head = ["changed", *(word for what in figures for word in (what, "over base")), "agents a tree at the end"]
  return [
    "## Which parts matter\n", about(name), "", *table(head, rows),
    "Success, one number a seed: of the trees sampled while training, averaged over its tokens (what learns sooner has",
    "more), and on development tasks at the last step. `*`: the 95 % interval of the mean difference, by Student's t",
    f"over seeds, leaves out 0. {found['machine']}, {found['date']}, commit {found['commit']}.\n",
    f"![success of every arm and seed]({name}.svg)\n",
  ]  # fmt: skip


def sure(differences: Sequence[float]) -> str:
  """A star if the 95 % interval of their mean, by Student's t, leaves out 0."""
  error = statistics.stdev(differences) / len(differences) ** 0.5
  return "*" if abs(statistics.fmean(differences)) > scipy.stats.t.ppf(0.975, len(differences) - 1) * error else ""


# --- figures ----------------------------------------------------------------------------------------------------------


def panels(out: str, draw: Sequence[Callable], width: float = 11, height: float = 3.6, columns: int = 2) -> None:
  figure, axes = plt.subplots(
    -(-len(draw) // columns), columns, figsize=(width, height * -(-len(draw) // columns)), layout="constrained"
  )
  for one, ax in zip(draw, axes.flat, strict=True):
    one(ax)
    ax.set_ylim(-0.03, 1.03)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7, frameon=False)
  save(figure, out)


def dots(out: str, values: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
  """what -> arm -> its values by seed: a panel each, a line an arm, a dot a seed, those of the first arm as lines."""
  figure, axes = plt.subplots(1, len(values), figsize=(11, 3.6), sharey=True, layout="constrained")
  for ax, (what, arms) in zip(axes, values.items()):
    base, *_ = arms.values()
    for seed, x in enumerate(base):
      colour = f"C{seed}"
      ax.axvline(x, color=colour, linewidth=0.8, alpha=0.4)
      ax.scatter([of_seeds[seed] for of_seeds in arms.values()], list(arms), color=colour, s=22, label=f"seed {seed}")
    ax.set_xlabel(f"success, {what}")
    ax.spines[["top", "right"]].set_visible(False)
  axes[0].invert_yaxis()
  axes[-1].legend(fontsize=7, frameon=False)
  save(figure, out)


def save(figure, out: str) -> None:
  figure.savefig(DOCS / out, metadata={"Date": None})
  plt.close(figure)


def learning_curves(ax, seeds: Seeds, against: str, difficulties: Sequence[str]) -> None:
  """Success on development tasks; `against` is `sampled_tokens` or `seconds` of training."""
  for agent, (seed, one) in itertools.product(agents_of(seeds), seeds.items()):
    curves = one["agents"][agent]["curves"]
    spent = dict(zip(curves["step"], curves[against])) | {0: 0}
    for difficulty in difficulties:
      if difficulty not in curves["evaluated"]:
        continue
      steps, success = curves["evaluated"][difficulty]
      label = f"{NAMES.get(agent, agent)}, {difficulty}" if seed == min(seeds) else None
      x = [spent.get(s, 0) / (1e6 if against == "sampled_tokens" else 60) for s in steps]
      ax.plot(x, success, STYLES[difficulty], color=COLOURS[agent], marker=".", label=label)
  ax.set_xlabel("tokens sampled in RL, millions" if against == "sampled_tokens" else "minutes of RL, on a core")
  ax.set_ylabel("success, development tasks")


def band(ax, points: Mapping[int, Sequence[float]], agent: str) -> None:
  """The mean over seeds, and from the least to the largest."""
  at = sorted(points)
  ax.plot(
    at, [statistics.fmean(points[t]) for t in at], color=COLOURS[agent], marker="o", label=NAMES.get(agent, agent)
  )
  ax.fill_between(at, [min(points[t]) for t in at], [max(points[t]) for t in at], color=COLOURS[agent], alpha=0.15)


def gathered(pairs: Iterable[tuple[int, float]]) -> dict[int, list[float]]:
  out: dict[int, list[float]] = {}
  for key, value in pairs:
    out.setdefault(key, []).append(value)
  return out


def by_tier(ax, seeds: Seeds, trained: tuple[int, int], test: Callable = lambda agent: agent["tests"]["last"]) -> None:
  for agent in agents_of(seeds):
    tiers = [test(one["agents"][agent])["tiers"] for one in seeds.values()]
    band(ax, gathered((int(tier), f["success"]) for one in tiers for tier, f in one.items()), agent)
  ax.set_xlabel(f"tier of the item to make (trained on tiers {trained[0]} to {trained[1]})")
  ax.set_ylabel("success, test tasks")
  ax.axvspan(*trained, color="0.93", zorder=0)


def by_window(ax, seeds: Seeds, difficulty: str) -> None:
  """Success at the windows that the agents were evaluated with, the test's own included."""
  for agent in agents_of(seeds):
    tests = [
      (test, of_split(test, difficulty))
      for one in seeds.values()
      for test in evaluated(one["agents"][agent])
      if test["max_depth"] == one["agents"][agent]["tests"]["last"]["max_depth"]
    ]
    found = gathered((test["window"], figures["success"]) for test, figures in tests if figures)
    if found:
      band(ax, found, agent)
  ax.set_xlabel("context window at test, tokens (trained with 384)")
  ax.set_ylabel(f"success, {difficulty} test tasks")


# --- the page ---------------------------------------------------------------------------------------------------------


def canonical() -> list[str]:
  name = "canonical_cpu"
  if not (seeds := load(name)):
    return []
  panels(
    f"{name}.svg",
    [lambda ax: learning_curves(ax, seeds, "sampled_tokens", SPLITS), lambda ax: by_tier(ax, seeds, (4, 6))],
  )
  return [
    "## The paper's table on its own benchmark\n", about(name), "", *success_table(seeds),
    f"![learning curves, and success by tier]({name}.svg)\n", *costs_table(seeds), *delegation_tables(seeds),
    *machines(seeds), "",
  ]  # fmt: skip


def evaluated(agent: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """Of the trained agent: the test, and every evaluation under other caps."""
  return [agent["tests"]["last"], *agent["evaluations"]]


def deepest(agent: Mapping[str, Any]) -> Mapping[str, Any]:
  """The one of them under the widest caps."""
  return max(evaluated(agent), key=lambda test: (test["max_depth"], test["max_nodes"]))


def demo() -> list[str]:
  if not (seeds := load("demo")):
    return []
  solved = [
    max(f["deepest_solved"] for f in deepest(one["agents"]["recursive"])["splits"].values()) for one in seeds.values()
  ]
  panels(
    "demo.svg",
    [
      lambda ax: learning_curves(ax, seeds, "sampled_tokens", ["medium"]),
      lambda ax: learning_curves(ax, seeds, "seconds", ["medium"]),
      lambda ax: by_tier(ax, seeds, (2, 6), deepest),
      lambda ax: by_window(ax, seeds, "medium"),
    ],
  )
  clock = load("wall_clock")
  return [
    "## Depth, context, efficiency, wall clock and delegation, on the demo's agents\n", about("demo"), "",
    *success_table(seeds), "![efficiency, depth, context](demo.svg)\n",
    "Above: success on medium tasks while training, against tokens and minutes. Below: success by tier, of the",
    "recursive agent under wider caps (depth 14, 512 agents), and on medium tasks by the window at test. Bands are",
    "from the least to the largest seed.\n",
    f"**Depth.** Deepest tree that succeeds, by seed: {', '.join(map(str, solved))}; training stops at 6.\n",
    "**Cost.**\n", *costs_table(seeds),
    *(["**Wall clock.** One tree at a time, medians over the tasks that both solve, means over seeds "
       "(`benchmarks/wall_clock.py`):\n", *wall_clock_table(clock)] if clock else []),
    "**Delegation.** Of the trees of the final test:\n", *delegation_tables(seeds), *machines(seeds), "",
  ]  # fmt: skip


def main() -> None:
  head = [
    "# Experiments\n",
    "Made of the files in `results/` by `python docs/experiments.py`; `results/record.py` makes these of runs. Every",
    "experiment is a file in `experiments/` whose first lines say how to run it again.\n",
  ]
  (DOCS / "experiments.md").write_text("\n".join([*head, *canonical(), *demo(), *ablations()]))


if __name__ == "__main__":
  main()
