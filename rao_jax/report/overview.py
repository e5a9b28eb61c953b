"""The parts of the page that sum runs up: headline, tiles, final figures, alarms, funnel, config. Pure."""

import html
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rao_jax.alarms import alarms
from rao_jax.report.data import Experiment, Results, Run, order_difficulties, short_split
from rao_jax.report.markup import bar, number, percent, score, section, short, strip, table, with_interval, words

LAST_PART = 10  # the last tenth of the steps is what a training figure is taken from


def headline(found: Results, summary: Mapping[str, Any], experiments: Sequence[Experiment], partial: bool) -> str:
  kicker = '<p class="kicker">rao_jax report</p>'
  agents = found.trained()
  if not agents:
    names = " and ".join(words(experiment.name) for experiment in experiments)
    return f"{kicker}<h1>{names}</h1><p>No evaluation yet.</p>"
  first, trained = next(iter(agents.items()))
  hardest = order_difficulties(trained)[-1]
  if partial:
    title = (
      f"The {words(first)} agent has a mean score of {score(trained[hardest].success, True)} on {words(hardest)} tasks"
    )
  else:
    title = f"The {words(first)} agent solves {percent(trained[hardest].success)} of {words(hardest)} tasks"
  if first == "recursive" and hardest in agents.get("single", {}):
    title += f"; without delegation it is {score(agents['single'][hardest].success, partial)}"
  lines = []
  for agent, trained in agents.items():
    warm = found.by_agent[agent].get("warm_start", {})
    before = "at first" if found.origin == "eval" else "before RL"
    parts = [
      f"{words(d)} <b>{with_interval(trained[d], partial)}</b>"
      + (f", {before}&nbsp;{score(warm[d].success, partial)}" if d in warm else "")
      for d in order_difficulties(trained)
    ]
    lines.append(f"<li><b>{words(agent)}</b>: {'; '.join(parts)}</li>")
  solved = summary.get(first, {}).get("max_depth_solved")
  seen = [depth for e in experiments if e.name == first for _, depths in e.each("train/max_depth") for depth in depths]
  if solved is not None and seen and solved > max(seen):
    lines.append(
      f"<li>Deepest tree solved: depth {number(solved)}; in training no tree went below {max(seen):.0f}.</li>"
    )
  return f'{kicker}<h1>{title}</h1><ul class="lead">{"".join(lines)}</ul>'


def tiles(summary: Mapping[str, Any], experiments: Sequence[Experiment]) -> str:
  made = []
  agents = {name: values for name, values in summary.items() if name != "intervals" and isinstance(values, Mapping)}
  for key, what, form in [
    ("max_depth_solved", "depth of the deepest tree solved", number),
    ("sampled_tokens", "tokens sampled in RL", short),
  ]:
    values = {name: form(values[key]) for name, values in agents.items() if values.get(key) is not None}
    if values:
      made.append((" / ".join(values.values()), f"{what}: {' / '.join(map(words, values))}"))
  if tasks := summary.get("tasks_per_difficulty"):
    order = order_difficulties(tasks)
    made.append((" / ".join(number(tasks[d]) for d in order), f"test tasks: {' / '.join(map(words, order))}"))
  seed = f", seed {number(summary['seed'])}" if "seed" in summary else ""
  if summary.get("seconds") is not None:
    made.append((f"{summary['seconds'] / 60:.1f} min", f"in all{seed}"))
  if not summary:
    made = [
      (
        " / ".join(number(max(row["step"] for row in run.rows)) for run in e.runs if run.rows),
        f"last step, {words(e.name)}",
      )
      for e in experiments[:6]
      if any(run.rows for run in e.runs)
    ]
  return f'<div class="tiles">{"".join(f"<div><b>{value}</b><span>{what}</span></div>" for value, what in made)}</div>'


