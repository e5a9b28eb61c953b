"""The page: its sections, and the one file that holds them all and needs no network. Impure: writes the file."""

import html
import importlib.resources
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.offline

from rao_jax.report import charts
from rao_jax.report.data import Result, Run, order_difficulties, read_runs, results
from rao_jax.report.markup import number, percent, script_json, section, short, table, with_interval, words

# Everything is inline; the browser is told to fetch nothing at all.
POLICY = (
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)

TREE_CURVES = [
  ("Agents per tree, training", {"train/nodes_per_tree": ""}),
  ("Deepest tree of the batch", {"train/max_depth": ""}),
]
POLICY_CURVES = [
  ("Loss", {"train/loss": ""}),
  ("Entropy per token", {"train/entropy": ""}),
  ("Importance ratio", {"train/ratio_mean": "mean", "train/ratio_max": "max"}),
  ("Approximate KL to the sampler", {"train/approx_kl": ""}),
  ("Share of clipped tokens", {"train/clip_share": ""}),
  ("Gradient norm", {"train/grad_norm": ""}),
  ("Learning rate", {"train/lr": ""}),
  ("Warm-start loss", {"warmstart/loss": ""}),
  ("Sampled tokens so far", {"tokens/sampled_total": ""}),
]
CURVES_PER_RUN = [
  ("Reward by depth", "train/reward/depth_", {"by_depth": True}),
  ("Advantage by depth", "train/advantage/depth_", {"by_depth": True}),
  ("How agents end", "outcome/", {"stacked": True}),
  ("Seconds", "time/", {}),
]


