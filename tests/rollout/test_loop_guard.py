"""A node whose cells repeat themselves is ended as if it had finished."""

import pytest

from rao_jax.rollout.budget import repeats
from rao_jax.rollout.engine import LOOP_MESSAGE, Outcome
from rao_jax.rollout.summary import tree_metrics
from tests.rollout.logged import LAUNCH_A


@pytest.mark.parametrize(
  "cells, times, looped",
  [
    ("aaaa", 4, True),
    ("aaa", 4, False),
    ("xyaaaa", 4, True),  # whatever came before
    ("aaaab", 4, False),  # only the last cells count
    ("abababab", 4, True),
    ("babababa", 4, True),
    ("abababa", 4, False),
    ("abcabcabcabc", 4, True),
    ("abdabcabcabc", 4, False),
    ("abcdabcdabcdabcd", 4, False),  # a pattern of four
    ("aa", 2, True),
    ("abcabc", 2, True),
    ("aaaaaaaa", 0, False),
    ("", 4, False),
    ("", 0, False),
  ],
)
def test_what_is_a_loop(cells, times, looped):
  assert repeats(list(cells), times) is looped


def test_a_loop_is_ended_by_a_finish_that_no_policy_samples(work):
  tree = work({"root": ["note(0)"] + ["note(1)"] * 20})
  root = tree.root
  assert (root.outcome, root.message, len(root.turns)) == (Outcome.LOOPED, LOOP_MESSAGE, 5)
  assert tree.episode.log[-1] == ("end", (), LOOP_MESSAGE)
  assert root.success == 1.0  # graded like any finish: this world likes every message but "failed"
  assert root.is_action[-1] and tree.ledger.turns == 5  # nothing is read or sampled after the last cell
  assert tree_metrics([tree], "x")["x/outcome/looped"] == 1.0


@pytest.mark.parametrize("pattern, turns", [(["note(1)", "("], 8), (["note(1)", "", "note(2)"], 12)])
def test_a_loop_of_two_or_three_cells_broken_ones_too(work, pattern, turns):
  root = work({"root": pattern * 8}).root
  assert (root.outcome, len(root.turns)) == (Outcome.LOOPED, turns)


def test_four_different_cells_in_turn_are_no_loop(work):
  assert work({"root": [f"note({i % 4})" for i in range(16)] + ["finish(1)"]}).root.outcome is Outcome.FINISHED


def test_the_number_of_repeats_is_a_setting_and_0_is_never(work):
  assert len(work({"root": ["note(1)"] * 9}, loop_repeats=2).root.turns) == 2
  assert work({"root": ["note(1)"] * 20 + ["finish(1)"]}, loop_repeats=0).root.outcome is Outcome.FINISHED


def test_a_turn_cap_at_the_same_turn_comes_first(work):
  root = work({"root": ["note(1)"] * 9}, max_turns=4).root
  assert (root.outcome, root.success) == (Outcome.TURN_CAP, 0.0)


def test_a_parent_reads_that_its_child_was_in_a_loop_and_may_loop_itself(work):
  tree = work({"root": [f"note({LAUNCH_A})"] * 9, "a": ["x = 1"] * 9})
  assert tree.episode.only("note") == [("note", (), LOOP_MESSAGE)] * 4
  assert [node.outcome for node in tree.nodes] == [Outcome.LOOPED] * 5