def final_figures(experiments: Sequence[Experiment], partial: bool) -> str:
  """What each experiment came to, a column each; over several seeds the mean and the range."""
  names = lambda prefix: order_difficulties(key.removeprefix(prefix) for e in experiments for key in e.keys(prefix))
  success, rate = ("mean score" if partial else "success"), lambda x: score(x, partial)
  lines = [("steps", lambda run: max((row["step"] for row in run.rows), default=None), number)]
  lines += [(f"{success}, test, {words(d)}", _tested(d), rate) for d in _tests(experiments)]
  for d in names("eval/success/"):
    lines += [(f"{success}, last evaluation, {words(d)}", _last(f"eval/success/{d}"), rate)]
  lines += [
    (f"{success}, best evaluation", lambda run: max(run.series("eval/success")[1], default=None), rate),
    *((f"{success}, training, {words(d)}", _late(f"train/success/{d}"), rate) for d in names("train/success/")),
    ("agents per tree, training", _late("train/nodes_per_tree"), number),
    ("agents per tree, last evaluation", _last("eval/nodes_per_tree"), number),
    ("depth of the deepest tree, training", lambda run: max(run.series("train/max_depth")[1], default=None), number),
    ("tokens sampled", _last("tokens/sampled_total"), short),
    ("tokens sampled per second", _median("time/sampled_tokens_per_second"), number),
    ("seconds of a step", _median("time/step_seconds"), number),
    ("minutes of training", _minutes, number),
  ]
  rows = []
  for title, value, form in lines:
    cells = [[v for run in e.runs if (v := value(run)) is not None] for e in experiments]
    if any(cells):
      rows.append([title, *(_over_seeds(values, form) for values in cells)])
  heads = [words(e.name) + (f" <small>{len(e.runs)} seeds</small>" if len(e.runs) > 1 else "") for e in experiments]
  note = "Training: mean of the last tenth of the steps."
  if any(len(e.runs) > 1 for e in experiments):
    note += " Brackets: least and greatest of the seeds."
  return section("Final figures", table(["", *heads], rows) if rows else "", note)


def _tests(experiments: Sequence[Experiment]) -> list[str]:
  splits = [s for e in experiments for run in e.runs for s in run.tests.get("last", {}).get("splits", {})]
  return order_difficulties(short_split(split) for split in splits)


def _tested(difficulty: str):
  def value(run: Run) -> float | None:
    splits = run.tests.get("last", {}).get("splits", {})
    return next((r["success"] for split, r in splits.items() if short_split(split) == difficulty), None)

  return value


def _last(key: str):
  return lambda run: next(iter(run.series(key)[1][-1:]), None)


