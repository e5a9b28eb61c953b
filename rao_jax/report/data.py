"""What a report is made of: runs read from workdirs, runs that differ by seed as one experiment, their results.

Impure: reads files.
"""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rao_jax.estimates import wilson
from rao_jax.metrics import read_metrics
from rao_jax.report.trees import Dumps, read_dumps

DIFFICULTIES = ("easy", "medium", "hard", "extreme")  # known ones come first, in this order
# Runs that differ by these alone are one experiment; of the paths, only whether they are set matters.
SEED = "seed"
PATHS = ("compile_cache", "environment.options.data_dir", "warm_start.from_workdir")
STAGES = {"warm_start": "warm_start", "last": "trained"}  # checkpoint -> its name in a summary

Series = tuple[list[int], list[float]]  # steps, values


@dataclasses.dataclass(frozen=True)
class Run:
  """One workdir. `rows` are metric rows, `tests` what `evaluate` wrote; whatever is missing is empty."""

  name: str
  config: dict[str, Any]
  rows: list[dict[str, Any]]
  trees: Dumps
  tests: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)  # "last", ... -> its JSON
  evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # oldest first

  def series(self, key: str) -> Series:
    """Steps and values of one metric."""
    points = [(row["step"], row[key]) for row in self.rows if row.get(key) is not None and "step" in row]
    return [step for step, _ in points], [value for _, value in points]

  def keys(self, prefix: str) -> list[str]:
    """Metric names that begin with `prefix`, numbers in their numeric order."""
    return _in_order({key for row in self.rows for key in row if key.startswith(prefix)})

  @functools.cached_property
  def settings(self) -> dict[str, str]:
    return flat(self.config)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Runs of one config that differ by their seed: one curve, one column of a table."""

  name: str
  runs: list[Run]

  def each(self, key: str) -> list[Series]:
    """The series of every run that has this metric."""
    return [series for run in self.runs if (series := run.series(key))[0]]

  def band(self, key: str) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps that all seeds have; mean, least and greatest value of the seeds there."""
    by_step = [dict(zip(*series)) for series in self.each(key)]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    values = [[series[step] for series in by_step] for step in steps]
    return steps, [sum(v) / len(v) for v in values], [min(v) for v in values], [max(v) for v in values]

  def series(self, key: str) -> Series:
    """Of one run as it is; of several the mean over seeds."""
    return self.runs[0].series(key) if len(self.runs) == 1 else self.band(key)[:2]

  def spent(self) -> dict[str, Series]:
    """What the steps had cost so far, from step 0 on: tokens sampled in training, minutes; the mean over seeds."""
    tokens, (steps, seconds) = self.series("tokens/sampled_total"), self.series("time/step_seconds")
    minutes = steps, [total / 60 for total in itertools.accumulate(seconds)]
    return {
      what: ([0, *steps], [0.0, *values]) if steps[0] > 0 else (steps, values)
      for what, (steps, values) in (("tokens sampled", tokens), ("minutes", minutes))
      if steps and steps[-1] > 0
    }

  def keys(self, prefix: str) -> list[str]:
    return _in_order({key for run in self.runs for key in run.keys(prefix)})

  def total(self, key: str) -> float:
    """Sum over steps and seeds."""
    return sum(sum(values) for _, values in self.each(key))


@dataclasses.dataclass(frozen=True)
class Result:
  """Success of one agent at one difficulty; its 95% interval over tasks, or the least and greatest of the seeds."""

  success: float
  low: float | None = None
  high: float | None = None


@dataclasses.dataclass(frozen=True)
class Results:
  """agent -> "warm_start" or "trained" -> difficulty -> Result; `origin` is "summary", "tests", "eval" or ""."""

  by_agent: dict[str, dict[str, dict[str, Result]]]
  origin: str

  def trained(self) -> dict[str, dict[str, Result]]:
    return {agent: stages["trained"] for agent, stages in self.by_agent.items() if stages.get("trained")}


def read_run(workdir: str | os.PathLike, name: str) -> Run:
  workdir = pathlib.Path(workdir)
  age = lambda path: (path.stat().st_mtime, path.name)
  tests = {checkpoint: _load(workdir / f"test_{checkpoint}.json") for checkpoint in STAGES}
  return Run(
    name,
    _load(workdir / "config.json"),
    read_metrics(workdir / "metrics.jsonl"),
    read_dumps(sorted(workdir.glob("trees/*.jsonl"))),
    {checkpoint: test for checkpoint, test in tests.items() if test.get("splits")},
    [found for path in sorted(workdir.glob("evaluations/*.json"), key=age) if (found := _load(path)).get("splits")],
  )


def _load(path: pathlib.Path) -> dict[str, Any]:
  """A JSON file; empty if it is missing or not whole, as one that is being written."""
  try:
    return json.loads(path.read_text())
  except (FileNotFoundError, ValueError):
    return {}


def read_runs(workdirs: Sequence[str | os.PathLike] | Mapping[str, str | os.PathLike]) -> list[Run]:
  """Runs named as the mapping says, or by their directories; a name met twice gets its parents' in front."""
  if isinstance(workdirs, Mapping):
    return [read_run(path, name) for name, path in workdirs.items()]
  paths = list(dict.fromkeys(pathlib.Path(path).absolute() for path in workdirs))
  tails = lambda n: ["/".join(path.parts[-n:]) for path in paths]
  name = lambda i: next(tails(n)[i] for n in itertools.count(1) if tails(n).count(tails(n)[i]) == 1)
  return [read_run(path, name(i)) for i, path in enumerate(paths)]


