"""Pieces of HTML and how numbers are written. Pure. Only `table` and `section` take HTML, the rest takes plain text."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rao_jax.report.data import Result


def script_json(data: Any) -> str:
  """JSON that may stand inside a script element, whatever texts it holds; numbers that are not finite become null."""

  def clean(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
      return None
    if isinstance(value, Mapping):
      return {str(key): clean(item) for key, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list | tuple) else value

  text = json.dumps(clean(data), ensure_ascii=True, allow_nan=False)
  return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def words(name: Any) -> str:
  """A name such as `single_4x` as words."""
  return html.escape(str(name).replace("_", " "))


def percent(share: float) -> str:
  """With one decimal where it is not 0."""
  return f"{100 * share:.1f}".removesuffix(".0") + "%"


def score(value: float, partial: bool) -> str:
  """A success: of tasks that are solved or not a percentage, of tasks with scores in between a number."""
  return f"{value:.3f}" if partial else percent(value)


def with_interval(result: Result, partial: bool = False) -> str:
  text = score(result.success, partial)
  if result.low is not None and result.low < result.high:
    low, high = (f"{x:.3f}" if partial else f"{100 * x:.1f}" for x in (result.low, result.high))
    text += f' <span class="interval">({low}&ndash;{high}{"" if partial else "%"})</span>'
  return text


def number(value: Any) -> str:
  if not isinstance(value, int | float):
    return words(value)
  if isinstance(value, int) or abs(value) >= 1000:
    return f"{round(value):,}"
  return f"{value:.4g}"


def short(value: float) -> str:
  """A large count in three digits."""
  for limit, unit in [(1e9, "B"), (1e6, "M"), (1e3, "k")]:
    if value >= limit:
      return f"{value / limit:.3g}{unit}"
  return f"{value:g}"


def section(title: str, body: str, note: str = "") -> str:
  """A part of the page; nothing if its body is empty."""
  if not body:
    return ""
  note = f"<p class=note>{note}</p>" if note else ""
  return f"<section><h2>{title}</h2>{note}{body}</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
  """`kind`: "texts" for cells that are not numbers."""
  lines = [f"<tr><th scope=row>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows]
  top = "".join(f"<th scope=col>{cell}</th>" for cell in head)
  whole = f"<thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody>"
  return f'<div class="scroll"><table class="{kind}">{whole}</table></div>'


def bar(share: float) -> str:
  """A share as a percentage with a bar."""
  return f'<span class="share" style="--share: {min(share, 1):.4f}">{percent(share)}</span>'


def strip(steps: Sequence[int], first: int, last: int) -> str:
  """Where on the way from the first step to the last the given ones are."""
  width = max(last - first + 1, 1)
  marks = "".join(f'<rect x="{step - first}" width="1" height="1"/>' for step in dict.fromkeys(steps))
  text = f"steps {steps[0]} to {steps[-1]}"
  box = f'viewBox="0 0 {width} 1" preserveAspectRatio="none"'
  return f'<svg class="strip" {box} role="img" aria-label="{text}">{marks}</svg>'
