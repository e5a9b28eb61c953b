"""GGUF files: every number and tensor comes back, and what is stored in another form is undone."""

import dataclasses

import jax
import numpy as np
import pytest

from rao_jax.policy import forward, from_pretrained
from rao_jax.policy.gguf import LLAMA3_SCALING, halves, llama3_factors, open_gguf, read_config, read_tensors
from rao_jax.policy.presets import PRESETS
from rao_jax.policy.transformer import PolicyConfig, rotary
from rao_jax.policy.weights import ParamTensors
from tests import smollm2
from tests.tiny import random_params

gguf = pytest.importorskip("gguf")

LLAMA = PolicyConfig(
  vocab_size=64, layers=2, width=32, heads=4, kv_heads=2, head_size=8, mlp=48, norm_eps=1e-5, context=128
)
MODELS = {
  "llama": LLAMA,
  "llama3": dataclasses.replace(
    LLAMA, rope_base=500_000.0, rope_scaling="llama3", rope_factor=8.0, tied=False, **LLAMA3_SCALING
  ),
  "qwen3": dataclasses.replace(LLAMA, head_size=16, rope_base=1e6, qk_norm=True, norm_eps=1e-6),
  "gemma3": dataclasses.replace(
    PRESETS["gemma3_270m"], vocab_size=64, layers=7, width=32, heads=4, kv_heads=1, head_size=8, mlp=48, window=16,
    query_scale=8.0, context=128,
  ),
}  # fmt: skip
# From llama.cpp's list of tensor names.
NAMES = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  "lm_head": "output",
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "post_attention_layernorm": "ffn_norm",
}
GEMMA_NAMES = NAMES | {
  "pre_feedforward_layernorm": "ffn_norm",
  "post_attention_layernorm": "post_attention_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
}


def pairs(matrix, heads):
  """The inverse of `halves`, as llama.cpp's converter does it."""
  return matrix.reshape(heads, 2, -1, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


def write(path, name, config, params, metadata=(), drop=(), extra=()):
  """A GGUF file as llama.cpp's converter writes it."""
  arch = name.rstrip("3") if name == "llama3" else name
  w, c = gguf.GGUFWriter(path, arch), config
  w.add_block_count(c.layers)
  w.add_context_length(c.context)
  w.add_embedding_length(c.width)
  w.add_feed_forward_length(c.mlp)
  w.add_head_count(c.heads)
  w.add_head_count_kv(c.kv_heads)
  w.add_rope_freq_base(c.rope_base)
  w.add_layer_norm_rms_eps(c.norm_eps)
  if arch == "llama":
    w.add_rope_dimension_count(c.head_size)
  else:
    w.add_key_length(c.head_size)
    w.add_value_length(c.head_size)
  if arch == "gemma3":
    w.add_sliding_window(c.window)
  for key, value in metadata:
    w.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
  for full, tensor in ParamTensors(c, params).items():
    stem = full.removesuffix(".weight")
    inner = stem.split(".", 3)[3] if stem.startswith("model.layers.") else None
    own = (GEMMA_NAMES if arch == "gemma3" else NAMES)[inner or stem]
    own = f"blk.{stem.split('.')[2]}.{own}.weight" if inner else f"{own}.weight"
    if arch == "llama" and ("attn_q" in own or "attn_k" in own):
      tensor = pairs(tensor, c.heads if "attn_q" in own else c.kv_heads)
    if arch == "gemma3" and own.endswith("norm.weight"):
      tensor = tensor + 1
    if own not in drop:
      w.add_tensor(own, np.ascontiguousarray(tensor))
  if name == "llama3":
    w.add_tensor("rope_freqs.weight", llama3_factors(c.head_size, c.rope_base, c.rope_factor))
  for own, tensor in extra:
    w.add_tensor(own, tensor)
  w.write_header_to_file()
  w.write_kv_data_to_file()
  w.write_tensors_to_file()
  w.close()


@pytest.mark.parametrize("name", MODELS)
def test_config_and_parameters_come_back(name, tmp_path):
  config, params = MODELS[name], random_params(MODELS[name])
  write(tmp_path / "m.gguf", name, config, params)
  found, loaded = from_pretrained(tmp_path / "m.gguf")
  assert found == config
  atol = 1e-6 if name == "gemma3" else 0  # 1 is added and taken off
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), loaded, params)


