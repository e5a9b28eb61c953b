"""Each alarm on a row that raises it and on one that just does not; when they are told of."""

import pathlib
import re

import pytest

from rao_jax import alarms as lib
from rao_jax.alarms import ALARMS, Watch, alarms
from rao_jax.command import keys
from rao_jax.config import base_config

SOUND = {
  "train/never_delegates": 0.3, "train/depth_cap": 6, "train/router_roots": 0.0, "train/refused_at_caps": 0.1,
  "train/zero_variance_trees": 0.4, "train/truncated_by_context": 0.05, "train/children_weight": 0.75,
  "train/outcome/dead": 0.01, "train/outcome/timed_out": 0.0,
}  # fmt: skip


def names(row, prefix="train"):
  return [alarm.name for alarm in alarms(row, prefix)]


@pytest.mark.parametrize(
  ("name", "key", "limit"),
  [
    ("never_delegates", "never_delegates", lib.NEVER_DELEGATES),
    ("router_root", "router_roots", lib.ROUTER_ROOT),
    ("refused_at_caps", "refused_at_caps", lib.REFUSED_AT_CAPS),
    ("zero_variance_groups", "zero_variance_trees", lib.ZERO_VARIANCE),
    ("truncated_by_context", "truncated_by_context", lib.TRUNCATED_BY_CONTEXT),
    ("children_share", "children_weight", lib.CHILDREN_SHARE),
  ],
)
def test_an_alarm_is_raised_above_its_limit_only(name, key, limit):
  assert names(SOUND | {f"train/{key}": limit}) == []
  [alarm] = alarms(SOUND | {f"train/{key}": 1.0}, "train")
  assert (alarm.name, alarm.value, alarm.limit) == (name, 1.0, limit) and "100%" in alarm.text


def test_dead_cells_are_those_of_all_limits_together():
  assert names(SOUND | {"train/outcome/timed_out": 0.009}) == []
  [alarm] = alarms(SOUND | {"train/outcome/timed_out": 0.02}, "train")
  assert alarm.name == "dead_cells" and alarm.value == pytest.approx(0.03) and "3.0%" in alarm.text


def test_a_single_agent_cannot_be_blamed_for_not_delegating():
  assert names(SOUND | {"train/never_delegates": 1.0}) == ["never_delegates"]
  assert names(SOUND | {"train/never_delegates": 1.0, "train/depth_cap": 0}) == []


def test_alarms_come_in_their_order_and_read_their_prefix_only():
  assert names({key: 1.0 for key in SOUND}) == list(ALARMS)
  assert names({key: 1.0 for key in SOUND}, "eval") == []
  assert names({"eval/router_roots": 1.0, "step": 3}, "eval") == ["router_root"]


def test_a_value_that_was_not_finite_raises_nothing():
  assert names(SOUND | {"train/router_roots": None}) == []  # as metrics.jsonl holds it
  assert names(SOUND | {"train/router_roots": float("nan")}) == []


def test_a_watch_tells_once_when_an_alarm_is_raised_and_once_when_it_has_been_gone_for_long_enough():
  watch, loud = Watch("train", patience=2), SOUND | {"train/router_roots": 0.5}
  assert watch.news(SOUND) == []
  [line] = watch.news(loud)
  assert line.startswith("train alarm router_root: 50% of roots")
  assert watch.news(loud) == watch.news(SOUND) == watch.news(loud) == []  # gone for one row: not yet
  assert watch.news(SOUND) == []
  assert watch.news(SOUND) == ["train alarm router_root has cleared"]
  assert watch.news(SOUND) == []
  assert len(watch.news(loud)) == 1  # and anew


def test_the_page_on_troubles_names_every_alarm_its_limit_and_settings_that_there_are():
  page = (pathlib.Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text()
  rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (\d+)% \|$", page, re.MULTILINE))
  raised = alarms({key: 100.0 for key in SOUND}, "train")
  assert rows == {alarm.name: f"{100 * alarm.limit:.0f}" for alarm in raised}
  known = {*keys(base_config()), "environment.options.refuse_ancestor_goals"}
  groups = {name.rpartition(".")[0] for name in known} | {"tasks.train"}
  for named in re.findall(r"`config\.([a-z_.]+)", page):
    assert named in known | groups, f"there is no config.{named}"
