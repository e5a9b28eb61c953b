"""What a report is made of: runs read from workdirs, results by agent and difficulty. Impure: reads files."""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rao_jax.metrics import read_metrics
from rao_jax.report import trees

DIFFICULTIES = ("easy", "medium", "hard")  # known ones come first, in this order


@dataclasses.dataclass(frozen=True)
class Run:
  """One workdir: `rows` are metric rows, `trees` what the dumps hold. Whatever is missing is empty."""

  name: str
  config: dict[str, Any]
  rows: list[dict[str, Any]]
  trees: trees.Dumps

  def series(self, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric."""
    points = [(row["step"], row[key]) for row in self.rows if row.get(key) is not None and "step" in row]
    return [step for step, _ in points], [value for _, value in points]

  def keys(self, prefix: str) -> list[str]:
    """Metric names that begin with `prefix`, numbers in their numeric order."""
    found = {key for row in self.rows for key in row if key.startswith(prefix)}
    return sorted(found, key=lambda key: (len(key), key) if key[-1:].isdigit() else (0, key))


@dataclasses.dataclass(frozen=True)
class Result:
  """Success of one agent at one difficulty, with its 95% interval if the number of tasks is known."""

  success: float
  low: float | None = None
  high: float | None = None


def read_run(workdir: str | os.PathLike, name: str) -> Run:
  workdir = pathlib.Path(workdir)
  config = workdir / "config.json"
  return Run(
    name,
    json.loads(config.read_text()) if config.exists() else {},
    read_metrics(workdir / "metrics.jsonl"),
    trees.read_dumps(sorted(workdir.glob("trees/*.jsonl")), name),
  )


def read_runs(workdirs: Sequence[str | os.PathLike] | Mapping[str, str | os.PathLike]) -> list[Run]:
  """Runs named as the mapping says, or by their directories; a name met twice gets its parent's in front."""
  if isinstance(workdirs, Mapping):
    return [read_run(path, name) for name, path in workdirs.items()]
  paths = [pathlib.Path(path).absolute() for path in workdirs]
  names = [path.name for path in paths]
  return [
    read_run(path, path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}") for path in paths
  ]


def wilson(success: float, tasks: int) -> tuple[float, float]:
  """95% Wilson score interval of a share `success` of `tasks`."""
  z = 1.959964
  centre = (success + z * z / (2 * tasks)) / (1 + z * z / tasks)
  half = z / (1 + z * z / tasks) * math.sqrt(success * (1 - success) / tasks + z * z / (4 * tasks * tasks))
  return (0.0 if success == 0 else centre - half), (1.0 if success == 1 else centre + half)


def results(summary: Mapping[str, Any] | None, runs: Sequence[Run]) -> dict[str, dict[str, dict[str, Result]]]:
  """agent -> "warm_start" or "trained" -> difficulty -> Result.

  From the summary if there is one, else from the first and the last evaluation of every run.
  """
  found: dict[str, dict[str, dict[str, Result]]] = {}
  if summary:
    tasks, intervals = summary.get("tasks_per_difficulty", {}), summary.get("intervals", {})
    for agent, stages in summary.items():
      if agent == "intervals" or not isinstance(stages, Mapping):
        continue
      for stage in ("warm_start", "trained"):
        if not isinstance(stages.get(stage), Mapping):
          continue
        cells = {}
        for difficulty, success in stages[stage].items():
          own = stages.get("intervals") or intervals.get(agent, {})
          interval = own.get(stage, {}).get(difficulty)
          if interval is None and tasks.get(difficulty):
            interval = wilson(success, tasks[difficulty])
          cells[difficulty] = Result(success, *(interval or ()))
        found.setdefault(agent, {})[stage] = cells
    return found
  prefix = "eval/success/"
  for run in runs:
    ends = {key.removeprefix(prefix): run.series(key)[1] for key in run.keys(prefix)}
    ends = {difficulty: values for difficulty, values in ends.items() if values}
    if ends:
      found[run.name] = {
        "warm_start": {difficulty: Result(values[0]) for difficulty, values in ends.items()},
        "trained": {difficulty: Result(values[-1]) for difficulty, values in ends.items()},
      }
  return found


def order_difficulties(names: Iterable[str]) -> list[str]:
  """TextCraft's from easy to extreme, then the others by the number in the name, if any (`2x` before `32x`)."""
  names = list(dict.fromkeys(names))
  number = lambda name: int((re.findall(r"\d+", name) or [0])[0])
  return [d for d in DIFFICULTIES if d in names] + sorted((d for d in names if d not in DIFFICULTIES), key=number)
