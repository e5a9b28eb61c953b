"""GGUF files: the policy's numbers from the metadata, its tensors dequantised one at a time. Reads files.

A GGUF file names its tensors in llama.cpp's way and keeps three things in a form of its own, undone here: the rows of
query and key matrices of the llama architecture stand in rotary pairs, the norms of gemma3 have 1 added to them, and
Llama 3's scaling of rotary frequencies is a tensor of factors.
"""

import functools
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rao_jax.policy.transformer import PolicyConfig

ARCHITECTURES = ("llama", "qwen3", "gemma3")
LLAMA3_SCALING = {"rope_low": 1.0, "rope_high": 4.0, "rope_original": 8192}  # of every published Llama 3
ROPE_FACTORS = "rope_freqs.weight"

_OUTER = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
}
_INNER = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "attn_q_norm": "self_attn.q_norm",
  "attn_k_norm": "self_attn.k_norm",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}
_INNER_GEMMA3 = {
  **_INNER,
  "ffn_norm": "pre_feedforward_layernorm",
  "post_attention_norm": "post_attention_layernorm",
  "post_ffw_norm": "post_feedforward_layernorm",
}


class GGUFFile:
  """An open GGUF file.

  Attributes:
    path: of the file.
    metadata: its fields by name; long arrays are read on access.
    tensors: the reader's own entries by name.
  """

  def __init__(self, path: str | pathlib.Path):
    try:
      import gguf
    except ImportError:
      raise ImportError("reading a GGUF file needs the package gguf: pip install 'rao-jax[models]'") from None
    self.path = pathlib.Path(path)
    try:
      reader = gguf.GGUFReader(self.path)
    except (ValueError, IndexError) as error:
      raise ValueError(f"{path} is not a whole GGUF file: {error}") from error
    self._dequantize = gguf.quants.dequantize
    self.metadata = _Fields(reader.fields)
    self.tensors = {tensor.name: tensor for tensor in reader.tensors}

  def read(self, name: str) -> np.ndarray:
    """A tensor as f32, its axes as numpy orders them: a matrix is [out, in]."""
    tensor = self.tensors[name]
    shape = tuple(int(n) for n in reversed(tensor.shape))
    return self._dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False).reshape(shape)


class _Fields(Mapping):
  def __init__(self, fields: Mapping):
    self._fields = fields

  def __getitem__(self, name: str) -> Any:
    return self._fields[name].contents()

  def __iter__(self) -> Iterator[str]:
    return iter(self._fields)

  def __len__(self) -> int:
    return len(self._fields)


@functools.lru_cache(maxsize=1)
def open_gguf(path: str | pathlib.Path) -> GGUFFile:
  """The file, opened once for its config, its tensors and its tokenizer: that takes seconds."""
  return GGUFFile(path)


