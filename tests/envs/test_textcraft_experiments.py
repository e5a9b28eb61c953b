"""The experiments on published tasks: their settings hold together, and two steps of them run with all sizes small."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import pytest

from rao_jax import envs
from rao_jax.config import validate

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = [
  ("textcraft_minecraft", ()),
  ("textcraft_synth", ("recursive",)),
  ("textcraft_synth", ("single",)),
  pytest.param("canonical_cpu", ("recursive",), marks=pytest.mark.full),  # draws the practice worlds
  pytest.param("canonical_cpu", ("single",), marks=pytest.mark.full),
]


@pytest.mark.parametrize(("name", "words"), CONFIGS)
def test_settings_are_valid_and_the_tasks_are_there(name, words, published_dir):
  config = runpy.run_path(ROOT / "experiments" / f"{name}.py")["get_config"](*words)
  validate(config)
  environment = envs.make(config.environment.name, config.environment.options.to_dict() | {"data_dir": published_dir})
  for splits in (config.tasks.train, config.tasks.dev, config.warm_start.tasks):
    for split, n in splits.items():
      assert 0 < n <= len(environment.tasks(split))
  environment.demonstrator(config.warm_start.demonstrator, **config.warm_start.slips.to_dict())


SMALL = [
  "--config.steps=2", "--config.rollouts_per_task=2", "--config.warm_start.tokens=3000", "--config.warm_start.warmup=1",
  "--config.warm_start.tokens_per_update=1024", "--config.policy.layers=1", "--config.policy.width=32",
  "--config.policy.heads=2", "--config.policy.kv_heads=1", "--config.policy.head_size=16", "--config.policy.mlp=32",
  "--config.caps.window=1024", "--config.rollout.row_ladder=(8,)", "--config.rollout.cache_ladder=(1152,)",
  "--config.learn.row_lengths=(1024,)", "--config.learn.tokens_per_microbatch=1024", "--config.compile_cache=",
  "--config.caps.turn_tokens=64", "--config.caps.output_tokens=128",
]  # fmt: skip
OWN = {
  "textcraft_minecraft.py": ("warm_start.tasks.train=8", "tasks.train.train=6", "tasks.dev.val=2"),
  "textcraft_synth.py:recursive": (
    "warm_start.tasks.train_easy=4", "warm_start.tasks.train_medium=4", "tasks.train.train_medium=2",
    "tasks.dev.val_easy=1", "tasks.dev.val_medium=1", "tasks.dev.val_hard=1",
  ),
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("experiment", OWN)
def test_two_steps_run_from_the_command_line(experiment, published_dir, tmp_path):
  command = [
    sys.executable, "-m", "rao_jax.train", f"--config=experiments/{experiment}", f"--workdir={tmp_path}", "--quiet",
    f"--config.environment.options.data_dir={published_dir}", *SMALL, *(f"--config.{own}" for own in OWN[experiment]),
  ]  # fmt: skip
  env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
  done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stderr[-3000:]
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows if "funnel/trees_finished" in row] == [1, 2]
  assert (tmp_path / "report.html").exists()