def _late(key: str):
  def value(run: Run) -> float | None:
    values = run.series(key)[1]
    return statistics.fmean(values[-max(1, len(values) // LAST_PART) :]) if values else None

  return value


def _median(key: str):
  return lambda run: statistics.median(values) if (values := run.series(key)[1]) else None


def _minutes(run: Run) -> float | None:
  """Of the steps, the evaluations and the warm start."""
  keys = ("time/step_seconds", "time/evaluation_seconds", "time/warm_start")
  return sum(sum(run.series(key)[1]) for key in keys) / 60 if run.series(keys[0])[1] else None


def _over_seeds(values: Sequence[float], form) -> str:
  if not values:
    return ""
  text = form(statistics.fmean(values) if len(values) > 1 else values[0])
  if len(values) > 1 and min(values) < max(values):
    text += f' <span class="interval">({form(min(values))}&ndash;{form(max(values))})</span>'
  return text


def alarm_table(experiments: Sequence[Experiment]) -> str:
  """A line for each alarm that was raised at some step, those that still are at the last one first."""
  lines, watched = [], 0
  for experiment in experiments:
    for run in experiment.runs:
      for prefix, kind in [("train", "training"), ("eval", "evaluation")]:
        rows = [row for row in run.rows if f"{prefix}/success" in row]
        watched += sum(f"{prefix}/refused_at_caps" in row for row in rows)
        raised: dict[str, list] = {}
        for row in rows:
          for alarm in alarms(row, prefix):
            raised.setdefault(alarm.name, []).append((row["step"], alarm))
        for name, found in raised.items():
          steps, last = [step for step, _ in found], rows[-1]["step"]
          on = steps[-1] == last
          state = (
            '<span class="badge on">now</span>' if on else f'<span class="badge off">until step {steps[-1]}</span>'
          )
          text = f'<span class="sentence">{html.escape(found[-1][1].text)}</span>'
          cells = [
            f"<b>{words(name)}</b>",
            text,
            state,
            f"{words(run.name)}, {kind}",
            f"{len(set(steps))} of {len(rows)}",
          ]
          cells += [strip(steps, rows[0]["step"], last), percent(found[-1][1].limit)]
          lines.append((not on, -len(steps), cells))
  if not lines:
    none = f"<p>No alarm in {watched:,} rows of metrics.</p>" if watched else ""
    return section("Alarms", none)
  head = ["alarm", "when it was last raised", "raised", "run", "steps", "where", "limit"]
  body = table(head, [cells for *_, cells in sorted(lines, key=lambda line: line[:2])], "texts")
  return section("Alarms", body, "What each means and what helps is in docs/troubleshooting.md.")


FUNNEL = [  # metric, in words, the metric that it is a share of
  ("trees_started", "trees started", None),
  ("trees_dropped_fault", "dropped: a fault of the harness", "trees_started"),
  ("trees_finished", "finished", "trees_started"),
  ("trees_dropped_alone", "without signal: no other valid tree in the group", "trees_started"),
  ("trees_dropped_flat", "without signal: all rollouts of the group came out the same", "trees_started"),
  ("trees_trained", "in groups with a signal", "trees_started"),
  ("trees_not_replayable", "finished, but a clock cut in", "trees_started"),
  ("nodes", "agents of finished trees", None),
  ("nodes_unsampled", "that sampled nothing", "nodes"),
  ("trajectories", "trajectories of agents", None),
  ("trajectories_zero", "with advantage 0", "trajectories"),
  ("trajectories_nonzero", "with nonzero advantage", "trajectories"),
  ("tokens_sampled", "action tokens sampled", None),
  ("tokens_dropped_fault", "in trees that were dropped", "tokens_sampled"),
  ("tokens_dropped_zero", "with advantage 0", "tokens_sampled"),
  ("tokens_dropped_update", "in updates that were skipped", "tokens_sampled"),
  ("tokens_trained", "trained on", "tokens_sampled"),
]


def funnel(experiments: Sequence[Experiment]) -> str:
  """What became of the batches, summed over steps and seeds: trees, trajectories, tokens."""
  known = [name for name, *_ in FUNNEL]
  found = [key.removeprefix("funnel/") for e in experiments for key in e.keys("funnel/")]
  others = [(name, words(name), None) for name in dict.fromkeys(found) if name not in known]
  rows = []
  for name, title, whole in [*FUNNEL, *others]:
    if name not in found:
      continue
    cells = []
    for e in experiments:
      count, of = e.total(f"funnel/{name}"), e.total(f"funnel/{whole}") if whole else 0
      known = bool(e.each(f"funnel/{name}"))
      cells.append((number(round(count)) + (" " + bar(count / of) if of else "")) * known)
    rows.append([f'<span class="{"of-whole" if whole else ""}">{title}</span>', *cells])
  body = table(["sum over all steps", *(words(e.name) for e in experiments)], rows) if rows else ""
  return section("Where the data went", body)


def config(runs: Sequence[Run]) -> str:
  """First where the runs differ, then everything."""
  configs = [run.settings for run in runs]
  keys = list(dict.fromkeys(key for settings in configs for key in settings))
  if not keys:
    return ""
  heads = ["", *(words(run.name) for run in runs)]

  def row(key: str) -> list[str]:
    return [f"<code>{html.escape(k)}</code>" for k in (key, *(settings.get(key, "not set") for settings in configs))]

  differing = [key for key in keys if len({settings.get(key) for settings in configs}) > 1]
  body = (
    f"<h3 class=group>Where they differ</h3>{table(heads, list(map(row, differing)), 'texts')}" if differing else ""
  )
  body += f"<details><summary>All {len(keys)} settings</summary>{table(heads, list(map(row, keys)), 'texts')}</details>"
  return section("Config", body)
