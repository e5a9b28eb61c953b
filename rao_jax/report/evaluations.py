"""The part of the page on `python -m rao_jax.evaluate`: what recursion brought and what it cost. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from rao_jax.report import charts
from rao_jax.report.data import Experiment, Result, order_difficulties
from rao_jax.report.figures import Figures
from rao_jax.report.markup import number, score, section, table, with_interval, words

SHOWN = 8  # evaluations of a run
SYMBOLS = {"circle": "\u25cf", "square": "\u25a0", "diamond": "\u25c6", "triangle-up": "\u25b2", "cross": "\u271a"}


def evaluations(experiments: Sequence[Experiment], figures: Figures, partial: bool) -> str:
  """Each evaluation of each run: a table, success by tier, success against both costs."""
  parts = []
  for run in (run for experiment in experiments for run in experiment.runs):
    for evaluation in run.evaluations[-SHOWN:]:
      title = f"{words(run.name)}: {describe(evaluation)}"
      body = figure_cards(evaluation, figures, partial) + agents_table(evaluation, partial)
      parts.append(f"<details{' open' if not parts else ''}><summary>{title}</summary>{body}</details>")
  note = (
    "Single agents work the same tasks. Intervals are 95%. Longest chain: tokens that are sampled one after the other "
    "however many agents decode side by side. Joined points: the best of more tries of a task. Hollow: another does "
    "as well for less."
  )
  return section("Evaluations", "".join(parts), note)


def describe(evaluation: Mapping[str, Any]) -> str:
  """Which checkpoint was evaluated, and how."""
  temperature = evaluation.get("temperature")
  parts = [
    f"{words(evaluation.get('checkpoint', ''))} checkpoint of step {number(evaluation.get('step', '?'))}",
    f"depth cap {number(evaluation.get('max_depth', '?'))}",
    f"window {number(evaluation.get('window', '?'))}",
    f"{number(evaluation.get('k', 1))} tree(s) a task",
    f"temperature {number(temperature)}" if temperature else "greedy",
  ]
  return ", ".join(parts)


def agents_of(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """Name -> figures of the agent that was evaluated, and of the single ones it is compared with."""
  agents = [evaluation, *evaluation.get("single", ())]
  return {agent.get("name", f"agent {i}"): agent for i, agent in enumerate(agents)}


def agents_table(evaluation: Mapping[str, Any], partial: bool) -> str:
  rows = []
  agents = agents_of(evaluation)
  for split in order_difficulties(evaluation["splits"]):
    for name, agent in agents.items():
      if not (r := agent["splits"].get(split)):
        continue
      against = agent.get("against", {}).get(split)
      change = ""
      if against:  # of ours over the other: shown the other way round, beside the other
        low, high = (-x for x in reversed(against["interval"]))
        change = f'{-against["success"]:+.3f} <span class="interval">({low:+.3f} to {high:+.3f})</span>'
      cells = [number(r["tasks"]), with_interval(Result(r["success"], *r["interval"]), partial), change]
      for key in ("nodes_per_tree", "depth_reached", "branching", "parallel_share"):
        value = r.get(key)
        cells.append("" if value is None else score(value, False) if key == "parallel_share" else f"{value:.1f}")
      cells += [
        number(round(r[key])) if key in r else "" for key in ("sampled_tokens_per_tree", "critical_path_per_tree")
      ]
      rows.append([f"{words(split)}, {words(name)}", *cells])
  head = [
    "split, agent",
    "tasks",
    "mean score" if partial else "solved",
    f"against {words(next(iter(agents)))}",
    "agents per tree",
    "depth",
  ]
  head += ["children of a parent", "launched in parallel", "tokens per tree", "on the longest chain"]
  return table(head, rows)


def figure_cards(evaluation: Mapping[str, Any], figures: Figures, partial: bool) -> str:
  agents = agents_of(evaluation)
  colour = charts.colours(list(agents))
  what = "Mean score" if partial else "Success"
  note = ", ".join(f"{sign} {split.replace('_', ' ')}" for split, sign in zip(splits_of(evaluation), SYMBOLS.values()))
  cards = [figures.card(f"{what} by tier", by_tier(agents, colour, partial))]
  for title, cost, axis in [
    ("tokens", "tokens", "tokens per task"),
    ("the longest chain", "critical_path", "tokens one after the other"),
  ]:
    cards.append(
      figures.card(f"{what} against {title}", against_cost(evaluation, colour, cost, axis, partial), note=note)
    )
  return f'<div class="grid">{"".join(cards)}</div>'


def splits_of(evaluation: Mapping[str, Any]) -> list[str]:
  """The splits that are compared by cost, but for their parts by difficulty."""
  return [split for split in order_difficulties(evaluation.get("pareto", {})) if "/" not in split]


def by_tier(agents: Mapping[str, Mapping[str, Any]], colour: Mapping[str, str], partial: bool) -> go.Figure | None:
  """Success against the tier of the task, with intervals; None if there are less than two tiers."""
  figure = go.Figure()
  for name, agent in agents.items():
    tiers = agent.get("tiers") or {}
    if len(tiers) < 2:
      continue
    rows = list(tiers.values())
    figure.add_scatter(
      x=[int(tier) for tier in tiers],
      y=[r["success"] for r in rows],
      error_y={
        "type": "data",
        "array": [r["interval"][1] - r["success"] for r in rows],
        "arrayminus": [r["success"] - r["interval"][0] for r in rows],
        "thickness": 1,
        "width": 3,
      },
      name=charts.label(name),
      mode="lines+markers",
      line={"color": colour[name], "width": 2},
      hovertemplate="%{y:.3f}",
    )
  if not figure.data:
    return None
  return charts.layout(figure, 300, xaxis={"title": {"text": "tier"}, "dtick": 1}, yaxis=charts.success_axis(partial))


def against_cost(
  evaluation: Mapping[str, Any], colour: Mapping[str, str], cost: str, what: str, partial: bool
) -> go.Figure | None:
  """Success against a cost, agents by colour, splits by symbol; None if they were not compared."""
  figure = go.Figure()
  named = set()
  for split, symbol in zip(splits_of(evaluation), SYMBOLS):
    points = evaluation["pareto"][split]
    for name in dict.fromkeys(point["agent"] for point in points):
      own = [point for point in points if point["agent"] == name]
      figure.add_scatter(
        x=[point[cost] for point in own],
        y=[point["success"] for point in own],
        name=charts.label(name),
        legendgroup=name,
        cliponaxis=False,
        showlegend=name not in named,
        mode="lines+markers",
        marker={
          "symbol": [symbol + "-open" * (cost in point["dominated"]) for point in own],
          "size": 10,
          "color": colour[name],
          "line": {"width": 1.5, "color": colour[name]},
        },
        line={"color": charts.faint(colour[name], 0.5), "width": 1.5},
        customdata=[[point["k"]] for point in own],
        hovertemplate=f"{charts.label(split)}: %{{y:.3f}} for %{{x:,.0f}} {what}, best of %{{customdata[0]}}",
      )
      named.add(name)
  if not figure.data:
    return None
  axes = {"xaxis": {"type": "log", "title": {"text": what}, "dtick": "D2"}, "yaxis": charts.success_axis(partial)}
  return charts.layout(figure, 360, **axes).update_layout(hovermode="closest")
