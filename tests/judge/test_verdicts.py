"""Verdicts on real trees through `collect`: they replace grades, whatever their timing, or drop trees, or stop."""

import json
import time
import zlib

import pytest

from rao_jax.judge.base import JudgeUnreachable, Verdicts
from rao_jax.judge.calls import Calls
from rao_jax.judge.endpoint import Endpoint
from rao_jax.judge.prompt import record_of
from rao_jax.plugin import load_function
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import record
from tests.judge.server import fail, record_sent, say
from tests.rollout.test_generate import TEMPERATURE, frontier, nodes_of, place, plant, random_params
from tests.tiny import TINY


@pytest.fixture
def grow():
  """Trees worked and judged: (trees, metrics)."""
  opened = []

  def grow(judge, in_flight=4, roots=False, children=True, unreachable="stop", on_tick=len, only=None):
    calls = Calls(judge, in_flight)
    opened.append(calls)
    trees = plant() if only is None else [plant()[only]]
    verdicts = Verdicts(calls, roots, children, unreachable)
    params = place("base", random_params(TINY))
    return trees, collect(params, trees, frontier("base"), TEMPERATURE, on_tick, verdicts)

  yield grow
  for calls in opened:
    calls.close()


def whole(node):
  return record_of(node, lambda line: True)


def quarters(text):
  """A score in quarters that follows from a record."""
  return zlib.crc32(text.encode()) % 5 / 4


def endpoint(server, **changes):
  options = dict(
    model="m", instruction="Well done?", max_chars=10_000, request={}, base_url=server.url, api_key_variable="",
    timeout=5.0, max_retries=0, asks=1,
  )  # fmt: skip
  return Endpoint(**options | changes)


def judging(delay):
  """A server's answer: quarters, after a delay that depends on the record."""

  def answer(handler, number):
    text = record_sent(handler, number)
    time.sleep(delay(text))
    say(quarters(text))(handler, number)

  return answer


def test_verdicts_of_an_endpoint_replace_the_grades_below_the_roots_whatever_their_timing(server, grow):
  server.answer = judging(lambda text: 0.0)
  trees, metrics = grow(endpoint(server))
  below = [node for node in nodes_of(trees) if node.parent is not None]
  finished = [node for node in below if node.message is not None]
  assert len(server.requests) == metrics["judge/nodes"] == len(finished) > 5 and len(below) > len(finished)
  for node in below:
    assert node.success == (quarters(whole(node)) if node in finished else 0.0)
  for tree in trees:  # this world's own grade
    assert tree.root.success == float(tree.root.message is not None)
  scores = [node.success for node in finished]
  assert len(set(scores)) > 2 and metrics["judge/failed"] == 0
  # Whoever finishes has grade 1, so the agreement is the score.
  assert metrics["judge/score"] == metrics["judge/agreement"] == pytest.approx(sum(scores) / len(scores))
  server.answer = judging(lambda text: zlib.crc32(text.encode()) % 7 / 100)
  again, _ = grow(endpoint(server), in_flight=9)
  assert [record(tree) for tree in again] == [record(tree) for tree in trees]


def test_trees_are_judged_while_others_are_still_at_work(server, grow):
  early = []

  def on_tick(running):
    if running and not early and len(running) < 12:  # the trees that have ended may have had nothing to judge
      until = time.monotonic() + 1
      while not server.requests and time.monotonic() < until:
        time.sleep(0.01)
      if server.requests:
        early.append(len(server.requests))

  _, metrics = grow(endpoint(server), on_tick=on_tick)
  assert early and early[0] < metrics["judge/nodes"]


def refuses(goals):
  def answer(handler, number):
    goal = json.loads(record_sent(handler, number))["goal"]
    (fail(500) if goal in goals else say(1))(handler, number)

  return answer


def test_trees_without_a_verdict_are_invalid_by_choice_and_never_scored(server, grow):
  trees, _ = grow(endpoint(server))
  goals = [node.goal_text for tree in trees for node in tree.nodes[1:] if node.message is not None]
  server.answer = refuses(goals[:1])
  trees, metrics = grow(endpoint(server), unreachable="invalid")
  lost = [tree for tree in trees if goals[0] in [node.goal_text for node in tree.nodes[1:]]]
  assert 0 < metrics["judge/failed"] < metrics["judge/nodes"]
  assert [tree for tree in trees if tree.fault] == lost and len(lost) < len(trees)
  for tree in lost:
    assert "InternalServerError" in tree.fault and server.url in tree.fault and not record(tree).valid


def test_the_run_stops_as_soon_as_a_verdict_cannot_be_had(server, grow):
  server.answer = fail(500)
  open_trees = []

  def on_tick(running):
    open_trees.append(len(running))
    time.sleep(0.05)  # time for the answer

  with pytest.raises(JudgeUnreachable, match=rf"gives no verdict: m at {server.url}: InternalServerError"):
    grow(endpoint(server), on_tick=on_tick)
  assert open_trees[-1] > 0  # the rollout was not worked to its end


def test_a_batch_without_any_valid_tree_is_an_error_even_by_choice(grow):
  def judge(node):
    raise ConnectionError("gone")

  number = next(i for i, tree in enumerate(grow(lambda node: 1)[0]) if tree.root.message is not None)
  with pytest.raises(RuntimeError, match=r"every tree of the batch failed .*ConnectionError\('gone'\)"):
    grow(judge, roots=True, unreachable="invalid", only=number)


def test_roots_are_judged_if_asked_for_and_children_left_out(grow):
  trees, metrics = grow(lambda node: 0.25, roots=True, children=False)
  for node in nodes_of(trees):
    expected = 0.25 if node.parent is None else 1.0
    assert node.success == (0.0 if node.message is None else expected)
  assert metrics["judge/nodes"] == sum(tree.root.message is not None for tree in trees) > 0


@pytest.mark.parametrize("given", [1.5, -1, float("nan"), None, "good"])
def test_what_is_no_score_in_range_counts_as_no_verdict(given, grow):
  with pytest.raises(JudgeUnreachable, match="the judge gives no verdict"):
    grow(lambda node: given)


def test_a_judge_of_ones_own_is_named_by_module_and_function():
  assert load_function("tests.judge.test_verdicts:quarters", "config.judge.kind") is not None
  with pytest.raises(ValueError, match=r"config\.judge\.kind: module 'no\.such' cannot be imported"):
    load_function("no.such:judge", "config.judge.kind")
  with pytest.raises(ValueError, match=r"module 'tests\.tiny' has no function 'judge'"):
    load_function("tests.tiny:judge", "config.judge.kind")
