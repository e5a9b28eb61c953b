"""Intervals, split words, and the figures of an evaluation."""

import pytest

from rao_jax.envs.textcraft.script import recursive
from rao_jax.evaluate import parse_splits
from rao_jax.evaluation import summarise, wilson
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.scripted import play


def test_wilson_interval_worked_by_hand():
  # p = 0.8, n = 10, z = 1.96: middle (0.8 + 0.19208) / 1.38416, half 1.96 sqrt(0.016 + 0.009604) / 1.38416
  low, high = wilson(8, 10)
  assert low == pytest.approx(0.4901, abs=1e-4)
  assert high == pytest.approx(0.9433, abs=1e-4)
  assert wilson(0, 0) == (0.0, 1.0)
  assert 0.0 <= wilson(0, 200)[0] < wilson(0, 200)[1] < 0.02


def test_split_words_give_tasks_and_bad_ones_say_how_to_write_them():
  assert parse_splits(["dev_easy", "dev_hard:50"], 7) == {"dev_easy": 7, "dev_hard": 50}
  with pytest.raises(ValueError, match="dev_hard:50"):
    parse_splits(["dev_easy:many"], 7)


def test_summary_counts_valid_trees_only(interpreter, textcraft, textcraft_tasks, textcraft_protocol):
  tasks = textcraft_tasks[:3]
  caps = Caps(max_depth=9)
  trees = [
    play(Tree(textcraft, task, caps, textcraft_protocol, interpreter), recursive, textcraft_protocol, 0)
    for task in tasks
  ]
  trees[0].fault = "the judge was not reached"
  r = summarise(trees)
  assert r["tasks"] == 2 and r["success"] == 1.0
  assert r["deepest_solved"] == max(node.depth for tree in trees[1:] for node in tree.nodes)
  assert r["sampled_tokens_per_tree"] == sum(tree.ledger.sampled for tree in trees[1:]) / 2