def write_report(
  workdirs: Sequence[str | os.PathLike] | Mapping[str, str | os.PathLike],
  out: str | os.PathLike,
  summary: Mapping[str, Any] | None = None,
) -> None:
  """Writes the report of one or more runs.

  Args:
    workdirs: directories with `config.json`, `metrics.jsonl`, `trees/*.jsonl`, each of which may be missing; or
      a mapping from the name to show to the directory.
    out: the HTML file.
    summary: final test results by agent, as in the demo's `summary.json`; without it the report compares the first
      and the last evaluation of every run.
  """
  out = pathlib.Path(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  new = out.with_name(out.name + ".new")
  new.write_text(render(read_runs(workdirs), summary), encoding="utf-8")
  new.replace(out)


def render(runs: Sequence[Run], summary: Mapping[str, Any] | None = None) -> str:
  """The page as a string."""
  figures, found, tested = Figures(), results(summary, runs), bool(summary)
  summary = summary or {}
  folder = importlib.resources.files("rao_jax.report")
  asset = {name: folder.joinpath(name).read_text() for name in ("page.css", "page.js", "guide.html")}
  sections = [
    _success(found, figures, tested),
    _trees(runs),
    _curves(runs, figures),
    _windows(summary),
    _tree_statistics(runs, figures),
    _funnel(runs),
    _config(runs),
    section("How to read this page", asset["guide.html"]),
  ]
  data = {"figures": figures.plain(), "trees": [tree for run in runs for tree in run.trees.shown]}
  parts = [
    '<!doctype html><html lang="en"><head><meta charset="utf-8">',
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f"<title>rao_jax report</title><style>{asset['page.css']}</style></head><body>",
    f"<header>{_headline(found, summary, runs)}{_tiles(summary, runs)}</header>",
    f"<main>{''.join(sections)}</main>",
    "<footer>Written by rao_jax. This file holds everything it shows and fetches nothing.</footer>",
    f'<script type="application/json" id="data">{script_json(data)}</script>',
    f"<script>{plotly.offline.get_plotlyjs()}</script>",
    f"<script>{asset['page.js']}</script></body></html>",
  ]
  return "\n".join(parts)


class Figures:
  """The figures of the page, by the ids of their elements."""

  def __init__(self):
    self._figures: list[go.Figure] = []

  def card(self, title: str, figure: go.Figure | None, note: str = "") -> str:
    """A card with the figure; nothing if there is none."""
    if figure is None:
      return ""
    self._figures.append(figure)
    name = f"figure-{len(self._figures) - 1}"
    return (
      f'<div class="card"><h3>{words(title)} <small>{note}</small></h3><div class="figure" id="{name}"></div></div>'
    )

  def plain(self) -> dict[str, Any]:
    return {f"figure-{i}": json.loads(figure.to_json()) for i, figure in enumerate(self._figures)}


def _headline(found: Mapping[str, Any], summary: Mapping[str, Any], runs: Sequence[Run]) -> str:
  kicker = '<p class="kicker">rao_jax report</p>'
  agents = [agent for agent in found if found[agent].get("trained")]
  if not agents:
    return f"{kicker}<h1>{' and '.join(words(run.name) for run in runs)}</h1><p>No evaluation yet.</p>"
  first, trained = agents[0], found[agents[0]]["trained"]
  hardest = order_difficulties(trained)[-1]
  title = f"The {words(first)} agent solves {percent(trained[hardest].success)} of {words(hardest)} tasks"
  if first == "recursive" and hardest in found.get("single", {}).get("trained", {}):
    title += f"; without delegation it is {percent(found['single']['trained'][hardest].success)}"
  lines = []
  for agent in agents:
    trained, warm = found[agent]["trained"], found[agent].get("warm_start", {})
    before = "before RL" if summary else "at first"
    parts = [
      f"{words(d)} <b>{with_interval(trained[d])}</b>" + (f", {before} {percent(warm[d].success)}" if d in warm else "")
      for d in order_difficulties(trained)
    ]
    lines.append(f"<li><b>{words(agent)}</b>: {'; '.join(parts)}</li>")
  solved = summary.get(first, {}).get("max_depth_solved")
  seen = [depth for run in runs if run.name == first for depth in run.series("train/max_depth")[1]]
  if solved is not None and seen and solved > max(seen):
    lines.append(
      f"<li>Deepest tree solved: depth {number(solved)}; in training no tree went below {max(seen):.0f}.</li>"
    )
  return f'{kicker}<h1>{title}</h1><ul class="lead">{"".join(lines)}</ul>'


def _tiles(summary: Mapping[str, Any], runs: Sequence[Run]) -> str:
  tiles = []
  agents = {name: values for name, values in summary.items() if name != "intervals" and isinstance(values, Mapping)}
  for key, what, form in [
    ("max_depth_solved", "depth of the deepest tree solved", number),
    ("sampled_tokens", "tokens sampled in RL", short),
  ]:
    values = {name: form(values[key]) for name, values in agents.items() if values.get(key) is not None}
    if values:
      tiles.append((" / ".join(values.values()), f"{what}: {' / '.join(map(words, values))}"))
  if tasks := summary.get("tasks_per_difficulty"):
    order = order_difficulties(tasks)
    tiles.append((" / ".join(number(tasks[d]) for d in order), f"test tasks: {' / '.join(map(words, order))}"))
  seed = f", seed {number(summary['seed'])}" if "seed" in summary else ""
  if summary.get("seconds") is not None:
    tiles.append((f"{summary['seconds'] / 60:.1f} min", f"in all{seed}"))
  if not summary:
    tiles = [
      (number(max(row["step"] for row in run.rows)), f"last step, {words(run.name)}") for run in runs if run.rows
    ]
  return f'<div class="tiles">{"".join(f"<div><b>{value}</b><span>{what}</span></div>" for value, what in tiles)}</div>'


def _success(found: Mapping[str, Mapping[str, Mapping[str, Result]]], figures: Figures, tested: bool) -> str:
  if not found:
    return ""
  if tested:
    stages = {"warm_start": "warm start", "trained": "trained"}
    note = "Greedy decoding on test tasks never seen in training. Brackets: 95% Wilson intervals."
  else:
    stages = {"warm_start": "first", "trained": "last"}
    note = "First and last evaluation on the development split; the last need not be the best."
  difficulties = order_difficulties(d for agent in found.values() for cells in agent.values() for d in cells)
  rows = []
  for agent, by_stage in found.items():
    for stage, label in stages.items():
      if cells := by_stage.get(stage):
        values = [with_interval(cells[d]) if d in cells else "" for d in difficulties]
        rows.append([f"{words(agent)}, {label}", *values])
  card = figures.card("Share of tasks solved", charts.success_bars(found, stages))
  return section("Success by difficulty", card + table(["", *map(words, difficulties)], rows), note)


def _trees(runs: Sequence[Run]) -> str:
  """Empty elements; page.js fills them."""
  if not any(run.trees.shown for run in runs):
    return ""
  body = (
    '<div class="viewer"><label>Tree <select id="tree-choice"></select></label><p id="tree-goal"></p>'
    '<div class="viewer-parts"><div class="card" id="tree-drawing"></div>'
    '<aside class="card" id="node-panel" aria-live="polite"></aside></div></div>'
  )
  note = (
    "The deepest solved trees and the deepest that failed. Choose an agent to read its cells. "
    '<span class="key solved">&#10003;</span> goal reached <span class="key failed">&#10007;</span> not reached'
  )
  return section("Trees", body, note)


def _curves(runs: Sequence[Run], figures: Figures) -> str:
  colour = charts.colours([run.name for run in runs])

  def rest(prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for run in runs for key in run.keys(prefix)]

  def cards(curves: Sequence[tuple[str, Mapping[str, str]]], share: bool = False) -> list[str]:
    made = []
    for title, keys in curves:
      dashes = [f"{dash} {what}" for what, dash in zip(keys.values(), charts.DASHES.values())] if len(keys) > 1 else []
      made.append(figures.card(title, charts.curve(runs, keys, colour, share), note=", ".join(dashes)))
    return made

  success = [
    (f"Success, {d}", {f"train/success/{d}": "training", f"eval/success/{d}": "evaluation"})
    for d in order_difficulties(rest("train/success/") + rest("eval/success/"))
  ]
  evaluated = [
    (f"Agents per tree, evaluation, {d}", {f"eval/nodes_per_tree/{d}": ""})
    for d in order_difficulties(rest("eval/nodes_per_tree/"))
  ]
  per_run = [
    figures.card(f"{title}, {run.name}", charts.curves_by_suffix(run, prefix, **options))
    for title, prefix, options in CURVES_PER_RUN
    for run in runs
  ]
  groups = {
    "Success": cards(success or [("Success in training", {"train/success": ""})], share=True),
    "Size of the trees": cards(TREE_CURVES + evaluated),
    "Policy": cards(POLICY_CURVES),
    "Depths, ends, time": per_run,
  }
  body = "".join(
    f'<h3 class="group">{title}</h3><div class="grid">{"".join(made)}</div>'
    for title, made in groups.items()
    if any(made)
  )
  return section("Learning curves", body)


def _windows(summary: Mapping[str, Any]) -> str:
  by_difficulty = summary.get("script_by_window") or {}
  if not by_difficulty:
    return ""
  windows = list(dict.fromkeys(window for row in by_difficulty.values() for window in row))
  if all(str(window).isdigit() for window in windows):
    windows.sort(key=int)
  chosen = str(summary.get("window", ""))

  def cell(share: float | None) -> str:
    if share is None:
      return ""
    return f'<span class="shade" style="--share: {float(share):.3f}">{percent(share)}</span>'

  head = [f"<mark>{words(w)} tokens</mark>" if str(w) == chosen else f"{words(w)} tokens" for w in windows]
  rows = [[words(d), *(cell(by_difficulty[d].get(w)) for w in windows)] for d in order_difficulties(by_difficulty)]
  note = (
    "Share of tasks that a scripted single agent can finish inside a context window. The window was chosen by this "
    "table, before any RL: medium tasks have to fit, hard ones must not."
  )
  return section("What fits in a window", table(["", *head], rows), note)


def _tree_statistics(runs: Sequence[Run], figures: Figures) -> str:
  columns = ["trees", "solved", "agents per tree", "that delegate", "tokens per tree", "deepest", "deepest solved"]
  rows, cards = [], []
  for run in runs:
    order = order_difficulties(difficulty for _, difficulty in run.trees.counts)
    for source, difficulty in sorted(run.trees.counts, key=lambda key: (key[0], order.index(key[1]))):
      count = run.trees.counts[source, difficulty]
      values = [number(count.trees), percent(count.solved / count.trees), f"{count.nodes / count.trees:.1f}"]
      values += [percent(count.delegating / count.nodes), number(round(count.tokens / count.trees))]
      values += [number(count.deepest), number(count.deepest_solved)]
      rows.append([f"{words(run.name)}, {words(source)}, {words(difficulty)}", *values])
    cards.append(figures.card(f"Agents by depth, {run.name}", charts.nodes_by_depth(run)))
  if not rows:
    return ""
  steps = ", ".join(f"step {run.trees.step} of {words(run.name)}" for run in runs if run.trees.counts)
  unreadable = sum(run.trees.unreadable for run in runs)
  note = f"Trees dumped at {steps}." + (f" {unreadable} dump line(s) could not be read." if unreadable else "")
  body = table(["run, dump, difficulty", *columns], rows) + f'<div class="grid">{"".join(cards)}</div>'
  return section("Tree statistics", body, note)


def _funnel(runs: Sequence[Run]) -> str:
  first = ["trees_started", "trees_finished"]
  last = ["trajectories", "trajectories_nonzero", "tokens_sampled", "tokens_trained"]
  found = list(dict.fromkeys(key.removeprefix("funnel/") for run in runs for key in run.keys("funnel/")))
  names = first + [name for name in found if name not in first + last] + last
  rows = []
  for name in [name for name in names if name in found]:
    label = "trajectories with nonzero advantage" if name == "trajectories_nonzero" else words(name)
    rows.append([label, *(number(round(sum(run.series(f"funnel/{name}")[1]))) for run in runs)])
  if not rows:
    return ""
  return section("Where the data went", table(["sum over all steps", *(words(run.name) for run in runs)], rows))


def _config(runs: Sequence[Run]) -> str:
  configs = [_flat(run.config) for run in runs]
  rows = []
  for key in dict.fromkeys(key for config in configs for key in config):
    values = [f"<code>{html.escape(config.get(key, ''))}</code>" for config in configs]
    if len(set(values)) > 1:
      values = [f"<mark>{value}</mark>" for value in values]
    rows.append([f"<code>{html.escape(key)}</code>", *values])
  if not rows:
    return ""
  settings = table(["", *(words(run.name) for run in runs)], rows)
  note = "The resolved config of each run." + (" Marked: where they differ." if len(runs) > 1 else "")
  return section("Config", f"<details><summary>{len(rows)} settings</summary>{settings}</details>", note)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping) and value:
      flat |= _flat(value, f"{prefix}{key}.")
    else:
      flat[f"{prefix}{key}"] = json.dumps(value)
  return flat
