"""Faults inside a run, each injected for real: the run goes on, or stops with its state saved and one clear line."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from rao_jax.build import make_run
from rao_jax.checkpoint import DIGESTS, Checkpointer
from rao_jax.metrics import read_metrics
from rao_jax.train import train
from tests import branches
from tests.test_funnel import adds_up

ROOT = pathlib.Path(__file__).parents[1]
MESH = "data=1,fsdp=4,tensor=2"


class Faulty(branches.Branches):
  """Raises in the method that `on` names: `subgoal` when the cell launches child 2, others always."""

  def __init__(self, on):
    self.on = on

  def subgoal(self, path, args, kwargs):
    if self.on == "subgoal" and args[0] == 2:
      raise OSError("a bug of the world")
    return super().subgoal(path, args, kwargs)

  def end(self, path, message):
    if self.on == "end":
      raise OSError("a bug of the world")
    return super().end(path, message)


def make_faulty(on):
  return Faulty(on)


def get_config(folder, **flat):
  c = branches.get_config(MESH)
  c.policy.tied = False
  c.compile_cache = str(folder / "cache")
  c.judge.kind, c.evaluation.every, c.log.trees_every = "rule", 0, 0
  with c.unlocked():
    c.update_from_flattened_dict(flat)
  return c


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Where `warm`, a run of no steps, and compiled programs are shared by the runs below."""
  folder = tmp_path_factory.mktemp("faults")
  old = {
    name: getattr(jax.config, name)
    for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  }
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  compilation_cache.reset_cache()
  train(get_config(folder, steps=0), folder / "warm", quiet=True)
  yield folder
  for name, value in old.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def from_warm(folder, **flat):
  return get_config(folder, **{"warm_start.from_workdir": str(folder / "warm"), **flat})


def faulty(c, on):
  c.environment.name = "tests.test_faults:make_faulty"
  with c.unlocked():
    c.environment.options.on = on
  return c


def test_a_tree_whose_environment_raises_is_dropped_and_the_run_goes_on(folder):
  c = faulty(from_warm(folder), on="subgoal")
  assert train(c, folder / "some", quiet=True)["steps"] == 2
  rows = trained(folder / "some")
  assert sum(row["funnel/trees_dropped_fault"] for row in rows) > 0
  for row in rows:
    adds_up(row)
    assert row["funnel/trees_started"] == 16
    assert np.isfinite(row["train/loss"])


def test_an_environment_that_always_raises_stops_the_run_with_its_state_saved(folder):
  c = faulty(from_warm(folder), on="end")
  says = r"every tree of the batch failed outside the policy's doing, the last by OSError\('a bug of the world'\)"
  with pytest.raises(RuntimeError, match=says) as e:
    train(c, folder / "always", quiet=True)
  assert isinstance(e.value.__cause__, OSError)
  assert e.value.__notes__ == [
    f"the state of step 0 is saved below {folder / 'always'}: the same command goes on from there"
  ]
  assert (folder / "always" / "checkpoints" / "0" / DIGESTS).exists()


def test_a_learning_rate_that_breaks_the_policy_stops_the_run_by_its_name(folder):
  c = from_warm(folder, **{"learn.rate": 1e30, "steps": 20})
  with pytest.raises(
    FloatingPointError, match=r"gradients were not finite 3 times in a row.*lower config\.learn\.rate"
  ):
    train(c, folder / "rate", quiet=True)
  rows = trained(folder / "rate")
  assert len(rows) < 20 and [row["train/updates_skipped"] for row in rows[-3:]] == [1, 1, 1]
  for row in rows:
    adds_up(row)
  assert rows[-1]["funnel/tokens_dropped_update"] > 0 == rows[-1]["funnel/tokens_trained"]
  assert (folder / "rate" / "checkpoints" / str(rows[-1]["step"]) / DIGESTS).exists()


