"""The page: one file that holds all its sections and needs no network. Impure: reads runs, writes the file."""

import importlib.resources
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.offline

from rao_jax.report import charts, evaluations, overview, sections
from rao_jax.report.data import Run, by_seed, read_runs, results
from rao_jax.report.figures import Figures
from rao_jax.report.markup import script_json, section
from rao_jax.report.pack import PAGE_BYTES, choose, compress, pack_trees
from rao_jax.report.trees import find

# Everything is inline; the browser is told to fetch nothing at all.
POLICY = (
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
SCRIPTS = ("elements.js", "layout.js", "drawing.js", "panel.js", "viewer.js", "page.js")  # in one script element


def write_report(
  workdirs: Sequence[str | os.PathLike] | Mapping[str, str | os.PathLike],
  out: str | os.PathLike,
  summary: Mapping[str, Any] | None = None,
  tree: str | None = None,
) -> None:
  """Writes the report of one or more runs; those that differ by their seed alone are one experiment.

  Args:
    workdirs: directories with `config.json`, `metrics.jsonl`, `trees/*.jsonl`, `test_*.json`, each of which may be
      missing; or a mapping from the name to show to the directory.
    out: the HTML file.
    summary: final test results by agent, as in the demo's `summary.json`; without it the report compares the tests of
      the runs, or the first and the last evaluation of every run.
    tree: id of a tree of the first run, that is shown first.
  Raises:
    ValueError: there is no such tree.
  """
  out = pathlib.Path(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  text = render(read_runs(workdirs), summary, tree)
  new = out.with_name(out.name + ".new")
  new.write_text(text, encoding="utf-8", errors="replace")  # a lone surrogate, say
  new.replace(out)


def render(
  runs: Sequence[Run], summary: Mapping[str, Any] | None = None, tree: str | None = None, room: int = PAGE_BYTES
) -> str:
  """The page as a string, with trees of `room` bytes of dump lines at most, and the one that is asked for."""
  experiments, figures = by_seed(runs), Figures()
  found = results(summary, experiments)
  partial = any(run.trees.partial for run in runs)
  summary = summary or {}
  asked = find(runs[0].trees.trees, tree) if tree else None
  index, chunks = pack_trees(choose({run.name: run.trees.trees for run in runs}, asked, room))
  left_out = sum(len(run.trees.trees) for run in runs) - len(index)
  folder = importlib.resources.files("rao_jax.report")
  asset = lambda name: folder.joinpath(name).read_text(encoding="utf-8")
  parts = [
    overview.alarm_table(experiments),
    sections.success(found, figures, any(len(e.runs) > 1 for e in experiments), partial),
    evaluations.evaluations(experiments, figures, partial),
    sections.trees(bool(index), left_out),
    overview.final_figures(experiments, partial),
    sections.curves(experiments, figures, partial),
    sections.tree_statistics(experiments, figures, partial),
    overview.funnel(experiments),
    sections.windows(summary),
    overview.config(runs),
    section("How to read this page", asset("guide.html")),
  ]
  data = {
    "figures": figures.plain(),
    "spent": {e.name: {axis: charts.thin(*series) for axis, series in e.spent().items()} for e in experiments},
    "index": compress(index),
    "chunks": chunks,
    "first": [runs[0].name, asked.id] if asked else None,
  }
  return "\n".join(
    [
      '<!doctype html><html lang="en"><head><meta charset="utf-8">',
      f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f"<title>rao_jax report</title><style>{asset('page.css')}</style></head><body>",
      "<header>",
      overview.headline(found, summary, experiments, partial),
      overview.tiles(summary, experiments),
      "</header>",
      f"<main>{''.join(parts)}</main>",
      "<footer>Written by rao_jax. This file holds everything it shows and fetches nothing.</footer>",
      f'<script type="application/json" id="data">{script_json(data)}</script>',
      f"<script>{plotly.offline.get_plotlyjs()}</script>",
      f'<script>"use strict";\n{"".join(map(asset, SCRIPTS))}</script></body></html>',
    ]
  )
