"""How far the points of a sweep are, as their workdirs tell. Impure: reads files."""

import dataclasses
import enum
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rao_jax.metrics import read_metrics
from rao_jax.report.data import flat
from rao_jax.sweep.points import Point
from rao_jax.workdir import FINISHED, in_use

# With other values of these a finished run would come to the same.
NO_MATTER = ("log.", "checkpoint.", "compile_cache")


class State(enum.StrEnum):
  NEW = "not begun"
  QUEUED = "queued"  # on a cluster
  RUNNING = "running"
  BEGUN = "to go on"  # it has stopped half-way: the same command resumes it
  DONE = "done"


def state_of(point: Point, folder: pathlib.Path) -> State:
  """The state of the point's workdir in `folder`, a cluster's queue aside."""
  workdir = folder / point.name
  if in_use(workdir):
    return State.RUNNING
  if (workdir / FINISHED).exists() and _same(point, workdir):
    return State.DONE
  return State.BEGUN if (workdir / "config.json").exists() else State.NEW


def _same(point: Point, workdir: pathlib.Path) -> bool:
  """Whether the run there was of the point's settings, those that it did not know yet aside."""
  old = flat(json.loads((workdir / "config.json").read_text()))
  asked = flat(point.config.to_dict())
  return all(old.get(key, value) == value for key, value in asked.items() if not key.startswith(NO_MATTER))


@dataclasses.dataclass(frozen=True)
class Row:
  """What is known of a point.

  Attributes:
    point, state: which, and how far it is.
    metrics: name -> last value in its metric rows.
    step: of its last row; None before the first.
    seconds: of training, once it is done.
  """

  point: Point
  state: State
  metrics: Mapping[str, float]
  step: int | None
  seconds: float | None

  def axis(self, key: str) -> Any:
    """The point's value of a setting, its own or the experiment's."""
    node = self.point.config
    for name in key.split("."):
      node = node[name]
    return node


def row_of(point: Point, state: State, folder: pathlib.Path) -> Row:
  rows = read_metrics(folder / point.name / "metrics.jsonl")
  metrics = {name: value for row in rows for name, value in row.items() if name != "step" and value is not None}
  seconds = None
  if state is State.DONE:
    seconds = json.loads((folder / point.name / FINISHED).read_text())["seconds"]
  return Row(point, state, metrics, rows[-1]["step"] if rows else None, seconds)


def axes(points: Sequence[Point]) -> list[str]:
  """The settings that some point sets, in the order of their names."""
  return sorted({key for point in points for key in point.overrides})