def read_config(path: str | pathlib.Path) -> PolicyConfig:
  """The policy that a file's metadata describes, in float32.

  Raises:
    ValueError: the architecture is none of ARCHITECTURES, or asks for what this transformer does not do.
  """
  file = open_gguf(path)
  data, arch = file.metadata, file.metadata.get("general.architecture")
  if arch not in ARCHITECTURES:
    raise ValueError(f"{file.path}: architecture {arch!r} is not supported as GGUF, only {', '.join(ARCHITECTURES)}")
  get = lambda key, default=None: data.get(f"{arch}.{key}", default)

  def size(key: str, most: int = 1 << 24) -> int:
    if not isinstance(get(key), int) or not 0 < get(key) <= most:
      raise ValueError(f"{file.path}: {arch}.{key} is {get(key)!r}, which cannot be: download the file again")
    return get(key)

  if "token_embd.weight" not in file.tensors:
    raise ValueError(f"{file.path} has no token_embd.weight: it is no language model")
  heads, width = size("attention.head_count"), size("embedding_length")
  head_size = get("attention.key_length", width // heads)
  for key, wanted in (
    ("rope.dimension_count", head_size), ("attention.value_length", head_size), ("expert_count", 0),
    ("attn_logit_softcapping", 0.0), ("final_logit_softcapping", 0.0),
  ):  # fmt: skip
    if get(key, wanted) != wanted:
      raise ValueError(f"{file.path}: {arch}.{key} is {get(key)}, this transformer has {wanted} only")
  more = {}
  if arch == "gemma3":
    more = dict(
      window=get("attention.sliding_window"), window_pattern="SSSSSF",
      window_rope_base=get("rope.freq_base_swa", 10_000.0), post_norms=True, norm_offset=True, embed_scale=True,
      query_scale=float(head_size), activation="gelu_tanh",
    )  # fmt: skip
  return PolicyConfig(
    vocab_size=int(file.tensors["token_embd.weight"].shape[-1]),
    layers=size("block_count", most=10_000),
    width=width,
    heads=heads,
    kv_heads=get("attention.head_count_kv", heads),
    head_size=head_size,
    mlp=size("feed_forward_length"),
    rope_base=float(get("rope.freq_base", 10_000.0)),
    qk_norm=arch != "llama",
    norm_eps=_short(get("attention.layer_norm_rms_epsilon")),
    tied="output.weight" not in file.tensors,
    context=get("context_length", 0),
    **_rope_scaling(file, get, head_size),
    **more,
  )


def _short(x: float) -> float:
  """The shortest decimal that a float32 of the file may have meant: 9.9999997e-06 is 1e-05."""
  return float(str(np.float32(x)))


def _rope_scaling(file: GGUFFile, get, head_size: int) -> dict[str, Any]:
  kind, factor = get("rope.scaling.type", "none"), float(get("rope.scaling.factor", 1.0))
  if kind not in ("none", "linear"):
    raise ValueError(f"{file.path}: rotary scaling {kind!r} is not supported, only linear and Llama 3's")
  if ROPE_FACTORS not in file.tensors:
    return {"rope_scaling": "linear", "rope_factor": factor} if kind == "linear" and factor != 1 else {}
  found = file.read(ROPE_FACTORS)
  factor = float(found.max())
  base = float(get("rope.freq_base"))
  if kind != "none" or not np.allclose(found, llama3_factors(head_size, base, factor), rtol=1e-4):
    raise ValueError(f"{file.path}: {ROPE_FACTORS} does not hold the factors of Llama 3 ({LLAMA3_SCALING})")
  return {"rope_scaling": "llama3", "rope_factor": factor, **LLAMA3_SCALING}


def llama3_factors(head_size: int, base: float, factor: float) -> np.ndarray:
  """By what Llama 3 divides each rotary frequency, f32[Q / 2]: by nothing where it turns often, by `factor` where the
  original context holds less than a turn, and smoothly between."""
  low, high, original = LLAMA3_SCALING.values()
  turns = original / (2 * math.pi) * base ** (-np.arange(0, head_size, 2) / head_size)
  kept = np.clip((turns - low) / (high - low), 0, 1)
  return (1 / (kept + (1 - kept) / factor)).astype(np.float32)


def read_tensors(path: str | pathlib.Path) -> Mapping[str, np.ndarray]:
  """A file's tensors by the names and in the layout of Hugging Face files, f32, dequantised on access."""
  return _Tensors(open_gguf(path), read_config(path))


class _Tensors(Mapping):
  def __init__(self, file: GGUFFile, config: PolicyConfig):
    self._file, self._config = file, config
    self._arch = file.metadata["general.architecture"]
    names = _INNER_GEMMA3 if self._arch == "gemma3" else _INNER
    self._own = {}
    for own in file.tensors:
      if own == ROPE_FACTORS:
        continue
      name = _OUTER.get(own, own)  # an unknown one keeps its name, and is reported as surplus
      if own.startswith("blk."):
        _, layer, part, kind = [*own.split("."), "", ""][:4]
        if part in names and kind == "weight":
          name = f"model.layers.{layer}.{names[part]}.weight"
      self._own[name] = own

  def __iter__(self) -> Iterator[str]:
    return iter(self._own)

  def __len__(self) -> int:
    return len(self._own)

  def __getitem__(self, name: str) -> np.ndarray:
    own, c = self._own[name], self._config
    tensor = self._file.read(own)
    if self._arch == "llama" and own.endswith(("attn_q.weight", "attn_k.weight")):
      return halves(tensor, c.heads if own.endswith("attn_q.weight") else c.kv_heads)
    if self._arch == "gemma3" and own.endswith("norm.weight"):
      return tensor - 1
    return tensor


def halves(matrix: np.ndarray, heads: int) -> np.ndarray:
  """[heads * Q, in] whose rows 2i and 2i + 1 of a head turn together -> the same with rows i and i + Q / 2."""
  out, inputs = matrix.shape
  return matrix.reshape(heads, out // heads // 2, 2, inputs).swapaxes(1, 2).reshape(out, inputs)
