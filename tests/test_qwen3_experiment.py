"""experiments/qwen3_4b.py from end to end, small: random weights, a byte tokenizer, trees of three nodes."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import qwen3_4b
from rao_jax.build import make_run
from rao_jax.config import policy_config
from rao_jax.evaluate import load_config, restore_state
from rao_jax.export import export
from rao_jax.hf_tokenizer import load_tokenizer
from rao_jax.metrics import read_metrics
from rao_jax.policy import forward, from_pretrained
from rao_jax.policy.lora import join
from rao_jax.policy.presets import PRESETS
from rao_jax.policy.transformer import LORA
from rao_jax.train import train
from tests import small_bpe

ROOT = pathlib.Path(__file__).parents[1]
# A random policy succeeds at nothing: without the two last, nothing would be trained.
SMALL = {
  "policy.preset": "qwen3_tiny", "environment.options.dataset": "small", "chat.system": "Craft.", "mesh.tensor": 2,
  "caps.max_nodes": 3, "caps.max_turns": 2, "caps.window": 512, "caps.turn_tokens": 24, "caps.output_tokens": 96,
  "caps.min_turn": 24, "rollout.row_ladder": (4,), "rollout.cache_ladder": (528,), "rollout.chunk": 256,
  "rollout.slots": 16, "rollouts_per_task": 2, "tasks.train.train_medium": 2, "tasks.dev.dev_easy": 1,
  "learn.row_lengths": (512,), "learn.tokens_per_microbatch": 2048, "steps": 2, "evaluation.every": 2,
  "loss.entropy_coefficient": 0.01, "loss.kl_coefficient": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def words(tmp_path_factory):
  """The command line's settings."""
  folder = tmp_path_factory.mktemp("qwen3")
  small_bpe.make().save(folder / "tokenizer.json")
  return SMALL | {"tokenizer.path": str(folder), "environment.options.data_dir": str(folder / "data")}


def small(variant, words):
  c = qwen3_4b.get_config(variant)
  c.tasks.dev = {}
  with c.unlocked():
    c.update_from_flattened_dict(words)
  return c


def trained_rows(workdir):
  return [row for row in read_metrics(workdir / "metrics.jsonl") if "funnel/trees_finished" in row]


def test_it_is_the_papers_setting():
  full, lora = qwen3_4b.get_config(), qwen3_4b.get_config("lora")
  for c in full, lora:
    assert policy_config(c, 151_669).width == PRESETS["qwen3_4b_instruct_2507"].width == 2560
    assert (c.rollouts_per_task, c.tasks.train.to_dict(), c.caps.max_turns, c.caps.max_depth) == (
      8, {"train_medium": 16}, 25, 6,
    )  # fmt: skip
    assert (c.rollout.temperature, c.credit.delegation_bonus, c.loss.surrogate) == (1.0, 0.0, "cispo")
  assert (full.learn.rate, full.policy.lora_rank) == (3e-6, 0)
  assert (lora.learn.rate, lora.policy.lora_rank, lora.policy.param_dtype) == (3e-5, 32, "bfloat16")


@pytest.mark.full
def test_all_parameters_are_trained_from_the_command_line(words, tmp_path):
  words = words | {"tasks.dev": "{'dev_easy': 1}"}
  del words["tasks.dev.dev_easy"]
  command = [
    sys.executable,
    "-m",
    "rao_jax.train",
    "--config=experiments/qwen3_4b.py",
    f"--workdir={tmp_path}",
    "--quiet",
  ]
  command += [f"--config.{name}={value}" for name, value in words.items()]
  done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stderr[-3000:]
  rows = trained_rows(tmp_path)
  assert [row["funnel/trees_finished"] for row in rows] == [4, 4]
  assert all(row["train/grad_norm"] > 0 and row["funnel/trees_dropped_fault"] == 0 for row in rows)
  assert json.loads((tmp_path / "config.json").read_text())["policy"]["preset"] == "qwen3_tiny"


def test_adapters_are_trained_and_merged_into_a_folder(words, tmp_path):
  train(small("lora", words), tmp_path, quiet=True)
  rows = trained_rows(tmp_path)
  assert len(rows) == 2 and all(row["train/grad_norm"] > 0 for row in rows)
  assert rows[0]["train/reference_kl"] == pytest.approx(0, abs=1e-6) and rows[1]["train/reference_kl"] != 0

  run = make_run(load_config(tmp_path), tmp_path)
  step, state, _ = restore_state(run, tmp_path, "last")
  assert step == 2
  assert all(LORA in path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(state.params))
  assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
  assert {leaf.dtype.name for leaf in jax.tree.leaves(run.frozen)} == {"bfloat16"}
  assert any(
    np.any(leaf != 0) for path, leaf in jax.tree_util.tree_leaves_with_path(state.params) if "_b" in path[-1].key
  )
  run.close()

  assert export(tmp_path, tmp_path / "model", dtype="float32") == 2
  config, params = from_pretrained(tmp_path / "model")
  tokens = np.arange(24, dtype=np.int32)[None]
  ours = forward(join(jax.device_get(run.frozen), jax.device_get(state.params)), run.policy, tokens)
  # bfloat16 has 8 bits: matrices and activations are rounded to one part in 256.
  np.testing.assert_allclose(forward(params, config, tokens), ours, atol=0.03 * float(abs(ours).max()))
  assert load_tokenizer(tmp_path / "model").encode("hello") == small_bpe.make().encode("hello")
