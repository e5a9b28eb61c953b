"""Named alarms on how agents delegate and what a batch teaches, read from a row of metrics. Pure, but for `Watch`.

A row is what `metrics.jsonl` holds of a training step (prefix `train`) or of an evaluation (prefix `eval`). An alarm
whose metrics are missing from the row, or null, is not raised. Causes and cures: docs/troubleshooting.md.
"""

import dataclasses
from collections.abc import Callable, Mapping

NEVER_DELEGATES = 0.95  # of trees: some tasks of a mix are small, but not nineteen of twenty
ROUTER_ROOT = 0.2  # of trees: each pays a whole agent that does nothing; a few are tries of an exploring policy
REFUSED_AT_CAPS = 0.25  # of launches that a tree would have made: from here on caps shape what is learned
ZERO_VARIANCE = 0.75  # of finished trees: a quarter of the batch is left to learn from, at the price of the whole
TRUNCATED_BY_CONTEXT = 0.2  # of nodes: a fifth fails for the window's size, whatever it decides
CHILDREN_SHARE = 0.9  # of the gradient's weight: under depth weights it takes ten depths to get here
DEAD_CELLS = 0.02  # of nodes: rare for a sound policy; a machine under load, or limits that are too tight


@dataclasses.dataclass(frozen=True)
class Alarm:
  """What is wrong: `value` is above `limit`.

  Attributes:
    name: of ALARMS, the heading to look for in docs/troubleshooting.md.
    value: a share in [0, 1].
    limit: the share from which on it is raised.
    text: one line for a person, the value in it.
  """

  name: str
  value: float
  limit: float
  text: str


@dataclasses.dataclass(frozen=True)
class _Rule:
  """How an alarm is read: `value` of the getter of the row's own keys, a KeyError or TypeError if they are missing."""

  limit: float
  value: Callable[[Callable[[str], float]], float]
  text: str  # with {value}


_RULES = {
  "never_delegates": _Rule(
    NEVER_DELEGATES,
    lambda get: get("never_delegates") if get("depth_cap") else 0.0,
    "{value:.0%} of trees have no agent but the root, though they may delegate",
  ),
  "router_root": _Rule(
    ROUTER_ROOT, lambda get: get("router_roots"), "{value:.0%} of roots hand their whole task on and do none of it"
  ),
  "refused_at_caps": _Rule(
    REFUSED_AT_CAPS, lambda get: get("refused_at_caps"), "{value:.0%} of launches are refused at a cap"
  ),
  "zero_variance_groups": _Rule(
    ZERO_VARIANCE,
    lambda get: get("zero_variance_trees"),
    "{value:.0%} of trees are in groups that all came out the same: nothing to learn from",
  ),
  "truncated_by_context": _Rule(
    TRUNCATED_BY_CONTEXT,
    lambda get: get("truncated_by_context"),
    "{value:.0%} of agents ended because their context window was full",
  ),
  "children_share": _Rule(
    CHILDREN_SHARE,
    lambda get: get("children_weight"),
    "{value:.0%} of the batch's weight is on agents below the roots: roots hardly learn",
  ),
  "dead_cells": _Rule(
    DEAD_CELLS,
    lambda get: get("outcome/dead") + get("outcome/timed_out"),
    "{value:.1%} of agents ended because the sandbox gave up on their cell",
  ),
}
ALARMS = tuple(_RULES)


def alarms(metrics: Mapping[str, float | None], prefix: str) -> list[Alarm]:
  """The alarms that a row raises, in the order of ALARMS.

  Args:
    metrics: a row of metrics.jsonl, or the metrics of an evaluation.
    prefix: `train` or `eval`: which of the row's keys are read.
  """
  raised = []
  for name, rule in _RULES.items():
    try:
      value = float(rule.value(lambda key: metrics[f"{prefix}/{key}"]))
    except (KeyError, TypeError):  # not in this row, or null there
      continue
    if value > rule.limit:
      raised.append(Alarm(name, value, rule.limit, rule.text.format(value=value)))
  return raised


class Watch:
  """Follows the rows of a run: says when an alarm is raised, and when it has been gone for `patience` rows."""

  def __init__(self, prefix: str, patience: int = 3):
    self._prefix, self._patience = prefix, patience
    self._quiet: dict[str, int] = {}  # raised alarms -> rows in a row without them

  def news(self, metrics: Mapping[str, float | None]) -> list[str]:
    """Lines on what this row changes; none, most of the time."""
    found = {alarm.name: alarm for alarm in alarms(metrics, self._prefix)}
    lines = [f"{self._prefix} alarm {name}: {alarm.text}" for name, alarm in found.items() if name not in self._quiet]
    self._quiet = {name: 0 if name in found else self._quiet[name] + 1 for name in (*self._quiet, *found)}
    for name in [name for name, rows in self._quiet.items() if rows >= self._patience]:
      del self._quiet[name]
      lines.append(f"{self._prefix} alarm {name} has cleared")
    return lines
