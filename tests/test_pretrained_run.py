"""experiments/smollm2_cpu.py with a small random model in place of the real one: weights and tokenizer of a folder."""

import json

import jax
import numpy as np
import pytest

from experiments import smollm2_cpu
from rao_jax.build import make_run
from rao_jax.checkpoint import Checkpointer
from rao_jax.config import validate
from rao_jax.hf_tokenizer import load_tokenizer
from rao_jax.metrics import read_metrics
from rao_jax.policy import PolicyConfig, save_pretrained
from rao_jax.policy.lora import frozen, trained
from rao_jax.rollout.chat import ChatProtocol
from rao_jax.train import train
from tests import small_bpe
from tests.tiny import random_params

MODEL = PolicyConfig(
  vocab_size=320, layers=2, width=32, heads=4, kv_heads=2, head_size=8, mlp=64, norm_eps=1e-5, context=4096
)
PARAMS = random_params(MODEL)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("model")
  save_pretrained(folder, MODEL, PARAMS)
  small_bpe.make().save(folder / "tokenizer.json")
  return folder


def shrunken(model, data_dir, **flat):
  """Small; but a token is a byte, so that the window is wide."""
  c = smollm2_cpu.get_config()
  c.policy.path = str(model)
  c.policy.lora_rank = 0
  c.environment.options.data_dir = str(data_dir)
  c.compile_cache = ""
  c.caps.update(dict(max_depth=1, max_nodes=3, max_turns=6, turn_tokens=192, window=1024))
  c.rollout.update(dict(row_ladder=(8,), cache_ladder=(1040,), chunk=256))
  c.warm_start.tasks = dict(train_easy=2)
  c.warm_start.update(dict(tokens=2000, tokens_per_update=1024, warmup=1, rate=2e-4))
  c.learn.update(dict(row_lengths=(1024,), tokens_per_microbatch=8192, warmup=0))
  c.tasks.train = dict(train_easy=1)
  c.tasks.dev = dict(dev_easy=1)
  c.rollouts_per_task = 2
  c.steps = 1
  with c.unlocked():
    c.update_from_flattened_dict(flat)
  return c


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.mark.full
def test_a_run_starts_from_the_parameters_in_the_folder_and_clones_from_there(model, data_dir, tmp_path):
  run = make_run(shrunken(model, data_dir), tmp_path)
  optimizer = run.policy_gradient_learner().optimizer
  fresh = run.init_state(optimizer)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(fresh.params), PARAMS)
  assert jax.tree.structure(fresh) == jax.tree.structure(run.abstract_state())
  assert isinstance(run.protocol, ChatProtocol) and run.protocol.system == smollm2_cpu.SYSTEM
  run.close()

  train(shrunken(model, data_dir), tmp_path, quiet=True)
  metrics = {key: x for row in read_metrics(tmp_path / "metrics.jsonl") for key, x in row.items()}
  assert metrics["demonstrations/success"] == 1.0
  assert metrics["funnel/trees_dropped_fault"] == 0
  with Checkpointer(tmp_path / "warm_start") as kept:
    _, state, _ = kept.restore(run.abstract_state())
  moved = max(float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (jax.device_get(state.params), PARAMS))))
  assert 0 < moved < 5e-4  # a few updates of 2e-4 at most: not other parameters
  # The run's own copy of the tokenizer.
  assert load_tokenizer(tmp_path).encode("hello") == small_bpe.make().encode("hello")


def test_adapters_lie_over_the_parameters_in_the_folder(model, data_dir, tmp_path):
  run = make_run(shrunken(model, data_dir, **{"policy.lora_rank": 2}), tmp_path)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.frozen), PARAMS)
  state = run.init_state(run.policy_gradient_learner().optimizer)
  used = jax.device_get(run.rollout_params(state.params))
  jax.tree.map(np.testing.assert_array_equal, frozen(used, run.policy), PARAMS)
  jax.tree.map(np.testing.assert_array_equal, trained(used, run.policy), jax.device_get(state.params))
  run.close()


def test_what_does_not_go_together_is_an_error(model, data_dir, tmp_path):
  cases = {
    r"config\.policy\.layers=7, but config\.policy\.path=.* says 2: leave it unset": {"policy.layers": 7},
    r"says width=32, config\.policy\.preset=qwen3_tiny 64: it is another model": {"policy.preset": "qwen3_tiny"},
    r"config\.caps\.window=5000 is beyond the 4096 positions": {"caps.window": 5000},
    r"config\.caps\.output_tokens=18 must be at least": {"caps.output_tokens": 18},
  }
  for message, flat in cases.items():
    with pytest.raises(ValueError, match=message):
      make_run(shrunken(model, data_dir, **flat), tmp_path)
  cases = {
    r"config\.policy\.path is for chat models: set config\.protocol=chat": {"protocol": "compact"},
    r"config\.chat\.system is for chat models": {"protocol": "compact", "policy.path": ""},
    r"config\.protocol=chat needs the tokenizer of a chat model": {"policy.path": ""},
    r"config\.protocol='talk': choose one of": {"protocol": "talk"},
  }
  for message, flat in cases.items():
    with pytest.raises(ValueError, match=message):
      validate(shrunken(model, data_dir, **flat))


@pytest.mark.full
def test_a_shared_system_turn_changes_no_token_and_no_update(model, data_dir, tmp_path):
  rows = {}
  for share in ("none", "all"):
    c = shrunken(model, data_dir, share_prefix=share, **{"warm_start.tokens": 0, "evaluation.every": 0})
    c.warm_start.tasks = {}
    c.loss.entropy_coefficient = 0.01  # else an update of trees that all fail is none
    train(c, tmp_path / share, quiet=True)
    (rows[share],) = read_metrics(tmp_path / share / "metrics.jsonl")
  apart = ("time/", "rollout/", "train/row_fill")
  learned = [{key: x for key, x in row.items() if not key.startswith(apart)} for row in rows.values()]
  assert learned[1] == pytest.approx(learned[0], rel=1e-3, abs=1e-5) and learned[0]["train/grad_norm"] > 0
  worked = [row["rollout/fed"] + row["rollout/extended"] for row in rows.values()]
  assert worked[1] < worked[0] / 2
  lines = [(tmp_path / share / "trees" / "step_000001.jsonl").read_text() for share in rows]
  turns = [[[n["turns"] for n in json.loads(line)["nodes"]] for line in text.splitlines()] for text in lines]
  assert turns[0] == turns[1]
