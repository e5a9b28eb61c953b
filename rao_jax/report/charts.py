"""The figures of a report, as plotly figures. Pure. Colours are Okabe and Ito's, told apart by colour-blind readers."""

import bisect
import collections
import html
import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from rao_jax.report.data import Experiment, Result, order_difficulties
from rao_jax.report.trees import Facts

AGENT_COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#D55E00", "#8C6D1F", "#7F7F7F")
# viridis, darker at the end
DEPTH_COLOURS = ("#440154", "#482878", "#3E4A89", "#31688E", "#26828E", "#1F9E89", "#35B779", "#6DCD59", "#B4C916")
OUTCOME_COLOURS = {"finished": "#009E73", "truncated": "#D55E00", "context_full": "#E69F00", "turn_cap": "#CC79A7"}
SOLVED, FAILED = "#009E73", "#D55E00"
DASHES = {"solid": "solid", "dot": "dotted"}  # plotly's name -> in words
INK, GRID = "#1f2733", "#e6e9ee"
NOISY = 40  # points from which on a curve is shown as its running mean
MOST = 1000  # points of a curve
BINS = 24


def colours(agents: Sequence[str]) -> dict[str, str]:
  return {agent: AGENT_COLOURS[i % len(AGENT_COLOURS)] for i, agent in enumerate(agents)}


def label(name: str) -> str:
  """A name as plotly shall show it, which reads a few HTML tags."""
  return html.escape(str(name).replace("_", " "), quote=False)


def faint(colour: str, alpha: float) -> str:
  return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, {alpha})"


def layout(figure: go.Figure, height: int, **axes) -> go.Figure:
  figure.update_layout(
    template="none",
    height=height,
    margin={"l": 48, "r": 14, "t": 34, "b": 40},
    font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
    legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
    hovermode="x unified",
    paper_bgcolor="rgba(0,0,0,0)",
    plot_bgcolor="rgba(0,0,0,0)",
    **axes,
  )
  figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
  figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, automargin=True)
  return figure


def success_axis(partial: bool, least: float = -0.02) -> dict:
  """Rates are percentages, scores are numbers."""
  return {"range": [least, 1.04], "tickformat": ".1f" if partial else ".0%"}


def success_bars(
  results: Mapping[str, Mapping[str, Mapping[str, Result]]], stages: Mapping[str, str], partial: bool
) -> go.Figure:
  """Grouped bars by difficulty: each agent in its colour, the warm start hatched before the trained policy."""
  figure, colour = go.Figure(), colours(list(results))
  difficulties = order_difficulties(d for agent in results.values() for cells in agent.values() for d in cells)
  for agent, by_stage in results.items():
    for stage, stage_label in stages.items():
      cells = by_stage.get(stage, {})
      if not cells:
        continue
      values = [cells.get(d) for d in difficulties]
      known = [v if v and v.low is not None else None for v in values]
      up, down = ([v and way(v) for v in known] for way in (lambda v: v.high - v.success, lambda v: v.success - v.low))
      error = {"type": "data", "array": up, "arrayminus": down, "color": INK, "thickness": 1.3, "width": 4}
      hatched = stage == "warm_start"
      figure.add_bar(
        x=[label(d) for d in difficulties],
        y=[v.success if v else None for v in values],
        name=f"{label(agent)}, {stage_label}",
        marker={
          "color": faint(colour[agent], 0.25) if hatched else colour[agent],
          "line": {"color": colour[agent], "width": 1.2},
          "pattern": {"shape": "/" if hatched else "", "fgcolor": colour[agent], "size": 7, "solidity": 0.25},
        },
        error_y=error if any(known) else None,
        hovertemplate="%{y:.3f}" if partial else "%{y:.1%}",
      )
  title = {"title": {"text": "mean score" if partial else "tasks solved"}}
  return layout(
    figure,
    400,
    barmode="group",
    bargap=0.22,
    bargroupgap=0.08,
    xaxis={"showgrid": False, "type": "category"},
    yaxis=success_axis(partial, least=0) | title,
  )


