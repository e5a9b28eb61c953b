"""The schedule by counts: recorded trees of the demo go through the real frontier and packing, without a model.

The device programs are replaced by what they would answer for a turn of the recorded length; ladders, batches, slots
and the order of levels are those of a training run.
"""

import functools

import numpy as np
import pytest

from benchmarks.recorded import NodeTrace, RecordedTree, load
from experiments.demo import get_config
from rao_jax.learn.packing import fill, microbatches
from rao_jax.mesh import ROLLOUT_RULES
from rao_jax.rollout.collect import collect
from rao_jax.rollout.frontier import Frontier
from rao_jax.rollout.generate import Slice
from rao_jax.tree.buffer import NodeRecord, TreeRecord, build
from tests.tiny import TINY, one_device

DEMO = get_config("recursive")
BATCH = sum(DEMO.tasks.train.values()) * DEMO.rollouts_per_task  # trees of a training step
LEAST_BUSY = DEMO.rollout.least_busy
RECORDINGS = ("warm", "delegating")  # the agent at the begin of the demo, and towards its end


class Scheduled(Frontier):
  """A frontier whose programs answer at once. `decoded`: (rows, cache positions) of every decode call."""

  def _compiled(self, traced):
    self.decoded = []
    keep = lambda params, pool, *rows: pool
    return {name: functools.partial(self._answer, name) if name[0] == "decode" else keep for name in traced}

  def _answer(self, name, params, pool, shared, rows, token_mask, temperature):
    self.decoded.append(name[1:])
    fed = np.where(rows.room > 0, np.minimum(self.steps, rows.sample_from + rows.room), 0)
    step = np.arange(self.steps)
    busy = (step < fed[:, None]).sum(0)
    ran = int((busy >= max(1, np.ceil(LEAST_BUSY * busy[0]))).sum())
    fed = np.minimum(fed, ran)
    sampled = (step >= rows.sample_from[:, None]) & (step < fed[:, None])
    return pool, Slice(np.ones(sampled.shape, np.int32), np.zeros(sampled.shape, np.float32), sampled, fed, ran)


def frontier(rows=DEMO.rollout.row_ladder, steps=DEMO.rollout.steps, slots=DEMO.rollout.slots) -> Scheduled:
  r = DEMO.rollout
  return Scheduled(TINY, one_device(ROLLOUT_RULES), np.ones(64, bool), 63, rows, r.cache_ladder, steps, r.chunk, slots)


def worked(f: Scheduled, traces: list[list[NodeTrace]]) -> list[RecordedTree]:
  trees = [RecordedTree(trace, TINY.vocab_size, i) for i, trace in enumerate(traces)]
  collect({}, trees, f, 1.0)
  return trees


def steps_one_by_one(traces: list[list[NodeTrace]]) -> int:
  """Decode steps if one agent works at a time: a turn feeds all but the last token sampled."""
  turns = [(turn, *counts) for trace in traces for node in trace for turn, counts in enumerate(node.turns)]
  return sum(read + sampled - (not turn) for turn, read, sampled in turns)


def test_two_agents_by_hand():
  """A root reads 3 and samples 5 tokens, launches, then reads 2 and samples 4; its child reads 4 and samples 7.

  The last token of a turn is fed by the next one. So the root feeds 3 + 5 - 1 tokens, the child 4 + 7 - 1, the root
  again 1 + 2 + 4 - 1: 2, 3 and 2 slices of 4.
  """
  trace = [NodeTrace([(3, 5), (2, 4)], [[[1]], []]), NodeTrace([(4, 7)], [[]])]
  f = frontier(rows=(1,), steps=4, slots=2)
  (tree,) = worked(f, [trace])
  assert tree.done
  assert [sum(node.is_action) for node in tree.nodes] == [9, 7]
  assert [node.path for node in tree.nodes] == [(), (0,)]
  assert f.counts["sampled"] == 16
  assert len(f.decoded) == 2 + 3 + 2


@pytest.mark.parametrize("name", RECORDINGS)
def test_decode_batches_of_a_training_step_are_three_quarters_full(name):
  traces, f = load(name), frontier()
  for at in range(0, len(traces), BATCH):
    trees = worked(f, traces[at : at + BATCH])
    for tree, trace in zip(trees, traces[at : at + BATCH]):
      made = sorted((len(node.tokens), sum(node.is_action)) for node in tree.nodes)
      assert made == sorted((node.length, sum(sampled for _, sampled in node.turns)) for node in trace)
  assert f.counts["fed"] / f.counts["row_steps"] >= 0.75
  assert f.counts["evictions"] == 0


@pytest.mark.parametrize("count", [8, 128])
def test_trees_take_few_sequential_steps(count):
  """Against one agent at a time. Eight trees are bound by the longest of them."""
  recording = load("evaluation")
  traces = recording[:: len(recording) // count]
  f = frontier(rows=(8, 16, 32, 64), slots=sum(map(len, traces)) + 64)
  worked(f, traces)
  assert steps_one_by_one(traces) / f.decode_steps >= {8: 8.5, 128: 50}[count]


@pytest.mark.parametrize("name", RECORDINGS)
def test_training_rows_are_full(name):
  nodes = [node for trace in load(name)[:BATCH] for node in trace]
  records = [
    TreeRecord([NodeRecord([1] * n.length, [False] + [True] * (n.length - 1), [0.0] * n.length, -1, 0, 1.0)], i, True)
    for i, n in enumerate(nodes)
  ]
  buffer, ones = build(records, num_nodes=len(nodes)), np.ones(len(nodes), np.float32)
  parts = microbatches(
    buffer, np.arange(len(nodes)), ones, ones, DEMO.learn.row_lengths, DEMO.learn.tokens_per_microbatch
  )
  assert sum(int((part.segment > 0).sum()) for part in parts) == sum(node.length for node in nodes)
  assert fill(parts) >= 0.92


def test_the_programs_are_those_of_the_ladders():
  """`decode` for every rung of rows and cache, `extend` for every rung with room for a chunk, and one `prefill`."""
  f, r = frontier(), DEMO.rollout
  chunks = sum(r.chunk <= S for S in r.cache_ladder)
  assert len(f.programs) == len(r.row_ladder) * len(r.cache_ladder) + chunks + (r.chunk <= max(r.cache_ladder))
  worked(f, load("warm")[:BATCH])
  assert set(f.decoded) <= {(W, S) for W in r.row_ladder for S in r.cache_ladder}