def test_a_tree_with_logits_that_are_no_numbers_is_dropped_and_leaves_the_others_as_they_are(folder):
  """The embedding of the token that begins a child's prompt is poisoned: trees with children have such rows."""
  c = from_warm(folder, **{"steps": 1, "log.trees_every": 1})
  train(c, folder / "healthy", quiet=True)
  run = make_run(c, folder / "warm")
  shutil.copytree(folder / "warm", folder / "poisoned")
  (token,) = set(run.protocol.prompt("child 1")) - set(run.protocol.prompt("root")) - set(run.protocol.prompt("1"))
  with Checkpointer(folder / "poisoned" / "warm_start") as checkpoints:
    _, state, meta = checkpoints.restore(run.abstract_state())
    embed = state.params["embed"].at[token].set(np.nan)
    checkpoints.save(0, state.replace(params={**state.params, "embed": embed}), meta)
  run.close()
  c.warm_start.from_workdir = str(folder / "poisoned")
  train(c, folder / "nan", quiet=True)
  (healthy,), (row,) = (trained(folder / name) for name in ("healthy", "nan"))
  trees, others = (
    [json.loads(line) for line in (folder / name / "trees" / "step_000001.jsonl").read_text().splitlines()]
    for name in ("nan", "healthy")
  )
  alone = [len(tree["nodes"]) == 1 for tree in others]
  assert row["funnel/trees_dropped_fault"] == alone.count(False) > 0 and alone.count(True) > 0
  for tree, other, same in zip(trees, others, alone):
    assert not same or tree["nodes"][0]["turns"] == other["nodes"][0]["turns"]
  assert np.isfinite(row["train/loss"]) and row["train/updates_skipped"] == healthy["train/updates_skipped"] == 0
  adds_up(row)
  assert row["funnel/tokens_dropped_fault"] > 0 == healthy["funnel/tokens_dropped_fault"]


def trained(workdir):
  """Metric rows of steps."""
  return [row for row in read_metrics(workdir / "metrics.jsonl") if "funnel/trees_started" in row]


LIMITED = """
import os, resource, sys
if size := int(sys.argv[1]):
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def limited(workdir, folder, size, *words):
  """(exit code, stderr) of the training command where no file may grow beyond `size` bytes, as on a full disk.

  A size of 0 is no limit.
  """
  command = [
    sys.executable, "-c", LIMITED, str(size), "-m", "rao_jax.train", "--config=tests/branches.py:", "--quiet",
    f"--workdir={workdir}", f"--config.compile_cache={folder / 'cache1'}", "--config.evaluation.every=0",
    "--config.log.trees_every=0", *words,
  ]  # fmt: skip
  env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
  done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
  return done.returncode, done.stderr


def last_line(text):
  return text.rstrip().rpartition("\n")[2]


@pytest.mark.full
def test_a_full_disk_ends_the_run_in_one_line_and_what_was_saved_stands(tmp_path):
  workdir = tmp_path / "run"
  code, said = limited(workdir, tmp_path, 0)
  assert code == 0, said
  # At a checkpoint: its arrays are 260 kB, in a few files; rows of metrics fit.
  path = workdir / "metrics.jsonl"
  code, said = limited(workdir, tmp_path, path.stat().st_size + (8 << 10), "--config.steps=4")
  assert code == 1 and last_line(said).startswith(f"stopped: a checkpoint below {workdir / 'checkpoints'} was not")
  assert not (workdir / "checkpoints" / "4" / DIGESTS).exists()
  # At the metrics: the file is full, up to a part of a row.
  rows = [row for row in path.read_text().splitlines(keepends=True) if json.loads(row)["step"] <= 2]
  path.write_text(rows[0].replace("}", ', "pad": "' + "x" * (2 << 20) + '"}') + "".join(rows[1:]))
  code, said = limited(workdir, tmp_path, path.stat().st_size + 100, "--config.steps=4")
  assert code == 1 and last_line(said) == f"stopped: the row of step 3 was not written to {path}: no room for all of it"
  # With room again, the same command goes on from the last step that was whole.
  code, said = limited(workdir, tmp_path, 0, "--config.steps=4", "--resume")
  assert code == 0, said
  assert [row["step"] for row in read_metrics(path)] == [0, 1, 2, 3, 4]