def thin(steps: Sequence[int], *series: Sequence[float]) -> list[list[float]]:
  """Steps and series as they are, or of very many steps the means of neighbours."""
  width = -(-len(steps) // MOST)
  mean = lambda some: [sum(some[i : i + width]) / len(some[i : i + width]) for i in range(0, len(some), width)]
  return [list(some) if width <= 1 else mean(some) for some in (steps, *series)]


def _smooth(values: Sequence[float]) -> list[float]:
  """Of a noisy curve the mean over the 5% of the points around each one, fewer at the ends."""
  if len(values) < NOISY:
    return list(values)
  reach = len(values) // 40
  windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
  return [sum(window) / len(window) for window in windows]


def _add_line(figure: go.Figure, steps, values, name: str, colour: str, what="", dash="solid", legend=True) -> None:
  figure.add_scatter(
    x=steps,
    y=_smooth(values),
    name=name,
    mode="lines" if len(values) > 12 else "lines+markers",
    line={"color": colour, "width": 2, "dash": dash},
    showlegend=legend,
    legendgroup=name,
    hovertemplate=f"%{{y:.4~g}} {what}",
  )


def _add_faint(figure: go.Figure, steps, values, colour: str) -> None:
  raw = {"color": faint(colour, 0.25), "width": 1}
  figure.add_scatter(x=steps, y=values, mode="lines", line=raw, showlegend=False, hoverinfo="skip")


def _add_curve(figure: go.Figure, steps, values, colour: str, **style) -> None:
  """A noisy one behind its running mean."""
  steps, values = thin(steps, values)
  if len(values) >= NOISY:
    _add_faint(figure, steps, values, colour)
  _add_line(figure, steps, values, colour=colour, **style)


def _add_band(figure: go.Figure, experiment: Experiment, key: str, name: str, colour: str, **style) -> None:
  """The mean of the seeds within the band from the least to the greatest; each seed faint, for steps not all have."""
  for series in experiment.each(key):
    _add_faint(figure, *thin(*series), colour)
  steps, mean, low, high = thin(*experiment.band(key))
  edge = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip", "legendgroup": name}
  figure.add_scatter(x=steps, y=_smooth(low), **edge)
  figure.add_scatter(x=steps, y=_smooth(high), fill="tonexty", fillcolor=faint(colour, 0.18), **edge)
  _add_line(figure, steps, mean, name, colour, **style)


def curve(
  experiments: Sequence[Experiment], keys: Mapping[str, str], colour: Mapping[str, str], axis: dict | None = None
):
  """Metrics against steps, agents by colour, metrics by dash; None if no run has two values.

  The `meta` of a curve is its experiment's name: page.js draws it against what its steps have cost, if asked.

  Args:
    keys: metric -> what it is, in words.
    axis: of the values; the default fits them.
  """
  figure = go.Figure()
  for experiment in experiments:
    named, others = False, len(figure.data)
    for (key, what), dash in zip(keys.items(), DASHES):
      if not experiment.each(key):
        continue
      style = {"name": label(experiment.name), "colour": colour[experiment.name], "what": what, "dash": dash}
      if len(experiment.each(key)) > 1:
        _add_band(figure, experiment, key, **style, legend=not named)
      else:
        _add_curve(figure, *experiment.each(key)[0], **style, legend=not named)
      named = True
    for trace in figure.data[others:]:
      trace.meta = experiment.name
  if all(len(trace.x) < 2 for trace in figure.data):
    return None
  return layout(figure, 260, xaxis={"title": {"text": "step"}}, yaxis=axis or _axis(figure), showlegend=True)


def _axis(figure: go.Figure) -> dict:
  values = {y for trace in figure.data for y in trace.y}
  if len(values) == 1:  # never moves: plotly would draw ticks around it that are all the same
    value = values.pop()
    return {"range": [min(0, 2 * value), max(0, 2 * value) or 1]}
  return {"exponentformat": "power"} if values and max(map(abs, values)) < 1e-3 else {}  # not 600f for 6e-13


def curves_by_suffix(
  experiment: Experiment,
  prefix: str,
  suffix: str = "",
  stacked: str = "",
  by_depth: bool = False,
  leave: Sequence[str] = (),
):
  """One line per metric `prefix...suffix`, or areas stacked on each other (of a `share` or of any `sum`).

  Of several seeds their mean. None if there is no such metric.
  """
  figure = go.Figure()
  palette = DEPTH_COLOURS if by_depth else AGENT_COLOURS
  keys = [key for key in experiment.keys(prefix) if key.endswith(suffix)]
  if stacked:
    keys.sort(key=experiment.total, reverse=True)  # the largest is the lowest
  names = {key: key.removeprefix(prefix).removesuffix(suffix) for key in keys}
  for i, key in enumerate(key for key in keys if names[key] not in leave):
    steps, values = thin(*experiment.series(key))
    if not values or (stacked and not any(values)):
      continue
    name, colour = label(names[key]), OUTCOME_COLOURS.get(names[key], palette[i % len(palette)])
    if stacked:
      figure.add_scatter(
        x=steps,
        y=values,
        name=name,
        stackgroup="all",
        line={"width": 0.5, "color": colour},
        fillcolor=faint(colour, 0.75),
        hovertemplate="%{y:.1%}" if stacked == "share" else "%{y:.3~g}",
      )
    else:
      _add_curve(figure, steps, values, colour, name=name)
  if not figure.data:
    return None
  figure.update_traces(meta=experiment.name)
  axis = {"tickformat": ".0%", "range": [0, 1]} if stacked == "share" else _axis(figure)
  return layout(figure, 290, xaxis={"title": {"text": "step"}}, yaxis=axis, showlegend=True)


def nodes_by_depth(trees: Sequence[Facts]):
  """How many agents worked at each depth; of each the share of success that they had, summed. None without dumps."""
  nodes, success = collections.Counter(), collections.Counter()
  for tree in trees:
    for depth, (n, s) in enumerate(tree.by_depth):
      nodes[depth] += n
      success[depth] += s
  if not nodes:
    return None
  depths = sorted(nodes)
  figure = go.Figure()
  for name, values, colour in [
    ("success", [success[d] for d in depths], SOLVED),
    ("no success", [nodes[d] - success[d] for d in depths], FAILED),
  ]:
    figure.add_bar(x=depths, y=values, width=0.6, name=name, marker={"color": colour}, hovertemplate="%{y:.4~g}")
  axes = {
    "xaxis": {
      "title": {"text": "depth of the agent"},
      "dtick": 1 if depths[-1] < 16 else None,
      "range": [-0.6, max(depths[-1], 2) + 0.6],
      "showgrid": False,
    },
    "yaxis": {"title": {"text": "agents"}},
  }
  return layout(figure, 270, barmode="stack", **axes)


def histogram(values: Mapping[str, Sequence[float]], colour: Mapping[str, str], what: str):
  """Shares of trees by a number of theirs, agents over each other; whole numbers that are few have a bin each.

  None if there are no values.
  """
  values = {name: some for name, some in values.items() if some}
  if not values:
    return None
  least, most = (f(x for some in values.values() for x in some) for f in (min, max))
  width = max(1, math.ceil((most - least + 1) / BINS))
  edges = list(range(int(least), int(most) + width + 1, width))
  names = [f"{a}" if width == 1 else f"{a} to {a + width - 1}" for a in edges[:-1]]
  figure = go.Figure()
  for name, some in values.items():
    counts = collections.Counter(bisect.bisect_right(edges, x) - 1 for x in some)
    figure.add_bar(
      x=[a + (width - 1) / 2 for a in edges[:-1]],
      y=[counts[i] / len(some) for i in range(len(names))],
      width=width * 0.9,
      name=label(name),
      customdata=names,
      marker={"color": faint(colour[name], 0.5), "line": {"color": colour[name], "width": 1}},
      hovertemplate="%{y:.1%} with %{customdata}",
    )
  axes = {
    "xaxis": {"title": {"text": what}, "showgrid": False, "dtick": 1 if most - least < 16 else None},
    "yaxis": {"tickformat": ".0%", "title": {"text": "trees"}, "rangemode": "tozero"},
  }
  return layout(figure, 280, barmode="overlay", showlegend=True, **axes)