def test_rows_that_turn_together_are_half_a_head_apart():
  matrix = np.arange(8)[:, None]  # two heads of four rows: 0 turns with 1, 2 with 3
  assert halves(matrix, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
  assert (pairs(halves(matrix, 2), 2) == matrix).all()


def test_the_factors_of_llama3_are_those_the_policy_applies():
  config, at = MODELS["llama3"], np.array([[1]])
  plain = dataclasses.replace(config, rope_scaling="none", rope_factor=1.0)
  angle = lambda c: np.arcsin(np.asarray(rotary(c, at)[1], np.float64)[0, 0, 0])
  factors = llama3_factors(config.head_size, config.rope_base, config.rope_factor)
  np.testing.assert_allclose((angle(plain) / angle(config))[1:], factors[1:], rtol=1e-5)
  assert factors[0] == 1 and factors[-1] == 8


def test_a_quantised_block_worked_by_hand(tmp_path):
  """Q8_0: 32 numbers share a float16 factor."""
  w = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
  block = np.concatenate([np.array([0.5], np.float16).view(np.uint8), np.arange(-16, 16, dtype=np.int8).view(np.uint8)])
  w.add_tensor("token_embd.weight", block[None], raw_dtype=gguf.GGMLQuantizationType.Q8_0)
  w.write_header_to_file()
  w.write_kv_data_to_file()
  w.write_tensors_to_file()
  w.close()
  assert open_gguf(tmp_path / "q.gguf").read("token_embd.weight").tolist() == [[x / 2 for x in range(-16, 16)]]


def test_what_the_transformer_does_not_do_is_an_error(tmp_path):
  config, params = MODELS["llama"], random_params(MODELS["llama"])
  cases = {
    "rotary scaling 'yarn' is not supported": dict(metadata=[("llama.rope.scaling.type", "yarn")]),
    "llama.expert_count is 8": dict(metadata=[("llama.expert_count", 8)]),
    "does not hold the factors of Llama 3": dict(extra=[("rope_freqs.weight", np.full(4, 2, np.float32))]),
    "surplus 1: blk.0.attn_q.bias": dict(extra=[("blk.0.attn_q.bias", np.zeros(32, np.float32))]),
    "missing 1: model.norm.weight": dict(drop=("output_norm.weight",)),
  }
  for i, (message, options) in enumerate(cases.items()):
    write(tmp_path / f"{i}.gguf", "llama", config, params, **options)
    with pytest.raises(ValueError, match=message):
      from_pretrained(tmp_path / f"{i}.gguf")
  write(tmp_path / "other.gguf", "llama", config, params)
  data = (tmp_path / "other.gguf").read_bytes().replace(b"llama", b"phi42")
  (tmp_path / "other.gguf").write_bytes(data)
  with pytest.raises(ValueError, match="architecture 'phi42' is not supported as GGUF, only llama, qwen3, gemma3"):
    read_config(tmp_path / "other.gguf")


def test_a_damaged_file_is_named(tmp_path):
  write(tmp_path / "m.gguf", "llama", MODELS["llama"], random_params(MODELS["llama"]))
  whole = (tmp_path / "m.gguf").read_bytes()
  for name, data in {"text": b"hello", "empty": b"", "cut": whole[: len(whole) // 2]}.items():
    (tmp_path / f"{name}.gguf").write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}\.gguf is not a whole GGUF file"):
      open_gguf(tmp_path / f"{name}.gguf")


# --- the real model ---------------------------------------------------------------------------------------------------

# The first paragraph of Alice's Adventures in Wonderland (1865).
PARAGRAPH = (
  "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or "
  "twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, “and "
  "what is the use of a book,” thought Alice “without pictures or conversations?” So she was considering in her own "
  "mind (as well as she could, for the hot day made her feel very sleepy and stupid), whether the pleasure of "
  "making a daisy-chain would be worth the trouble of getting up and picking the daisies, when suddenly a White "
  "Rabbit with pink eyes ran close by her."
)
MEAN_NLL = 3.63016  # nats a token, by transformers' Llama on the same dequantised weights


@pytest.fixture(scope="module")
def real():
  """(config, tokens i32[1, 132], logits f64[132, V]) of SmolLM2."""
  config, params = from_pretrained(smollm2.model_file())
  tokens = np.array([smollm2.tokenizer().encode(PARAGRAPH)])
  return config, tokens, np.asarray(jax.jit(forward, static_argnums=1)(params, config, tokens)[0], np.float64)


def mean_nll(logits, tokens):
  logits = logits - logits.max(-1, keepdims=True)
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return -np.mean(logp[np.arange(tokens.shape[1] - 1), tokens[0, 1:]])


@pytest.mark.registry
def test_smollm2_finds_a_paragraph_as_likely_as_transformers_does(real):
  config, tokens, logits = real
  assert config == PRESETS["smollm2_135m"]
  assert tokens.shape == (1, 132)
  assert mean_nll(logits, tokens) == pytest.approx(MEAN_NLL, abs=1e-3)


@pytest.mark.hf
@pytest.mark.registry
def test_smollm2_has_the_logits_of_transformers(real):
  import torch
  from transformers import LlamaConfig, LlamaForCausalLM

  c, tokens, logits = real
  theirs = LlamaForCausalLM(
    LlamaConfig(
      vocab_size=c.vocab_size, hidden_size=c.width, intermediate_size=c.mlp, num_hidden_layers=c.layers,
      num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, rms_norm_eps=c.norm_eps,
      rope_parameters={"rope_type": "default", "rope_theta": c.rope_base}, max_position_embeddings=c.context,
      tie_word_embeddings=True,
    )
  ).eval()  # fmt: skip
  weights = {name: torch.tensor(tensor) for name, tensor in read_tensors(smollm2.model_file()).items()}
  missing, surplus = theirs.load_state_dict(weights, strict=False)
  assert (missing, surplus) == (["lm_head.weight"], [])  # tied
  with torch.no_grad():
    expected = theirs(torch.tensor(tokens)).logits[0].double().numpy()
  np.testing.assert_allclose(logits, expected, atol=1e-3, rtol=0)
  assert mean_nll(expected, tokens) == pytest.approx(MEAN_NLL, abs=1e-4)
