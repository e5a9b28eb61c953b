"""What a sweep has found: a table, and a page with the table and a parallel-coordinates plot. Impure: writes files."""

import html
import json
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.offline

from rao_jax.report.data import order_difficulties
from rao_jax.report.markup import script_json
from rao_jax.report.page import POLICY
from rao_jax.sweep.state import Row, axes

SEED = "seed"
LOG = 30  # an axis whose largest value is so many times its smallest is drawn by logarithms
# Parallel coordinates are drawn by WebGL programs that plotly puts together at view time.
PAGE_POLICY = POLICY.replace("script-src", "script-src 'unsafe-eval'")


def columns(rows: Sequence[Row], metric: str) -> list[str]:
  """The metric, and its parts by difficulty: `eval/success/easy`."""
  parts = {name.removeprefix(f"{metric}/") for row in rows for name in row.metrics if name.startswith(f"{metric}/")}
  return [metric, *(f"{metric}/{part}" for part in order_difficulties(sorted(parts)))]


def ranked(rows: Sequence[Row], metric: str) -> list[Row]:
  """Best first; those without the metric last, in their order."""
  return sorted(rows, key=lambda row: -row.metrics.get(metric, -math.inf))


def over_seeds(rows: Sequence[Row], metric: str) -> list[tuple[dict[str, Any], list[float]]]:
  """Settings but for the seed -> the metric of each seed that has it; best mean first. Empty if no seed is swept."""
  keys = axes([row.point for row in rows])
  if SEED not in keys:
    return []
  found: dict[str, tuple[dict[str, Any], list[float]]] = {}
  for row in rows:
    own = {key: row.axis(key) for key in keys if key != SEED}
    values = found.setdefault(json.dumps(own), (own, []))[1]
    values += [row.metrics[metric]] if metric in row.metrics else []
  return sorted((pair for pair in found.values() if pair[1]), key=lambda pair: -statistics.fmean(pair[1]))


def _header(rows: Sequence[Row], metric: str) -> list[str]:
  return ["point", *axes([row.point for row in rows]), *columns(rows, metric), "step", "seconds", "state"]


def _cells(row: Row, rows: Sequence[Row], metric: str) -> list[Any]:
  settings = [row.axis(key) for key in axes([r.point for r in rows])]
  found = [row.metrics.get(name) for name in columns(rows, metric)]
  return [row.point.name, *settings, *found, row.step, row.seconds and round(row.seconds), str(row.state)]


def _shown(value: Any) -> str:
  if value is None:
    return "-"
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def text_table(rows: Sequence[Row], metric: str) -> str:
  """For a terminal; with seeds a second table of means."""
  tables = [[_header(rows, metric)] + [list(map(_shown, _cells(row, rows, metric))) for row in ranked(rows, metric)]]
  if groups := over_seeds(rows, metric):
    tables.append([_seed_header(groups, metric)] + [list(map(_shown, _seed_cells(*group))) for group in groups])
  return "\n\n".join(map(_aligned, tables))


def _seed_header(groups: Sequence[tuple[dict[str, Any], list[float]]], metric: str) -> list[str]:
  return [*groups[0][0], "seeds", f"{metric}, mean", "least", "greatest"]


def _seed_cells(settings: dict[str, Any], values: list[float]) -> list[Any]:
  return [*settings.values(), len(values), statistics.fmean(values), min(values), max(values)]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*lines)]
  return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def figure(rows: Sequence[Row], metric: str) -> go.Figure | None:
  """A line for each point that has the metric, coloured by it; None with fewer than two such points."""
  rows = [row for row in rows if metric in row.metrics]
  if len(rows) < 2:
    return None
  dimensions = [dimension(key, [row.axis(key) for row in rows]) for key in axes([row.point for row in rows])]
  for name in columns(rows, metric):
    values = [row.metrics.get(name, math.nan) for row in rows]
    if not any(map(math.isnan, values)):
      dimensions.append(dimension(name, values))
  line = dict(color=[row.metrics[metric] for row in rows], colorscale="Viridis", showscale=True)
  plot = go.Parcoords(dimensions=dimensions, line=line, labelside="top", unselected=dict(line=dict(opacity=0.1)))
  layout = go.Layout(margin=dict(l=70, r=40, t=70, b=30), height=420, font=dict(size=13))
  return go.Figure(plot, layout)


def dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
  """An axis of the plot: of numbers, by logarithms if they are far apart, with a tick at each if they are few."""
  numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
  if not numbers:
    kinds = sorted({str(value) for value in values})
    places = list(range(len(kinds)))
    return dict(label=name, values=[kinds.index(str(v)) for v in values], tickvals=places, ticktext=kinds)
  few = sorted(set(values)) if len(set(values)) <= 8 else None
  if min(values) > 0 and max(values) >= LOG * min(values):
    ticks = few or [10.0**k for k in range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)]
    logs = lambda some: [math.log10(value) for value in some]
    return dict(label=name, values=logs(values), tickvals=logs(ticks), ticktext=[f"{tick:.4g}" for tick in ticks])
  out = dict(label=name, values=list(values))
  if few and "/" not in name:  # a setting
    out |= dict(tickvals=few, ticktext=[_shown(value) for value in few])
  return out


STYLE = """
:root { color-scheme: light; font: 15px/1.45 system-ui, sans-serif; color: #1d2433; background: #fff }
body { max-width: 1200px; margin: 0 auto; padding: 1rem }
h1 { overflow-wrap: anywhere; font-size: 1.5rem }
.wide { overflow-x: auto }
#plot { min-width: 700px }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #dde2ea }
th { cursor: pointer; vertical-align: bottom }
th:hover { background: #f0f3f8 }
tr.best td { font-weight: 600 }
"""
SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
if (data) Plotly.newPlot("plot", data.data, data.layout, {displaylogo: false, responsive: true});
for (const table of document.querySelectorAll("table"))
  table.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
    const body = table.tBodies[0], up = head.dataset.up !== "1";
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)], numbers = [Number(x), Number(y)];
      const less = numbers.some(Number.isNaN) ? x.localeCompare(y) : numbers[0] - numbers[1];
      return up ? less : -less;
    };
    for (const row of [...body.rows].sort(order)) body.append(row);
    head.dataset.up = up ? "1" : "0";
  }));
"""


def page(title: str, rows: Sequence[Row], metric: str) -> str:
  """The page as a string; it holds all that it shows."""
  plot = figure(rows, metric)
  states = {state: sum(row.state == state for row in rows) for state in dict.fromkeys(row.state for row in rows)}
  told = ", ".join(f"{n} {state}" for state, n in states.items())
  parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{len(rows)} points: {told}.</p>"]
  if plot:
    parts.append("<p>Drag along an axis to choose lines; click beside what you chose to see all again.</p>")
  parts.append('<div class="wide"><div id="plot"></div></div>' if plot else "<p>No two points have results yet.</p>")
  if groups := over_seeds(rows, metric):
    parts += ["<h2>Over seeds</h2>", _table(_seed_header(groups, metric), [_seed_cells(*group) for group in groups])]
  parts += [
    "<h2>Points</h2>",
    _table(_header(rows, metric), [_cells(row, rows, metric) for row in ranked(rows, metric)]),
  ]
  return "\n".join(
    [
      '<!doctype html><html lang="en"><head><meta charset="utf-8">',
      f'<meta http-equiv="Content-Security-Policy" content="{PAGE_POLICY}">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
      *parts,
      f'<script type="application/json" id="data">{script_json(plot and json.loads(plot.to_json()))}</script>',
      f"<script>{plotly.offline.get_plotlyjs()}</script>" if plot else "",
      f"<script>{SCRIPT}</script></body></html>",
    ]
  )


def _table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
  cell = lambda value: (
    f'<td data-value="{html.escape(str(-1 if value is None else value))}">{html.escape(_shown(value))}</td>'
  )
  body = "".join(
    f"<tr{' class=best' if i == 0 else ''}>{''.join(map(cell, line))}</tr>" for i, line in enumerate(lines)
  )
  head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
  return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def write(folder: pathlib.Path, title: str, rows: Sequence[Row], metric: str) -> None:
  """Writes sweep.html, and sweep.json with the same figures."""
  facts = [
    {
      "point": row.point.name, "overrides": dict(row.point.overrides), "state": str(row.state), "step": row.step,
      "seconds": row.seconds, "metrics": {name: row.metrics.get(name) for name in columns(rows, metric)},
    }
    for row in ranked(rows, metric)
  ]  # fmt: skip
  for name, text in (("sweep.html", page(title, rows, metric)), ("sweep.json", json.dumps(facts, indent=1))):
    new = folder / (name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(folder / name)
