"""The config.json of a Hugging Face folder, both ways.

Read in the layouts of transformers 4 (rope_theta, rope_scaling, torch_dtype, num_experts) and 5 (rope_parameters,
dtype, num_local_experts). What it asks for that the transformer does not do is an error that names the field; so is a
field that nobody here knows, unless it is empty. Written such that both read it.
"""

from rao_jax.policy.transformer import PolicyConfig

ARCHITECTURES = {
  "llama": "LlamaForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
  "qwen3_moe": "Qwen3MoeForCausalLM",
  "gemma3_text": "Gemma3ForCausalLM",
}
# The only values that are done here. A file need not name them.
ONLY = {
  "attention_bias": False, "attention_dropout": 0, "attn_logit_softcapping": None, "decoder_sparse_step": 1,
  "final_logit_softcapping": None, "mlp_bias": False, "mlp_only_layers": [], "output_router_logits": False,
  "pretraining_tp": 1, "quantization_config": None, "rope_interleaved": False, "use_bidirectional_attention": False,
  "use_sliding_window": False,
}  # fmt: skip
# Nothing in these changes the logits.
NO_MATTER = {
  "_attn_implementation_autoset", "_name_or_path", "architectures", "bos_token_id", "cache_implementation",
  "eos_token_id", "initializer_range", "is_llama_config", "max_window_layers", "model_type", "pad_token_id",
  "router_aux_loss_coef", "transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version",
  "use_cache",
}  # fmt: skip
SLIDING, FULL = "sliding_attention", "full_attention"
DTYPES = ("float32", "bfloat16")


class _Fields:
  """The fields of a config.json; remembers which were asked for."""

  def __init__(self, values: dict):
    self.values, self.asked = values, set()

  def get(self, *names: str, default=...):
    """The value under the first of the names that is there and not null."""
    self.asked.update(names)
    for name in names:
      if self.values.get(name) is not None:
        return self.values[name]
    if default is ...:
      raise ValueError(f"config.json lacks {names[0]}")
    return default

  def finish(self) -> None:
    for name, only in ONLY.items():
      value = self.values.get(name)
      if value is not None and value != only:
        raise ValueError(f"config.json has {name}={value!r}: this transformer does {only!r} only")
    for name, value in self.values.items():
      if name not in self.asked and name not in ONLY and name not in NO_MATTER and value:
        raise ValueError(
          f"config.json has {name}={value!r}, which is not known here: if it does not change the model's output, "
          "remove it from the file"
        )


