"""The figures of a report, as plotly figures. Pure. Colours are Okabe and Ito's, told apart by colour-blind readers."""

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from rao_jax.report.data import Result, Run, order_difficulties

AGENT_COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#D55E00", "#F0E442")
DEPTH_COLOURS = ("#440154", "#414487", "#2A788E", "#22A884", "#7AD151", "#C9C116")  # viridis, darker at the end
SOLVED, FAILED = "#009E73", "#D55E00"
DASHES = {"solid": "solid", "dot": "dotted"}  # plotly's name -> in words
INK, GRID = "#1f2733", "#e6e9ee"


def colours(agents: Sequence[str]) -> dict[str, str]:
  return {agent: AGENT_COLOURS[i % len(AGENT_COLOURS)] for i, agent in enumerate(agents)}


def label(name: str) -> str:
  """A name as plotly shall show it, which reads a few HTML tags."""
  return html.escape(str(name).replace("_", " "), quote=False)


def faint(colour: str, alpha: float) -> str:
  return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, {alpha})"


def _layout(figure: go.Figure, height: int, **axes) -> go.Figure:
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


def success_bars(results: Mapping[str, Mapping[str, Mapping[str, Result]]], stages: Mapping[str, str]) -> go.Figure:
  """Grouped bars by difficulty: each agent in its colour, the warm start hatched before the trained policy."""
  figure, colour = go.Figure(), colours(list(results))
  difficulties = order_difficulties(d for agent in results.values() for cells in agent.values() for d in cells)
  for agent, by_stage in results.items():
    for stage, stage_label in stages.items():
      cells = by_stage.get(stage, {})
      if not cells:
        continue
      values = [cells.get(d) for d in difficulties]
      up = [v.high - v.success if v and v.high is not None else None for v in values]
      down = [v.success - v.low if v and v.low is not None else None for v in values]
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
        error_y={"type": "data", "array": up, "arrayminus": down, "color": INK, "thickness": 1.3, "width": 4},
        hovertemplate="%{y:.1%}",
      )
  return _layout(
    figure,
    400,
    barmode="group",
    bargap=0.22,
    bargroupgap=0.08,
    xaxis={"showgrid": False},
    yaxis={"range": [0, 1.04], "tickformat": ".0%", "title": {"text": "tasks solved"}},
  )


def _smooth(values: Sequence[float]) -> list[float]:
  """Mean over the 5% of the points around each one, fewer at the ends."""
  reach = len(values) // 40
  windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
  return [sum(window) / len(window) for window in windows]


def _add_curve(figure: go.Figure, steps, values, name: str, colour: str, what="", dash="solid", legend=True):
  if len(values) >= 40:  # noisy curves: the raw one behind its running mean
    raw = {"color": faint(colour, 0.25), "width": 1}
    figure.add_scatter(x=steps, y=values, mode="lines", line=raw, showlegend=False, hoverinfo="skip")
    values = _smooth(values)
  figure.add_scatter(
    x=steps,
    y=values,
    name=name,
    mode="lines" if len(values) > 12 else "lines+markers",
    line={"color": colour, "width": 2, "dash": dash},
    showlegend=legend,
    hovertemplate=f"%{{y:.4~g}} {what}",
  )


def curve(runs: Sequence[Run], keys: Mapping[str, str], colour: Mapping[str, str], share: bool = False):
  """Metrics against steps, agents by colour, metrics by dash; None if no run has any. `keys`: metric -> what it is."""
  figure = go.Figure()
  for run in runs:
    named = False
    for (key, what), dash in zip(keys.items(), DASHES):
      steps, values = run.series(key)
      if values:
        _add_curve(figure, steps, values, label(run.name), colour[run.name], what, dash, legend=not named)
        named = True
  if not figure.data:
    return None
  axes = {"yaxis": {"tickformat": ".0%", "range": [-0.02, 1.04]}} if share else {}
  return _layout(figure, 260, xaxis={"title": {"text": "step"}}, showlegend=True, **axes)


def curves_by_suffix(run: Run, prefix: str, stacked: bool = False, by_depth: bool = False):
  """One line per metric that begins with `prefix`, or areas stacked on each other; None if there is none."""
  figure = go.Figure()
  palette = DEPTH_COLOURS if by_depth else AGENT_COLOURS
  for i, key in enumerate(run.keys(prefix)):
    steps, values = run.series(key)
    if not values:
      continue
    name, colour = label(key.removeprefix(prefix)), palette[i % len(palette)]
    if stacked:
      line = {"width": 0.5, "color": colour}
      figure.add_scatter(
        x=steps,
        y=values,
        name=name,
        stackgroup="all",
        line=line,
        fillcolor=faint(colour, 0.75),
        hovertemplate="%{y:.1%}",
      )
    else:
      _add_curve(figure, steps, values, name, colour)
  if not figure.data:
    return None
  axes = {"yaxis": {"tickformat": ".0%", "range": [0, 1]}} if stacked else {}
  return _layout(figure, 290, xaxis={"title": {"text": "step"}}, showlegend=True, **axes)


def nodes_by_depth(run: Run):
  """How many agents worked at each depth, solved and not; None without dumps."""
  depths = sorted(run.trees.by_depth)
  if not depths:
    return None
  nodes, solved = zip(*(run.trees.by_depth[d] for d in depths))
  figure = go.Figure()
  for name, values, colour in [
    ("goal reached", solved, SOLVED),
    ("not reached", [n - s for n, s in zip(nodes, solved)], FAILED),
  ]:
    figure.add_bar(x=depths, y=list(values), width=0.6, name=name, marker={"color": colour})
  axes = {
    "xaxis": {
      "title": {"text": "depth of the agent"},
      "dtick": 1,
      "range": [-0.6, max(depths[-1], 2) + 0.6],
      "showgrid": False,
    },
    "yaxis": {"title": {"text": "agents"}},
  }
  return _layout(figure, 270, barmode="stack", **axes)
