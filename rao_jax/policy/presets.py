"""The numbers of published models, and of a toy of the same make. `config.policy.preset` takes one by its name.

From their config.json files; tests hold each against its published number of parameters.
"""

from rao_jax.policy.transformer import PolicyConfig


def _qwen3(layers, width, heads, kv_heads, mlp, tied, rope_base=1e6, context=40_960, **more) -> PolicyConfig:
  return PolicyConfig(
    vocab_size=151_936, layers=layers, width=width, heads=heads, kv_heads=kv_heads, head_size=128, mlp=mlp,
    rope_base=rope_base, qk_norm=True, tied=tied, context=context, **more,
  )  # fmt: skip


def _llama3(layers, width, heads, head_size, mlp, tied, rope_factor) -> PolicyConfig:
  return PolicyConfig(
    vocab_size=128_256, layers=layers, width=width, heads=heads, kv_heads=8, head_size=head_size, mlp=mlp,
    rope_base=500_000.0, rope_scaling="llama3", rope_factor=rope_factor, rope_original=8192, tied=tied, norm_eps=1e-5,
    context=131_072,
  )  # fmt: skip


def _smollm2(layers, width, heads, kv_heads, mlp, rope_base) -> PolicyConfig:
  return PolicyConfig(
    vocab_size=49_152, layers=layers, width=width, heads=heads, kv_heads=kv_heads, head_size=64, mlp=mlp,
    rope_base=rope_base, norm_eps=1e-5, context=8192,
  )  # fmt: skip


def _gemma3(layers, width, mlp) -> PolicyConfig:
  return PolicyConfig(
    vocab_size=262_144, layers=layers, width=width, heads=4, kv_heads=1, head_size=256, mlp=mlp, rope_base=1e6,
    window=512, window_pattern="SSSSSF", window_rope_base=10_000.0, qk_norm=True, post_norms=True, norm_offset=True,
    embed_scale=True, query_scale=256, activation="gelu_tanh", context=32_768,
  )  # fmt: skip


PRESETS = {
  "qwen3_tiny": PolicyConfig(
    vocab_size=512, layers=2, width=64, heads=4, kv_heads=2, head_size=16, mlp=128, rope_base=1e6, qk_norm=True,
  ),
  "qwen3_0_6b": _qwen3(28, 1024, 16, 8, 3072, True),
  "qwen3_1_7b": _qwen3(28, 2048, 16, 8, 6144, True),
  "qwen3_4b": _qwen3(36, 2560, 32, 8, 9728, True),
  "qwen3_4b_instruct_2507": _qwen3(36, 2560, 32, 8, 9728, True, rope_base=5e6, context=262_144),
  "qwen3_8b": _qwen3(36, 4096, 32, 8, 12_288, False),
  "qwen3_14b": _qwen3(40, 5120, 40, 8, 17_408, False),
  "qwen3_32b": _qwen3(64, 5120, 64, 8, 25_600, False),
  "qwen3_30b_a3b": _qwen3(48, 2048, 32, 4, 768, False, experts=128, experts_per_token=8, norm_experts=True),
  "llama3_2_1b": _llama3(16, 2048, 32, 64, 8192, True, 32.0),
  "llama3_2_3b": _llama3(28, 3072, 24, 128, 8192, True, 32.0),
  "llama3_1_8b": _llama3(32, 4096, 32, 128, 14_336, False, 8.0),
  "smollm2_135m": _smollm2(30, 576, 9, 3, 1536, 100_000.0),
  "smollm2_360m": _smollm2(32, 960, 15, 5, 2560, 100_000.0),
  "smollm2_1_7b": _smollm2(24, 2048, 32, 32, 8192, 130_000.0),
  "gemma3_270m": _gemma3(18, 640, 2048),
  "gemma3_1b": _gemma3(26, 1152, 6912),
}  # fmt: skip