def read_config(values: dict) -> PolicyConfig:
  """The policy that a config.json describes; without a dtype in the file it is float32.

  Raises:
    ValueError: a field is missing, or asks for what the transformer does not do.
  """
  family = values.get("model_type")
  if family not in ARCHITECTURES:
    raise ValueError(f"config.json has model_type={family!r}: choose a model of {tuple(ARCHITECTURES)}")
  gemma, moe = family == "gemma3_text", family == "qwen3_moe"
  f = _Fields(values)
  # Files leave out what is the default of transformers, which is another for each family.
  heads = f.get("num_attention_heads")
  width = f.get("hidden_size")
  default_head = {"gemma3_text": 256, "qwen3": 128}.get(family, width // heads)
  act, silu = ("hidden_activation", "gelu_pytorch_tanh") if gemma else ("hidden_act", "silu")
  if f.get(act, default=silu) != silu:
    raise ValueError(f"config.json has {act}={values[act]!r}: {family} models have {silu!r} here")
  dtype = f.get("dtype", "torch_dtype", default="float32")
  if dtype not in (*DTYPES, "float16"):
    raise ValueError(f"config.json has dtype={dtype!r}: choose one of {DTYPES}")
  options = {}
  if moe:
    f.get("intermediate_size", default=0)  # of layers without experts, of which there are none
    options = {
      "experts": f.get("num_local_experts", "num_experts"),
      "experts_per_token": f.get("num_experts_per_tok"),
      "norm_experts": f.get("norm_topk_prob", default=False),
    }
  if gemma:
    options = {
      "post_norms": True, "norm_offset": True, "embed_scale": True, "activation": "gelu_tanh",
      "query_scale": int(f.get("query_pre_attn_scalar", default=256)),
    }  # fmt: skip
  layers = f.get("num_hidden_layers")
  kinds = f.get("layer_types", default=[])
  window = f.get("sliding_window", default=0)
  every = f.get("sliding_window_pattern", "_sliding_window_pattern", default=6)
  if gemma:
    kinds = kinds or [SLIDING if (i + 1) % every else FULL for i in range(layers)]
    if SLIDING in kinds and not window:
      raise ValueError("config.json lacks sliding_window")
    options |= _windows(kinds, layers, window)
  elif set(kinds) - {FULL}:
    raise ValueError(f"config.json has layer_types={kinds}: {family} models have {FULL!r} layers only here")
  config = PolicyConfig(
    vocab_size=f.get("vocab_size"),
    layers=layers,
    width=width,
    heads=heads,
    kv_heads=f.get("num_key_value_heads", default=heads),
    head_size=f.get("head_dim", default=default_head),
    mlp=f.get("moe_intermediate_size" if moe else "intermediate_size"),
    qk_norm=family != "llama",
    norm_eps=f.get("rms_norm_eps", default=1e-6),
    tied=f.get("tie_word_embeddings", default=gemma),
    context=f.get("max_position_embeddings", default=0),
    dtype="float32" if dtype == "float16" else dtype,
    param_dtype="float32" if dtype == "float16" else dtype,
    **_rotary(f, gemma),
    **options,
  )
  f.finish()
  return config


def _windows(kinds: list[str], layers: int, window: int) -> dict:
  letters = "".join({SLIDING: "S", FULL: "F"}.get(kind, "?") for kind in kinds)
  if "?" in letters or len(letters) != layers:
    raise ValueError(f"config.json has layer_types={kinds} for {layers} layers: each must be {SLIDING!r} or {FULL!r}")
  if "S" not in letters:
    return {}
  period = next(n for n in range(1, layers + 1) if (letters[:n] * layers)[:layers] == letters)
  return {"window": window, "window_pattern": letters[:period]}


def _rotary(f: _Fields, gemma: bool) -> dict:
  """The rope_* fields of the policy. In Gemma's files the scaling is that of the full layers."""
  new = f.get("rope_parameters", default={})
  local = f.get("rope_local_base_freq", default=10_000.0)
  if gemma and new:
    sliding = {"rope_type": "default", "rope_theta": local} | (new.get(SLIDING) or {})
    if sliding["rope_type"] != "default":
      raise ValueError(f"config.json has rope_parameters.{SLIDING}={sliding}: only 'default' is done here")
    local, new = sliding["rope_theta"], new.get(FULL) or {}
  default = 1e6 if gemma else 10_000.0
  old = f.get("rope_scaling", default={})
  base = new.get("rope_theta", f.get("rope_theta", default=default))
  rope = dict(new or old)
  rope.pop("rope_theta", None)
  kind = rope.pop("rope_type", rope.pop("type", "default"))
  rope.pop("type", None)
  out = {"rope_base": float(base)} | ({"window_rope_base": float(local)} if gemma else {})
  needs = {"default": {}, "linear": {"factor": "rope_factor"}, "llama3": {
    "factor": "rope_factor", "low_freq_factor": "rope_low", "high_freq_factor": "rope_high",
    "original_max_position_embeddings": "rope_original",
  }}  # fmt: skip
  if kind not in needs:
    raise ValueError(f"config.json has rope type {kind!r}: choose one of {tuple(needs)}")
  surplus, missing = set(rope) - set(needs[kind]), set(needs[kind]) - set(rope)
  if rope.get("partial_rotary_factor") == 1:
    surplus -= {"partial_rotary_factor"}
  if surplus or missing:
    raise ValueError(f"config.json has rope parameters {rope} of type {kind!r}: it takes {tuple(needs[kind])}")
  if kind != "default":
    out |= {"rope_scaling": kind} | {ours: float(rope[theirs]) for theirs, ours in needs[kind].items()}
    if "rope_original" in out:
      out["rope_original"] = int(out["rope_original"])
  return out


def family_of(config: PolicyConfig) -> str:
  """Which published make a policy has.

  Raises:
    ValueError: no make has these options together.
  """
  gemma = ("post_norms", "norm_offset", "embed_scale")
  if all(getattr(config, name) for name in gemma) and config.qk_norm and not config.experts:
    family, activation = "gemma3_text", "gelu_tanh"
  else:
    family, activation = "qwen3_moe" if config.experts else "qwen3" if config.qk_norm else "llama", "silu"
  alien = [name for name in (*gemma, "query_scale", "window_pattern") if getattr(config, name)]
  if (
    (family != "gemma3_text" and alien)
    or (config.experts and not config.qk_norm)
    or config.activation != activation
    or (family == "gemma3_text" and config.rope_scaling == "llama3")
  ):
    raise ValueError(f"no published make of {tuple(ARCHITECTURES)} has the options of {config}: it cannot be exported")
  return family


def write_config(config: PolicyConfig) -> dict:
  """A config.json that transformers 4 and 5 read."""
  family = family_of(config)
  gemma = family == "gemma3_text"
  rope = {"rope_type": "default"}
  if config.rope_scaling != "none":
    rope = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
  if config.rope_scaling == "llama3":
    rope |= {
      "low_freq_factor": config.rope_low, "high_freq_factor": config.rope_high,
      "original_max_position_embeddings": config.rope_original,
    }  # fmt: skip
  new = rope | {"rope_theta": config.rope_base}
  out = {
    "architectures": [ARCHITECTURES[family]],
    "model_type": family,
    "vocab_size": config.vocab_size,
    "hidden_size": config.width,
    "intermediate_size": config.mlp * (config.experts_per_token or 1),
    "num_hidden_layers": config.layers,
    "num_attention_heads": config.heads,
    "num_key_value_heads": config.kv_heads,
    "head_dim": config.head_size,
    "hidden_activation" if gemma else "hidden_act": "gelu_pytorch_tanh" if gemma else "silu",
    "rms_norm_eps": config.norm_eps,
    "tie_word_embeddings": config.tied,
    "attention_bias": False,
    "rope_theta": config.rope_base,
    "rope_scaling": None if config.rope_scaling == "none" else rope,
    "rope_parameters": new,
    "dtype": config.param_dtype,
    "torch_dtype": config.param_dtype,
  }
  if config.context:
    out["max_position_embeddings"] = config.context
  if config.experts:
    out |= {
      "num_experts": config.experts,
      "num_experts_per_tok": config.experts_per_token,
      "moe_intermediate_size": config.mlp,
      "norm_topk_prob": config.norm_experts,
      "decoder_sparse_step": 1,
      "mlp_only_layers": [],
    }
  if gemma:
    sliding = config.sliding
    out |= {
      "query_pre_attn_scalar": config.query_scale or config.head_size,
      "sliding_window": config.window or None,
      "layer_types": [FULL] * config.layers if sliding is None else [SLIDING if s else FULL for s in sliding],
      "rope_local_base_freq": config.window_rope_base,
      "rope_parameters": {
        FULL: new,
        SLIDING: {"rope_type": "default", "rope_theta": config.window_rope_base},
      },
    }
  return out
