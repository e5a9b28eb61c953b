"""The points of a sweep: what an experiment file's `sweep(add)` asks for, checked against its config."""

import dataclasses
import hashlib
import importlib.util
import itertools
import json
import math
import random as random_lib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from rao_jax.command import keys, load_config, nearest
from rao_jax.config import validate

Add = Callable[..., None]  # add({"learn.rate": 1e-3}, seed=2): one point
Draw = Callable[[random_lib.Random], Any]

DIGITS = 3  # of numbers drawn: enough to tell points apart, few enough to read


def grid(add: Add, **axes: Iterable[Any]) -> None:
  """Every combination of the values of the axes; keys with dots as `**{"learn.rate": (1e-4, 3e-4)}`."""
  for values in itertools.product(*axes.values()):
    add(dict(zip(axes, values)))


def random(add: Add, n: int, seed: int, **distributions: Draw | Sequence[Any]) -> None:
  """`n` points drawn independently, the same ones for the same seed.

  Args:
    add: of `sweep`.
    n: points.
    seed: of the draws.
    distributions: key -> `uniform`, `log_uniform`, a function of a `random.Random`, or values to choose from. The draws
      of a key depend on its name and the seed alone: one more key leaves the others as they are.
  """
  drawn = {}
  for key, distribution in distributions.items():
    rng = random_lib.Random(f"{seed} {key}")
    draw = distribution if callable(distribution) else lambda rng, values=list(distribution): rng.choice(values)
    drawn[key] = [draw(rng) for _ in range(n)]
  for i in range(n):
    add({key: values[i] for key, values in drawn.items()})


def uniform(low: float, high: float) -> Draw:
  """A number between the two."""
  return lambda rng: _rounded(rng.uniform(low, high))


def log_uniform(low: float, high: float) -> Draw:
  """A number above 0 whose logarithm is uniform: as often between 1 and 10 as between 10 and 100."""
  if not 0 < low <= high:
    raise ValueError(f"log_uniform({low}, {high}): both must be above 0, the second no less than the first")
  return lambda rng: _rounded(math.exp(rng.uniform(math.log(low), math.log(high))))


def _rounded(x: float) -> float:
  return float(f"{x:.{DIGITS}g}")


@dataclasses.dataclass(frozen=True)
class Point:
  """One run of a sweep.

  Attributes:
    overrides: dotted key -> value, in the order of the keys.
    config: the experiment's, with them.
    name: a hash of the overrides, the name of its workdir.
  """

  overrides: Mapping[str, Any]
  config: ConfigDict

  @property
  def name(self) -> str:
    return hashlib.sha256(json.dumps(dict(self.overrides)).encode()).hexdigest()[:10]

  @property
  def label(self) -> str:
    return ", ".join(f"{key}={value}" for key, value in self.overrides.items()) or "as the experiment is"

  def words(self) -> list[str]:
    """Its part of a training command."""
    return [f"--config.{key}={value}" for key, value in self.overrides.items()]


def read_points(experiment: str) -> list[Point]:
  """The points of `FILE` or `FILE:ARGUMENT`, in the order in which they are added; a point added twice is one.

  Raises:
    ValueError: there is no `sweep`, or a point's settings cannot work; it names the point, the key and the remedy.
  """
  base = load_config(experiment)
  if base.agents:
    raise ValueError(
      f"--experiment={experiment} trains several agents, and a point of a sweep is one run: name the agent, e.g. "
      f"--experiment={experiment}:{base.agents[0]}"
    )
  file = experiment.partition(":")[0]
  spec = importlib.util.spec_from_file_location("swept", file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "sweep"):
    raise ValueError(f"{file} has no sweep(add) beside get_config: write one, see rao_jax/sweep/__init__.py")
  asked: list[dict[str, Any]] = []
  module.sweep(lambda overrides=None, /, **more: asked.append({**(overrides or {}), **more}))
  if not asked:
    raise ValueError(f"sweep(add) of {file} adds no point")
  points = [make_point(load_config(experiment), overrides) for overrides in asked]
  return list({point.name: point for point in points}.values())


def make_point(config: ConfigDict, overrides: Mapping[str, Any]) -> Point:
  """The point of some overrides; `config` becomes its own. Values have the type that the config gives them."""
  what = ", ".join(f"{key}={value!r}" for key, value in overrides.items())
  settled = {}
  for key, value in sorted(overrides.items()):
    *groups, last = key.split(".")
    node = config
    for group in groups:
      node = node[group] if isinstance(node, ConfigDict) and group in node else None
    if not isinstance(node, ConfigDict) or last not in node:
      near = nearest(key, list(keys(config)))
      raise ValueError(f"point ({what}): there is no setting {key!r}" + f": did you mean {near!r}?" * bool(near))
    if isinstance(node[last], ConfigDict):
      raise ValueError(f"point ({what}): {key!r} is a group: set its keys one by one, as '{key}.NAME'")
    if value is None:
      raise ValueError(f"point ({what}): {key} has no value: leave it out to keep the experiment's, {node[last]!r}")
    try:
      node[last] = tuple(value) if isinstance(value, list) else value
    except TypeError as e:
      raise ValueError(f"point ({what}): {key}={value!r} has the wrong type: {e}") from None
    settled[key] = node[last]
  try:
    validate(config)
  except ValueError as e:
    raise ValueError(f"point ({what}): {e}") from None
  return Point(settled, config)
