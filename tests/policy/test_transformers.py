"""Live comparison with transformers, random models of every family: `make test-hf`."""

import json

import jax
import numpy as np
import pytest

from rao_jax.policy import forward, from_pretrained, save_pretrained
from rao_jax.policy.presets import PRESETS
from tests.policy import test_hf_config as layouts
from tests.policy.make_fixtures import EXPERTS, MODELS, draw_tokens, logits_of, make_model

pytestmark = pytest.mark.hf
forward_jit = jax.jit(forward, static_argnums=1)
families = pytest.mark.parametrize("name", list(MODELS))
# Shapes other than those of the fixtures: more heads to a key head, other experts, a window of one, another pattern.
OTHER = {
  "qwen3": {"num_attention_heads": 6, "num_key_value_heads": 1, "tie_word_embeddings": False},
  "qwen3_moe": {"num_experts": 9, "num_experts_per_tok": 1},
  "qwen3_moe_plain": {"num_experts": 4, "num_experts_per_tok": 4},
  "llama3": {"head_dim": 16, "tie_word_embeddings": True},
  "smollm2": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
  "gemma3": {"layer_types": None, "num_hidden_layers": 7, "sliding_window": 1, "num_key_value_heads": 4},
}


def assert_same(config, params, model):
  tokens = draw_tokens(config.vocab_size)
  np.testing.assert_allclose(forward_jit(params, config, tokens), logits_of(model, tokens), atol=1e-4, rtol=0)


@families
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("shape", [{}, {"max_shard_size": "20KB"}], ids=["single", "sharded"])
def test_a_folder_of_transformers_gives_its_logits(name, seed, shape, tmp_path):
  model = make_model(name, seed, **(OTHER[name] if seed == 2 else {}))
  model.save_pretrained(tmp_path, **shape)
  assert (tmp_path / "model.safetensors.index.json").exists() == bool(shape)
  assert_same(*from_pretrained(tmp_path), model)


@pytest.mark.parametrize("name", ["qwen3_moe", "qwen3_moe_plain"])
def test_fused_expert_tensors_give_its_logits(name, tmp_path):
  model = make_model(name, 3)
  model.save_pretrained(tmp_path, save_original_format=False)
  from safetensors import safe_open

  with safe_open(tmp_path / "model.safetensors", "np") as file:
    assert "model.layers.0.mlp.experts.gate_up_proj" in file.keys()  # noqa: SIM118
  assert_same(*from_pretrained(tmp_path), model)


@families
@pytest.mark.parametrize("max_shard_size", [10**9, 20_000], ids=["single", "sharded"])
def test_a_folder_saved_here_is_loaded_by_transformers_without_a_complaint(name, max_shard_size, tmp_path):
  import transformers

  model = make_model(name, 4)
  model.save_pretrained(tmp_path / "theirs")
  config, params = from_pretrained(tmp_path / "theirs")
  save_pretrained(tmp_path / "ours", config, params, max_shard_size=max_shard_size)
  again, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not any(info.values()), info
  tokens = draw_tokens(config.vocab_size)
  np.testing.assert_array_equal(logits_of(again, tokens), logits_of(model, tokens))


@pytest.mark.parametrize("name", list(layouts.LAYOUT_4))
def test_transformers_reads_files_of_layout_4_as_we_do(name, tmp_path):
  import transformers

  small = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 7, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "torch_dtype": "float32", "eos_token_id": None, "bos_token_id": None,
  }  # fmt: skip
  if name == "qwen3_30b_a3b":
    small |= {key: EXPERTS[key] for key in ("moe_intermediate_size", "num_experts", "num_experts_per_tok")}
  if name == "gemma3_1b":
    small |= {"sliding_window": 5}
  values = layouts.LAYOUT_4[name] | small
  (tmp_path / "config.json").write_text(json.dumps(values))
  theirs = transformers.AutoConfig.from_pretrained(tmp_path)
  model = transformers.AutoModelForCausalLM.from_config(theirs).eval()
  model.save_pretrained(tmp_path)
  (tmp_path / "config.json").write_text(json.dumps(values))
  assert_same(*from_pretrained(tmp_path), model)


@pytest.mark.parametrize("name", list(PRESETS))
def test_transformers_counts_the_parameters_of_a_preset_as_we_do(name, tmp_path):
  import torch
  import transformers

  from rao_jax.policy.hf_config import write_config
  from rao_jax.policy.weights import name_table

  (tmp_path / "config.json").write_text(json.dumps(write_config(PRESETS[name])))
  config = transformers.AutoConfig.from_pretrained(tmp_path)
  with torch.device("meta"):
    model = transformers.AutoModelForCausalLM.from_config(config)
  ours = sum(int(np.prod(entry.file_shape)) for entry in name_table(PRESETS[name]).values())
  assert ours == sum(p.numel() for p in model.parameters())
