"""The parts of the page that hold figures: success, trees, learning curves, sizes of trees, windows. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rao_jax.report import charts
from rao_jax.report.data import Experiment, Results, order_difficulties
from rao_jax.report.figures import Figures
from rao_jax.report.markup import number, percent, score, section, table, with_interval, words
from rao_jax.report.trees import Facts

TREE_CURVES = [
  ("Agents per tree, training", {"train/nodes_per_tree": ""}),
  ("Deepest tree of the batch", {"train/max_depth": ""}),
  ("Trees that do not delegate, share", {"train/never_delegates": ""}),
  ("Tokens sampled per tree", {"train/tokens_per_tree": "in all", "train/critical_path": "along the longest chain"}),
]
DATA_CURVES = [
  ("Trees of a step", {"funnel/trees_started": "started", "funnel/trees_dropped_flat": "in groups without signal"}),
  ("Trajectories", {"funnel/trajectories_nonzero": "with nonzero advantage", "funnel/trajectories": "all"}),
  ("Action tokens", {"funnel/tokens_trained": "trained on", "funnel/tokens_sampled": "sampled"}),
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
  ("Tokens sampled so far", {"tokens/sampled_total": ""}),
  ("Tokens sampled per second", {"time/sampled_tokens_per_second": ""}),
]
CURVES_PER_RUN = [
  ("Reward by depth", {"prefix": "train/reward/depth_", "by_depth": True}),
  ("Advantage by depth", {"prefix": "train/advantage/depth_", "by_depth": True}),
  ("How agents end", {"prefix": "train/outcome/", "stacked": "share"}),
  ("Seconds of a step", {"prefix": "time/", "suffix": "_seconds", "stacked": "sum", "leave": ("step", "evaluation")}),
]
RUNS_ALONE = 6  # experiments that get figures of their own


def success(found: Results, figures: Figures, seeds: bool, partial: bool) -> str:
  if not found.by_agent:
    return ""
  if found.origin == "eval":
    stages = {"warm_start": "first", "trained": "last"}
    note = "First and last evaluation on the development split; the last need not be the best."
  else:
    stages = {"warm_start": "warm start", "trained": "trained"}
    note = "Greedy decoding on test tasks never seen in training. Brackets: 95% intervals over tasks."
  if seeds and found.origin != "summary":
    note = note.replace(" Brackets: 95% intervals over tasks.", "") + (
      " Where an agent has several seeds: their mean, and in brackets the least and the greatest."
    )
  difficulties = order_difficulties(d for agent in found.by_agent.values() for cells in agent.values() for d in cells)
  rows = []
  for agent, by_stage in found.by_agent.items():
    for stage, label in stages.items():
      if cells := by_stage.get(stage):
        values = [with_interval(cells[d], partial) if d in cells else "" for d in difficulties]
        rows.append([f"{words(agent)}, {label}", *values])
  what = "Mean score" if partial else "Share of tasks solved"
  card = figures.card(what, charts.success_bars(found.by_agent, stages, partial))
  title = "Mean score by difficulty" if partial else "Success by difficulty"
  return section(title, card + table(["", *map(words, difficulties)], rows), note)


def trees(any_shown: bool, left_out: int) -> str:
  """Empty elements; viewer.js fills them."""
  if not any_shown:
    return ""
  labels = {"run": "Run", "step": "Step", "task": "Task", "rollout": "Rollout", "other": "Compare with"}
  choices = "".join(
    f'<label id="{name}-label">{label} <select id="{name}-choice"></select></label>' for name, label in labels.items()
  )
  body = f'<div class="viewer"><div class="choices">{choices}</div><p id="tree-goal"></p>'
  body += '<div id="tree-difference"></div><div id="tree-sides"></div></div>'
  note = (
    "Each circle is an agent; choose one to read its turns. "
    '<span class="keys"><span class="key solved">&#10003;</span> goal reached '
    '<span class="key partly">&#189;</span> in part <span class="key failed">&#10007;</span> not reached</span>'
  )
  if left_out:
    note += f" {left_out:,} more trees of the dumps had no room on this page: --tree ID puts one in."
  return section("Trees", body, note)


def curves(experiments: Sequence[Experiment], figures: Figures, partial: bool) -> str:
  colour = charts.colours([experiment.name for experiment in experiments])

  def rest(prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for experiment in experiments for key in experiment.keys(prefix)]

  def cards(curves: Sequence[tuple[str, Mapping[str, str]]], axis: dict | None = None) -> list[str]:
    made = []
    for title, keys in curves:
      dashes = [f"{dash} {what}" for what, dash in zip(keys.values(), charts.DASHES.values())] if len(keys) > 1 else []
      made.append(figures.card(title, charts.curve(experiments, keys, colour, axis), note=", ".join(dashes)))
    return made

  what = "Mean score" if partial else "Success"
  by_difficulty = [
    (f"{what}, {d}", {f"train/success/{d}": "training", f"eval/success/{d}": "evaluation"})
    for d in order_difficulties(rest("train/success/") + rest("eval/success/"))
  ]
  evaluated = [
    (f"Agents per tree, evaluation, {d}", {f"eval/nodes_per_tree/{d}": ""})
    for d in order_difficulties(rest("eval/nodes_per_tree/"))
  ]
  alone = experiments[:RUNS_ALONE]
  per_run = [
    figures.card(f"{title}, {experiment.name}", charts.curves_by_suffix(experiment, **options))
    for title, options in CURVES_PER_RUN
    for experiment in alone
  ]
  groups = {
    what: cards(by_difficulty or [(f"{what} in training", {"train/success": ""})], charts.success_axis(partial)),
    "Size of the trees": cards(TREE_CURVES + evaluated),
    "Data": cards(DATA_CURVES),
    "Policy": cards(POLICY_CURVES),
    "Depths, ends, time": per_run,
  }
  body = "".join(
    f'<h3 class="group">{title}</h3><div class="grid">{"".join(made)}</div>'
    for title, made in groups.items()
    if any(made)
  )
  axes = ["step", *dict.fromkeys(axis for experiment in experiments for axis in experiment.spent())]
  if body and len(axes) > 1:
    options = "".join(f"<option>{axis}</option>" for axis in axes)
    body = f'<div class="choices"><label>Against <select id="axis-choice">{options}</select></label></div>{body}'
  notes = []
  if any(len(experiment.runs) > 1 for experiment in experiments):
    notes.append("Strong line: the mean over seeds; band: from the least to the greatest; faint: each seed.")
  if len(experiments) > RUNS_ALONE:
    notes.append(f"Depths, ends and time are shown of the first {RUNS_ALONE}.")
  return section("Learning curves", body, " ".join(notes))


def windows(summary: Mapping[str, Any]) -> str:
  by_difficulty = summary.get("script_by_window") or {}
  if not by_difficulty:
    return ""
  found = list(dict.fromkeys(window for row in by_difficulty.values() for window in row))
  if all(str(window).isdigit() for window in found):
    found.sort(key=int)
  chosen = str(summary.get("window", ""))

  def cell(share: float | None) -> str:
    if share is None:
      return ""
    return f'<span class="shade" style="--share: {float(share):.3f}">{percent(share)}</span>'

  head = [f"<mark>{words(w)} tokens</mark>" if str(w) == chosen else f"{words(w)} tokens" for w in found]
  rows = [[words(d), *(cell(by_difficulty[d].get(w)) for w in found)] for d in order_difficulties(by_difficulty)]
  note = (
    "Share of tasks that a scripted single agent can finish inside a context window. The window was chosen by this "
    "table, before any RL: medium tasks have to fit, hard ones must not."
  )
  return section("What fits in a window", table(["", *head], rows), note)


def tree_statistics(experiments: Sequence[Experiment], figures: Figures, partial: bool) -> str:
  """Depth and cost of the trees of the last step dumped: a table by difficulty, histograms."""
  colour = charts.colours([experiment.name for experiment in experiments])
  rows, by_depth, shown = [], [], {}
  for experiment in experiments:
    latest = [tree for run in experiment.runs for tree in run.trees.latest()]
    by_kind: dict[tuple[str, str], list] = {}
    for tree in latest:
      by_kind.setdefault((tree.source, tree.difficulty), []).append(tree)
    order = order_difficulties(difficulty for _, difficulty in by_kind)
    for source, difficulty in sorted(by_kind, key=lambda kind: (kind[0], order.index(kind[1]))):
      some = by_kind[source, difficulty]
      mean = lambda value, some=some: sum(map(value, some)) / len(some)
      delegating = sum(tree.delegating for tree in some) / sum(tree.nodes for tree in some)
      values = [number(len(some)), score(mean(lambda t: t.success), partial), f"{mean(lambda t: t.nodes):.1f}"]
      values += [percent(delegating), number(round(mean(lambda t: t.sampled)))]
      values += [number(round(mean(lambda t: t.critical))) if all(t.critical is not None for t in some) else ""]
      values += [number(max(t.depth for t in some)), number(max((t.depth for t in some if t.solved), default=0))]
      rows.append([f"{words(experiment.name)}, {words(source)}, {words(difficulty)}", *values])
    # Tests, if there are any, and not the training batch of the same step.
    shown[experiment.name] = [t for t in latest if not t.source.startswith("step_")] or latest
    if len(by_depth) < RUNS_ALONE:
      card = figures.card(f"Agents by depth, {experiment.name}", charts.nodes_by_depth(shown[experiment.name]))
      by_depth.append(card)
  if not rows:
    return ""

  def figure(title: str, value: Callable[[Facts], float | None], what: str) -> str:
    values = {name: [value(tree) for tree in some] for name, some in shown.items()}
    known = all(x is not None for some in values.values() for x in some)
    return figures.card(title, charts.histogram(values, colour, what)) if known else ""

  cards = [
    figure("Depth of trees", lambda tree: tree.depth, "depth of the deepest agent"),
    figure("Agents of a tree", lambda tree: tree.nodes, "agents"),
    figure("Cost of trees", lambda tree: tree.sampled, "tokens sampled"),
    figure("Longest chain", lambda tree: tree.critical, "tokens sampled one after the other"),
  ]
  columns = ["trees", "mean score" if partial else "solved", "agents per tree", "that delegate", "tokens per tree"]
  columns += ["on the longest chain", "deepest", "deepest solved"]
  steps = ", ".join(
    f"step {trees[0].step} of {words(run.name)}" for e in experiments for run in e.runs if (trees := run.trees.latest())
  )
  unreadable = sum(run.trees.unreadable for e in experiments for run in e.runs)
  note = f"Trees dumped at {steps}." + (f" {unreadable} dump line(s) could not be read." if unreadable else "")
  grid = f'<div class="grid">{"".join([*cards, *by_depth])}</div>'
  return section("Depth and cost of the trees", grid + table(["run, dump, difficulty", *columns], rows), note)
