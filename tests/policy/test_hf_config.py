import dataclasses
import json

import pytest

from rao_jax.policy.hf_config import read_config, write_config
from rao_jax.policy.presets import PRESETS
from tests.policy.make_fixtures import FIXTURES, MODELS
from tests.tiny import TINY

# As transformers 4 wrote them.
QWEN3 = {
  "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643,
  "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
  "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
  "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
  "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
  "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
  "vocab_size": 151936,
}  # fmt: skip
MOE = {
  **QWEN3, "model_type": "qwen3_moe", "decoder_sparse_step": 1, "hidden_size": 2048, "intermediate_size": 6144,
  "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": True,
  "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
  "num_key_value_heads": 4, "output_router_logits": False, "router_aux_loss_coef": 0.001, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA = {
  "attention_bias": False, "attention_dropout": 0.0, "eos_token_id": [128001, 128008, 128009], "head_dim": 64,
  "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
  "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
  "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {
    "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
  }, "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
  "vocab_size": 128256,
}  # fmt: skip
SMOLLM2 = {
  "attention_bias": False, "hidden_act": "silu", "hidden_size": 576, "intermediate_size": 1536,
  "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "llama",
  "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1,
  "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
  "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers.js_config": {"dtype": "q4"},
  "vocab_size": 49152,
}  # fmt: skip
GEMMA3 = {
  "attention_bias": False, "attn_logit_softcapping": None, "cache_implementation": "hybrid",
  "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
  "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4,
  "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
  "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512,
  "sliding_window_pattern": 6, "torch_dtype": "bfloat16", "vocab_size": 262144,
}  # fmt: skip
LAYOUT_4 = {
  "qwen3_0_6b": QWEN3, "qwen3_30b_a3b": MOE, "llama3_2_1b": LLAMA, "smollm2_135m": SMOLLM2, "gemma3_1b": GEMMA3,
}  # fmt: skip


@pytest.mark.parametrize("name", list(LAYOUT_4))
def test_files_in_the_layout_of_transformers_4_are_the_presets(name):
  expected = dataclasses.replace(PRESETS[name], dtype="bfloat16", param_dtype="bfloat16")
  assert read_config(LAYOUT_4[name]) == expected


def test_layout_of_transformers_5():
  moe = json.loads((FIXTURES / "qwen3_moe" / "config.json").read_text())
  assert moe["num_local_experts"] == 6 and "num_experts" not in moe
  config = read_config(moe)
  assert (config.experts, config.experts_per_token, config.mlp, config.norm_experts) == (6, 3, 12, True)
  assert not read_config(moe | {"norm_topk_prob": False}).norm_experts
  llama = read_config(json.loads((FIXTURES / "llama3" / "config.json").read_text()))
  assert (llama.rope_base, llama.rope_scaling, llama.rope_factor) == (500.0, "llama3", 8.0)
  assert (llama.rope_low, llama.rope_high, llama.rope_original, llama.context) == (1.0, 4.0, 16, 256)
  gemma = read_config(json.loads((FIXTURES / "gemma3" / "config.json").read_text()))
  assert (gemma.rope_base, gemma.rope_scaling, gemma.rope_factor) == (1e6, "linear", 4.0)
  assert (gemma.window_rope_base, gemma.window, gemma.window_pattern, gemma.query_scale) == (100.0, 8, "SSF", 12)


def test_old_scaling_says_type_where_new_ones_say_rope_type():
  config = read_config(SMOLLM2 | {"rope_scaling": {"type": "linear", "factor": 2.0}})
  assert (config.rope_scaling, config.rope_factor, config.rope_base) == ("linear", 2.0, 100_000.0)


@pytest.mark.parametrize("name", [*PRESETS, *MODELS])
def test_written_and_read_again_a_config_is_the_same(name):
  config = PRESETS.get(name) or read_config(json.loads((FIXTURES / name / "config.json").read_text()))
  assert read_config(json.loads(json.dumps(write_config(config)))) == config


@pytest.mark.parametrize(
  "base, change, message",
  [
    (QWEN3, {"attention_bias": True}, "attention_bias=True"),
    (QWEN3, {"hidden_act": "gelu"}, "hidden_act='gelu'"),
    (QWEN3, {"use_sliding_window": True, "sliding_window": 4096}, "use_sliding_window=True"),
    (QWEN3, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope type 'yarn'"),
    (QWEN3, {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e6}}, "rope type 'longrope'"),
    (QWEN3, {"rope_scaling": {"rope_type": "linear", "factor": 4.0, "beta": 1}}, "rope parameters"),
    (QWEN3, {"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
    (QWEN3, {"model_type": "qwen2"}, "model_type='qwen2'"),
    (QWEN3, {"layer_types": ["full_attention"] * 27 + ["sliding_attention"]}, "layer_types"),
    (QWEN3, {"attention_sinks": 4}, "attention_sinks=4, which is not known here"),
    (QWEN3, {"torch_dtype": "int8"}, "dtype='int8'"),
    (QWEN3, {"hidden_size": None}, "lacks hidden_size"),
    (MOE, {"mlp_only_layers": [0]}, r"mlp_only_layers=\[0\]"),
    (MOE, {"decoder_sparse_step": 2}, "decoder_sparse_step=2"),
    (LLAMA, {"mlp_bias": True}, "mlp_bias=True"),
    (GEMMA3, {"final_logit_softcapping": 30.0}, r"final_logit_softcapping=30\.0"),
    (GEMMA3, {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    (GEMMA3, {"layer_types": ["full_attention"]}, "for 26 layers"),
  ],
)  # fmt: skip
def test_what_is_not_done_here_is_an_error_that_names_the_field(base, change, message):
  with pytest.raises(ValueError, match=r"config\.json .*" + message):
    read_config(base | change)


def test_the_policy_born_here_is_exported_as_llama_or_qwen3():
  assert write_config(TINY)["architectures"] == ["LlamaForCausalLM"]
  assert write_config(dataclasses.replace(TINY, qk_norm=True))["architectures"] == ["Qwen3ForCausalLM"]


def test_a_mixture_of_makes_cannot_be_exported():
  with pytest.raises(ValueError, match="no published make"):
    write_config(dataclasses.replace(TINY, post_norms=True))
