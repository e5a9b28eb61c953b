"""The figures of a page, in the order in which they are placed."""

import html
import json
from typing import Any

import plotly.graph_objects as go


class Figures:
  """Collects figures: each gets a card on the page, page.js draws it there."""

  def __init__(self):
    self._figures: list[go.Figure] = []

  def card(self, title: str, figure: go.Figure | None, note: str = "") -> str:
    """The card of a figure; nothing if there is none."""
    if figure is None:
      return ""
    name = f"figure-{len(self._figures)}"
    self._figures.append(figure)
    note = f" <small>{html.escape(note)}</small>" if note else ""
    title = html.escape(title.replace("_", " "))
    return f'<div class="card"><h3>{title}{note}</h3><div class="figure" id="{name}"></div></div>'

  def plain(self) -> dict[str, Any]:
    return {f"figure-{i}": json.loads(figure.to_json()) for i, figure in enumerate(self._figures)}
