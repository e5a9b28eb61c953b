"""Whole runs of a shrunken demo, on a mesh with all three axes."""

import contextlib
import inspect
import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

import rao_jax
from experiments import demo
from rao_jax.build import make_run
from rao_jax.checkpoint import DIGESTS, Checkpointer
from rao_jax.command import keys
from rao_jax.config import OPEN, base_config
from rao_jax.metrics import read_metrics
from rao_jax.screen import Screen
from rao_jax.train import compare_agents, train
from rao_jax.warm_start import make_demonstrations
from tests.test_config import EXPANDED
from tests.test_funnel import adds_up

PACKAGE = pathlib.Path(rao_jax.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Where data set and compiled programs are shared by the runs below."""
  folder = tmp_path_factory.mktemp("train")
  old = {
    name: getattr(jax.config, name)
    for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  }
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
  compilation_cache.reset_cache()  # whether a process has one is looked up at its first compilation only
  yield folder
  for name, value in old.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def tiny(folder, agent="recursive", **flat):
  """The demo, shrunk until a step takes a second; `flat` sets keys such as `learn.rate`."""
  c = demo.get_config(agent)
  c.environment.options.data_dir = str(folder / "data")
  c.compile_cache = str(folder / "cache")
  c.mesh = dict(data=2, fsdp=2, tensor=2)
  c.policy.update(dict(layers=2, width=32, heads=4, head_size=8, mlp=64, unroll=False))
  c.caps.update(dict(max_depth=2 if agent == "recursive" else 0, max_nodes=6, max_turns=3, turn_tokens=24, window=128))
  c.rollout.update(dict(row_ladder=(8,), cache_ladder=(144,), slots=16))
  c.tasks.train = dict(train_easy=1, train_medium=1)
  c.tasks.dev = dict(dev_easy=2)
  c.rollouts_per_task = 2
  c.steps = 3
  c.warm_start.tasks = dict(train_easy=20, train_medium=10)
  c.warm_start.update(dict(tokens=5000, tokens_per_update=512, warmup=2))
  # Regularised, so that every node is trained on: an agent this small has no successes to learn from.
  c.loss.update(dict(entropy_coefficient=0.01, kl_coefficient=0.01))
  c.learn.update(dict(warmup=1, minibatches=1, row_lengths=(128,), tokens_per_microbatch=512))
  c.evaluation.update(dict(every=2, max_depth=0, max_nodes=0))
  c.checkpoint.every = 1
  c.log.update(dict(trees_every=2, trees=3))
  with c.unlocked():
    c.update_from_flattened_dict(flat)
  return c


READ = set()  # settings that the run below reads


@pytest.fixture(scope="module")
def finished(folder):
  """An uninterrupted run of three steps: its workdir and summary."""
  c = tiny(folder)
  with recorded(c, READ):
    summary = train(c, folder / "run", quiet=True)
  return folder / "run", summary


@contextlib.contextmanager
def recorded(config, read):
  """Adds to `read` the names of settings that are read one by one, by code that does not only look them over."""
  names = {}

  def name(node, prefix):
    names[id(node)] = prefix
    for key, value in node.items():
      if isinstance(value, ConfigDict):
        name(value, f"{prefix}{key}.")

  name(config, "")
  plain = ConfigDict.__getitem__

  def getitem(self, key):
    frame = sys._getframe(1)
    while "ml_collections" in frame.f_code.co_filename:
      if frame.f_code.co_name == "to_dict":  # a whole group
        return plain(self, key)
      frame = frame.f_back
    file = pathlib.Path(frame.f_code.co_filename)
    if id(self) in names and file.is_relative_to(PACKAGE) and file.name not in ("config.py", "workdir.py"):
      read.add(names[id(self)] + key)
    return plain(self, key)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(ConfigDict, "__getitem__", getitem)
    yield


def test_every_setting_is_read(folder, finished):
  read = set(READ)
  for kind in ("policy", "endpoint"):
    c = tiny(folder, **{"judge.kind": kind, "judge.model": "m", "judge.endpoint.base_url": "http://localhost/v1"})
    c.judge.endpoint.api_key_variable, c.caps.window = "", 1024
    with recorded(c, read):
      run = make_run(c, finished[0])
      run.verdicts()
      run.close()
  for key in ("agents", "tasks.test"):  # of the comparison, which trains each agent by a command of its own
    assert f"config.{key}" in inspect.getsource(compare_agents)
    read.add(key)
  alone = {key for key in (*keys(base_config()), *OPEN) if key.partition(".")[0] not in EXPANDED}
  assert sorted(alone - read) == [], "set, and read by nothing"


def test_demonstrations_meet_a_node_cap_of_their_own(folder, finished):
  c = tiny(folder, **{"warm_start.max_nodes": 2, "warm_start.slips.delegate": 1.0})
  run = make_run(c, finished[0])
  trees, shown = make_demonstrations(run, Screen(quiet=True))
  run.close()
  assert run.caps.max_nodes == 6 and {len(tree.nodes) for tree in trees} == {1, 2}
  assert shown["demonstrations/refused/nodes"] > 0


def rows_of(workdir):
  """Metric rows without clocks."""
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(workdir / "metrics.jsonl")
  ]


def test_workdir_holds_config_metrics_trees_and_checkpoints(folder, finished):
  workdir, summary = finished
  assert json.loads((workdir / "config.json").read_text()) == json.loads(json.dumps(tiny(folder).to_dict()))
  assert {p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()} == {"1", "2", "3"}
  assert {p.name for p in (workdir / "trees").iterdir()} == {"step_000001.jsonl", "step_000003.jsonl"}
  trees = [json.loads(line) for line in (workdir / "trees" / "step_000003.jsonl").read_text().splitlines()]
  assert len(trees) == 3 and {"reward", "advantage", "weight", "baseline", "turns"} <= trees[0]["nodes"][0].keys()
  assert summary["steps"] == 3 and summary["warm_start_tokens"] >= 5000
  assert summary["evaluation"]["eval/success"] >= 0


def test_metrics_are_one_row_a_step_and_one_an_evaluation(finished):
  rows = rows_of(finished[0])
  kind = lambda row: next(key.split("/")[0] for key in row if key.split("/")[0] in ("warmstart", "eval", "funnel"))
  assert [(row["step"], kind(row)) for row in rows] == [
    (0, "warmstart"), (0, "eval"), (1, "funnel"), (2, "funnel"), (2, "eval"), (3, "funnel"), (3, "eval"),
  ]  # fmt: skip


def test_funnel_adds_up(finished):
  workdir, summary = finished
  steps = [row for row in rows_of(workdir) if "funnel/trees_started" in row]
  for row in steps:
    assert row["funnel/trees_started"] == row["funnel/trees_finished"] == 4  # two tasks, two rollouts
    assert row["funnel/trees_dropped_fault"] == row["funnel/trees_dropped_alone"] == 0
    assert row["funnel/trees_not_replayable"] == 0
    assert row["funnel/trajectories"] == 4 * row["train/nodes_per_tree"]
    assert 0 < row["funnel/tokens_sampled"] == row["funnel/tokens_trained"]
    adds_up(row)
    assert row["train/updates_skipped"] == 0 and np.isfinite(row["train/loss"])
  assert [row["tokens/sampled_total"] for row in steps] == np.cumsum(
    [row["funnel/tokens_sampled"] for row in steps]
  ).tolist()
  assert steps[-1]["tokens/sampled_total"] == summary["sampled"]


def test_importance_ratio_of_fresh_samples_is_one(finished):
  # One minibatch a step: training on the policy that has just sampled.
  steps = [row for row in rows_of(finished[0]) if "funnel/trees_started" in row]
  assert len(steps) == 3
  for row in steps:
    assert row["train/log_ratio_max"] < 1e-4 and row["train/clip_share"] == 0
    assert row["train/ratio_mean"] == pytest.approx(1, abs=1e-5)


def test_kl_is_to_the_policy_that_the_warm_start_left(finished):
  first, *later = [row["train/reference_kl"] for row in rows_of(finished[0]) if "train/reference_kl" in row]
  assert first == pytest.approx(0, abs=1e-6) and all(kl > 1e-6 for kl in later)


def kill(finished, workdir):
  """The workdir of a run killed while it saved step 3; of step 2 the disk lost a byte."""
  shutil.copytree(finished[0], workdir)
  (workdir / "checkpoints" / "3" / DIGESTS).unlink()
  largest = max((p for p in (workdir / "checkpoints" / "2").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 1
  largest.write_bytes(data)
  with (workdir / "metrics.jsonl").open("ab") as f:
    f.write(b'{"step": 4, "train/lo')
  shutil.rmtree(workdir / "trees")


def last_state(config, workdir):
  run = make_run(config, workdir)
  try:
    with Checkpointer(workdir / "checkpoints") as checkpoints:
      step, state, meta = checkpoints.restore(run.abstract_state())
  finally:
    run.close()
  return step, jax.device_get(state), {k: v for k, v in meta.items() if k != "seconds"}


def test_killed_run_goes_on_from_its_last_good_checkpoint_and_ends_bit_for_bit_the_same(folder, finished, capsys):
  workdir = folder / "killed"
  kill(finished, workdir)
  train(tiny(folder), workdir, quiet=True)
  assert "going on from the checkpoint of step 1 (4 later metric rows dropped)" in capsys.readouterr().out
  assert rows_of(workdir) == rows_of(finished[0])
  step, state, meta = last_state(tiny(folder), workdir)
  expected_step, expected, expected_meta = last_state(tiny(folder), finished[0])
  assert (step, meta) == (expected_step, expected_meta) == (3, meta)
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  dumped = "trees/step_000003.jsonl"
  assert (workdir / dumped).read_text() == (finished[0] / dumped).read_text()


def test_finished_run_asked_again_does_nothing(folder, finished):
  before = rows_of(finished[0])
  assert train(tiny(folder), finished[0], quiet=True)["steps"] == 3
  assert rows_of(finished[0]) == before


def test_other_config_on_the_same_workdir_is_refused_by_key_and_values(folder, finished):
  rate = tiny(folder).learn.rate
  with pytest.raises(ValueError) as e:
    train(tiny(folder, **{"learn.rate": 0.125, "seed": 7}), finished[0], quiet=True)
  assert f"config.learn.rate: {rate} in the workdir, 0.125 asked for" in str(e.value)
  assert "config.seed: 0 in the workdir, 7 asked for" in str(e.value) and "fresh --workdir" in str(e.value)


def test_gradients_that_are_not_finite_stop_the_run_by_step_with_its_state_saved(folder, finished):
  # An entropy bonus of 3e38 overflows the loss. The single agent: max_depth 0, no demonstrations of its own.
  c = tiny(
    folder, "single",
    **{"loss.entropy_coefficient": 3e38, "loss.kl_coefficient": 0.0, "learn.max_skipped": 2, "checkpoint.every": 10,
       "evaluation.every": 0, "warm_start.tokens": 0, "tokenizer.path": str(finished[0] / "tokenizer.model")},
  )  # fmt: skip
  says = r"gradients were not finite {} times in a row.*lower config\.learn\.rate"
  with pytest.raises(FloatingPointError, match="step 2: " + says.format(2)) as e:
    train(c, folder / "overflow", quiet=True)
  assert e.value.__notes__ == [
    f"the state of step 2 is saved below {folder / 'overflow'}: the same command goes on from there"
  ]
  with pytest.raises(FloatingPointError, match="step 3: " + says.format(3)):  # the count goes on
    train(c, folder / "overflow", quiet=True)
  rows = rows_of(folder / "overflow")
  assert [(row["step"], row["train/updates_skipped"], row["train/max_depth"]) for row in rows] == [
    (1, 1, 0), (2, 1, 0), (3, 1, 0),
  ]  # fmt: skip
  assert all(row["train/loss"] is None for row in rows)
  step, state, _ = last_state(c, folder / "overflow")
  assert step == 3 and int(state.skipped) == 3 and int(state.updates) == 0
