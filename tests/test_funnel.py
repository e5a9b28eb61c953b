"""The funnel of a batch worked by hand, and of a run in which nothing can be learned; every line is a sum of others."""

import dataclasses

import pytest

from rao_jax.metrics import read_metrics
from rao_jax.rollout.engine import Tree, record
from rao_jax.rollout.scripted import play
from rao_jax.step_metrics import credit_metrics, funnel
from rao_jax.train import train
from rao_jax.tree.buffer import build
from rao_jax.tree.credit import CreditOptions, credit
from tests.rollout.logged import TASK, WIDE, Logged, agents
from tests.test_evaluation import untrained


def adds_up(row):
  """Whether the lines of the funnel are the sums that `funnel` says they are."""
  f = lambda *names: sum(row[f"funnel/{name}"] for name in names)
  assert f("trees_started") == f("trees_dropped_fault", "trees_finished")
  assert f("trees_finished") == f("trees_dropped_alone", "trees_dropped_flat", "trees_trained")
  assert f("nodes") == f("nodes_unsampled", "trajectories")
  assert f("trajectories") == f("trajectories_zero", "trajectories_nonzero")
  assert f("tokens_sampled") == f(
    "tokens_dropped_fault", "tokens_dropped_zero", "tokens_dropped_update", "tokens_trained"
  )
  assert min(value for key, value in row.items() if key.startswith("funnel/")) >= 0


@pytest.fixture
def work(byte_protocol, interpreter):
  def work(group, cells, fault=None):
    scripts = {"root": cells, "a": ["finish(1)"], "b": ["finish(0)"]}
    tree = Tree(Logged(), TASK, dataclasses.replace(WIDE, max_depth=1), byte_protocol, interpreter, group=group)
    play(tree, agents(scripts), byte_protocol, 0)
    tree.fault = fault
    return tree

  return work


def test_every_tree_trajectory_and_token_is_accounted_for(work):
  pair = "await asyncio.gather(launch_subagent('a'), launch_subagent('b'))\nfinish(1)"
  trees = [
    work(0, ["finish(1)"]), work(0, [pair]), work(0, ["finish(0)"]),  # mixed: two roots succeed, one fails
    work(1, ["finish(1)"]), work(1, ["finish(1)"]),  # flat
    work(2, ["finish(1)"], fault="disk"), work(2, ["finish(0)"]),  # a fault, and the one it leaves alone
    work(3, ["finish(0)"], fault="disk"), work(3, ["finish(0)"], fault="disk"),
  ]  # fmt: skip
  buffer = build([record(tree) for tree in trees])
  assigned = credit(buffer, CreditOptions(max_depth=1))
  # Baselines of the first group: 1/2, 1/2, 1. Child a of the second tree got 1, child b 0: no advantage is 0.
  sampled = sum(tree.ledger.sampled for tree in trees)
  learned = {"funnel/tokens_trained": 30 + len(pair) + 11, "funnel/tokens_dropped_update": 0.0}
  row = funnel(trees, assigned, learned, sampled)
  adds_up(row)
  assert {key.removeprefix("funnel/"): value for key, value in row.items()} == {
    "trees_started": 9, "trees_dropped_fault": 3, "trees_finished": 6,
    "trees_dropped_alone": 1, "trees_dropped_flat": 2, "trees_trained": 3, "trees_not_replayable": 0,
    "nodes": 8, "nodes_unsampled": 0, "trajectories": 8, "trajectories_zero": 3, "trajectories_nonzero": 5,
    "tokens_sampled": sampled, "tokens_dropped_fault": 30, "tokens_dropped_zero": 30, "tokens_dropped_update": 0,
    "tokens_trained": sampled - 60,
  }  # fmt: skip
  metrics = credit_metrics(assigned)
  assert metrics["train/zero_variance_trees"] == pytest.approx(2 / 6)
  assert metrics["train/children_weight"] == pytest.approx(0.5)  # two depths, the same weight each


def test_a_run_that_cannot_learn_says_where_its_tokens_went_and_raises_its_alarm_once(tmp_path, capsys):
  c = untrained()
  c.steps = 2
  train(c, tmp_path / "run", quiet=True)
  rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
  assert len(rows) == 2
  for row in rows:
    adds_up(row)
    assert row["funnel/trees_dropped_flat"] == row["funnel/trees_started"] == 4
    assert row["funnel/tokens_dropped_zero"] == row["funnel/tokens_sampled"] > 0 == row["funnel/tokens_trained"]
    assert row["train/zero_variance_trees"] == row["train/never_delegates"] == 1.0
  said = capsys.readouterr().out
  assert said.count("train alarm zero_variance_groups: 100%") == said.count("train alarm never_delegates: 100%") == 1
