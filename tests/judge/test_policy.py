"""The policy as judge: verdicts are worked in the batches of the trees, and leave nothing in them but a score."""

import dataclasses
import functools
import zlib

import jax
import numpy as np
import pytest

from rao_jax.envs.base import Task
from rao_jax.judge.base import Verdicts
from rao_jax.judge.policy import BRANCH, PolicyJudge, VerdictEpisode
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import Tree, record
from rao_jax.rollout.frontier import Frontier
from rao_jax.rollout.interpreter import CellResult
from tests.rollout.test_generate import CAPS, MASK, ONE, PROTOCOL, TEMPERATURE, Chatter, Checksum, Letters, nodes_of
from tests.rollout.test_generate import place as place_base
from tests.tiny import TINY, random_params

WIDE = dataclasses.replace(CAPS, window=256, max_turns=3)
SCORES = (1, 0.25, "none")


class Bench(Checksum):
  """The checksum sandbox; a cell without any function is a verdict, which by its checksum is one of four things."""

  def run(self, state, code, names, call):
    if names:
      return super().run(state, code, names, call)
    number = zlib.crc32(code.encode()) % 4
    return CellResult("finished", finish=SCORES[number]) if number < 3 else CellResult("ended", state=1)


class Watched(Frontier):
  """Keeps which trees were decoded together."""

  def plan(self, work):
    self.ticks.append({id(tree) for tree, _ in work})
    return super().plan(work)


@functools.cache
def frontier():
  return Watched(TINY, ONE(), MASK, PROTOCOL.end, (8,), (264,), 8, 64, 64)


def judge(sandbox):
  return PolicyJudge(WIDE, PROTOCOL, sandbox, "Well done?", 1000, verdict_tokens=16)


@functools.cache
def grown(judged=True):
  """(trees, metrics, judged nodes with the trees of their verdicts, ticks)."""
  text, asked, frontier().ticks, start = Letters.alphabet, [], [], judge(Bench())
  tasks = [Task(f"task.{i}", "easy", {"text": text[i : i + 1 + 6 * (i % 8)]}) for i in range(24)]
  keys = [np.asarray(jax.random.key_data(jax.random.key(i))) for i in range(24)]
  trees = [Tree(Chatter(), task, WIDE, PROTOCOL, Bench(), key) for task, key in zip(tasks, keys)]

  def ask(nodes):
    verdicts, work = start(nodes)
    asked.extend(zip(nodes, work))
    return verdicts, work

  verdicts = Verdicts(ask, roots=False, children=True, unreachable="invalid") if judged else None
  metrics = collect(place_base("base", random_params(TINY)), trees, frontier(), TEMPERATURE, verdicts=verdicts)
  return trees, metrics, asked, frontier().ticks


def test_verdicts_share_ticks_with_working_trees():
  trees, _, asked, ticks = grown()
  working, judging = {id(tree) for tree in trees}, {id(tree) for _, tree in asked}
  shared = [tick for tick in ticks if tick & working and tick & judging]
  assert len(asked) > 5 and len(shared) > 3
  assert all(tick <= working | judging for tick in ticks)


def test_the_finish_argument_of_a_verdict_is_the_score_and_what_cannot_be_read_is_zero():
  trees, metrics, asked, _ = grown()
  below = [node for tree in trees for node in tree.nodes[1:]]
  assert {id(node) for node, _ in asked} == {id(node) for node in below if node.message is not None}
  given = []
  for node, tree in asked:
    given.append(tree.root.message)
    assert node.success == (tree.root.message if tree.root.message in (1, 0.25) else 0.0)
  assert {1, 0.25, "none", None} == set(given)
  assert metrics["judge/nodes"] == len(asked) and metrics["judge/failed"] == 0
  assert metrics["judge/unreadable"] == sum(message in ("none", None) for message in given)
  assert metrics["judge/score"] == pytest.approx(sum(node.success for node, _ in asked) / len(asked))


def test_no_token_of_a_verdict_is_kept_with_the_trees():
  trees, metrics, asked, _ = grown()
  alone = grown(judged=False)[0]
  assert [node.tokens for node in nodes_of(trees)] == [node.tokens for node in nodes_of(alone)]
  for tree, other in zip(trees, alone):
    mine, theirs = record(tree), record(other)
    assert [node.tokens for node in mine.nodes] == [node.tokens for node in theirs.nodes]
    assert tree.ledger.sampled == other.ledger.sampled == sum(sum(node.is_action) for node in mine.nodes)
  assert metrics["judge/tokens"] == sum(tree.root.sampled for _, tree in asked) > 0


def test_verdicts_have_one_agent_one_turn_and_keys_of_their_own():
  for node, tree in grown()[2]:
    assert len(tree.nodes) == len(tree.root.turns) == 1 and tree.root.sampled <= 16
    assert len(tree.root.tokens) <= WIDE.window
    key = jax.random.fold_in(jax.random.wrap_key_data(node.key), np.uint32(BRANCH))
    np.testing.assert_array_equal(tree.root.key, jax.random.key_data(key))


def test_verdict_shows_the_record_between_instruction_and_answer_cut_to_the_window():
  for node, tree in grown()[2]:
    instruction, shown, answer, rest = tree.root.goal_text.split("\n")
    assert instruction == "Well done?" and answer.startswith("Call finish(x)") and rest == ""
    assert shown.startswith('{"goal":"' + node.goal_text[:2])
  assert max(len(tree.root.goal_text) for _, tree in grown()[2]) > 150


def test_a_fault_in_the_tree_of_a_verdict_makes_the_judged_tree_invalid():
  class Broken(Bench):
    def run(self, state, code, names, call):
      if not names and zlib.crc32(code.encode()) % 4 == 0:
        raise OSError("disk full")
      return super().run(state, code, names, call)

  keys = [np.asarray(jax.random.key_data(jax.random.key(i))) for i in range(24)]
  task = Task("task", "easy", {"text": "abc"})
  trees = [Tree(Chatter(), task, WIDE, PROTOCOL, Bench(), key) for key in keys]
  frontier().ticks = []
  verdicts = Verdicts(judge(Broken()), roots=False, children=True, unreachable="invalid")
  metrics = collect(place_base("base", random_params(TINY)), trees, frontier(), TEMPERATURE, verdicts=verdicts)
  lost = [tree for tree in trees if tree.fault]
  assert 0 < len(lost) < len(trees) and metrics["judge/failed"] >= len(lost)
  assert all("disk full" in tree.fault and not record(tree).valid for tree in lost)


def test_a_window_without_room_for_a_record_is_refused():
  with pytest.raises(ValueError, match=r"window of 120 tokens has no room for a verdict: raise config\.caps\.window"):
    PolicyJudge(dataclasses.replace(WIDE, window=120), PROTOCOL, Bench(), "Well done?", 1000, verdict_tokens=16)


@pytest.mark.parametrize(
  "message, score, readable",
  [(0, 0.0, True), (0.5, 0.5, True), ("1", 1.0, True), ("yes", 0.0, False), (None, 0.0, False)],
)
def test_a_zero_is_a_score_that_can_be_read(message, score, readable):
  episode = VerdictEpisode("")
  assert (episode.end((), message), episode.readable) == (score, readable)
