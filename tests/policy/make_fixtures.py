"""Makes tests/policy/fixtures: small random models of each family with the logits that transformers gives them.

  python -m tests.policy.make_fixtures          needs torch and transformers (requirements-hf.lock)

Weights are drawn wide, norms too: with the usual initialisation a wrong scale, norm or mask would hide in the noise.
"""

import pathlib
import shutil

import numpy as np

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SHAPE = dict(
  vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
  num_key_value_heads=2, head_dim=8, max_position_embeddings=256,
)  # fmt: skip
EXPERTS = dict(moe_intermediate_size=12, num_experts=6, num_experts_per_tok=3, tie_word_embeddings=False)
# Name -> (family, fields of its config). The rotary context of llama3 and the window of gemma3 are shorter than a row.
MODELS = {
  "qwen3": ("Qwen3", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
  "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "norm_topk_prob": True}),
  "qwen3_moe_plain": ("Qwen3Moe", {**EXPERTS, "norm_topk_prob": False}),
  "llama3": ("Llama", {"num_hidden_layers": 3, "rope_parameters": {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
  }}),
  "smollm2": ("Llama", {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8, "rms_norm_eps": 1e-5,
    "hidden_size": 24, "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
  }),
  "gemma3": ("Gemma3", {"num_hidden_layers": 4, "sliding_window": 8, "query_pre_attn_scalar": 12,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
      "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
      "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
  }),
}  # fmt: skip
ROWS, LENGTH = 2, 48


def make_model(name: str, seed: int = 0, **more):
  """A random model of transformers, in float32."""
  import torch
  import transformers

  family, fields = MODELS[name]
  text = "Text" if family == "Gemma3" else ""
  config = getattr(transformers, f"{family}{text}Config")(
    **{**SHAPE, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None, **fields, **more}
  )
  model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for key, weight in model.named_parameters():
      around = float(key.endswith("norm.weight") and family != "Gemma3")
      weight.copy_(around + 0.2 * torch.randn(weight.shape, generator=generator))
  return model


def logits_of(model, tokens: np.ndarray) -> np.ndarray:
  import torch

  with torch.no_grad():
    return model(torch.tensor(tokens, dtype=torch.long)).logits.float().numpy()


def draw_tokens(vocab_size: int) -> np.ndarray:
  return np.random.default_rng(0).integers(0, vocab_size, (ROWS, LENGTH)).astype(np.int32)


def main():
  shutil.rmtree(FIXTURES, ignore_errors=True)
  for name in MODELS:
    model, tokens = make_model(name), draw_tokens(SHAPE["vocab_size"])
    model.save_pretrained(FIXTURES / name)
    (FIXTURES / name / "generation_config.json").unlink(missing_ok=True)
    np.savez_compressed(FIXTURES / name / "expected.npz", tokens=tokens, logits=logits_of(model, tokens))


if __name__ == "__main__":
  main()