def by_seed(runs: Sequence[Run]) -> list[Experiment]:
  """Runs whose configs differ by the seed alone, together; a seed met twice stays apart."""
  found: list[list[Run]] = []
  for run in runs:
    own = _but_for_seed(run)
    for some in found:
      if own and own == _but_for_seed(some[0]) and all(run.config.get(SEED) != r.config.get(SEED) for r in some):
        some.append(run)
        break
    else:
      found.append([run])
  return [Experiment(some[0].name if len(some) == 1 else _common_name([r.name for r in some]), some) for some in found]


def _but_for_seed(run: Run) -> dict[str, str]:
  settings = {key: value for key, value in run.settings.items() if key != SEED}
  return settings | {key: str(settings[key] not in ('""', "null")) for key in PATHS if key in settings}


def _common_name(names: Sequence[str]) -> str:
  """`a_seed0`, `a_seed1` -> `a`; `0/single`, `1/single` -> `single`."""
  last = {name.split("/")[-1] for name in names}
  if len(last) == 1:
    return last.pop()
  return re.sub(r"[\W_]*(seed|s)?[\W_]*$", "", common_start(names)) or names[0]


def common_start(texts: Sequence[str]) -> str:
  """What all texts begin with."""
  first, last = min(texts), max(texts)
  return first[: next((i for i, pair in enumerate(zip(first, last)) if pair[0] != pair[1]), len(first))]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
  """Dotted keys -> values as JSON."""
  out = {}
  for key, value in config.items():
    if isinstance(value, Mapping) and value:
      out |= flat(value, f"{prefix}{key}.")
    else:
      out[f"{prefix}{key}"] = json.dumps(value)
  return out


def results(summary: Mapping[str, Any] | None, experiments: Sequence[Experiment]) -> Results:
  """From the summary if there is one, else from the tests if some run has any, else from the evaluations."""
  if summary:
    return Results(_of_summary(summary), "summary")
  for origin, of_run in [("tests", _of_tests), ("eval", _of_evaluations)]:
    found = {}
    for experiment in experiments:
      if stages := _over_seeds([stages for run in experiment.runs if (stages := of_run(run))]):
        found[experiment.name] = stages
    if found:
      return Results(found, origin)
  return Results({}, "")


def _of_summary(summary: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Result]]]:
  found: dict[str, dict[str, dict[str, Result]]] = {}
  tasks, intervals = summary.get("tasks_per_difficulty", {}), summary.get("intervals", {})
  for agent, stages in summary.items():
    if agent == "intervals" or not isinstance(stages, Mapping):
      continue
    for stage in STAGES.values():
      if not isinstance(stages.get(stage), Mapping):
        continue
      cells = {}
      for difficulty, success in stages[stage].items():
        own = stages.get("intervals") or intervals.get(agent, {})
        interval = own.get(stage, {}).get(difficulty)
        if interval is None and tasks.get(difficulty):
          interval = wilson(success * tasks[difficulty], tasks[difficulty])
        cells[difficulty] = Result(success, *(interval or ()))
      found.setdefault(agent, {})[stage] = cells
  return found


def _of_tests(run: Run) -> dict[str, dict[str, Result]]:
  return {
    STAGES[checkpoint]: {
      short_split(split): Result(r["success"], *(r.get("interval") or ())) for split, r in test["splits"].items()
    }
    for checkpoint, test in run.tests.items()
  }


def _of_evaluations(run: Run) -> dict[str, dict[str, Result]]:
  """The first evaluation and the last."""
  prefix = "eval/success/"
  ends = {key.removeprefix(prefix): run.series(key)[1] for key in run.keys(prefix)}
  return {
    stage: {difficulty: Result(values[at]) for difficulty, values in ends.items() if values}
    for stage, at in [("warm_start", 0), ("trained", -1)]
    if any(ends.values())
  }


def _over_seeds(runs: Sequence[dict[str, dict[str, Result]]]) -> dict[str, dict[str, Result]]:
  """Mean, least and greatest over runs; of a single one what it has."""
  if len(runs) < 2:
    return dict(runs[0]) if runs else {}
  out: dict[str, dict[str, Result]] = {}
  for stage in STAGES.values():
    for difficulty in dict.fromkeys(d for run in runs for d in run.get(stage, {})):
      values = [run[stage][difficulty].success for run in runs if difficulty in run.get(stage, {})]
      out.setdefault(stage, {})[difficulty] = Result(sum(values) / len(values), min(values), max(values))
  return out


def short_split(split: str) -> str:
  """`test_hard`, `val_hard` -> `hard`."""
  return re.sub("^(test|val)_", "", split)


def order_difficulties(names: Iterable[str]) -> list[str]:
  """TextCraft's from easy to extreme, then the others by the number in the name, if any (`2x` before `32x`)."""
  names = list(dict.fromkeys(names))
  number = lambda name: int((re.findall(r"\d+", name) or [0])[0])
  return [d for d in DIFFICULTIES if d in names] + sorted((d for d in names if d not in DIFFICULTIES), key=number)


def _in_order(keys: Iterable[str]) -> list[str]:
  return sorted(keys, key=lambda key: (len(key), key) if key[-1:].isdigit() else (0, key))
