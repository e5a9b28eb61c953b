"""Weights of published models: the name table, and parameters in and out of tensors by those names.

One table serves both ways. It names the tensors as Hugging Face files do and says which part of which leaf of the
parameter pytree each is. A source of tensors is a mapping from those names to arrays in the files' layout (matrices
[out, in]); it may map files or dequantise on access: every tensor is asked for once for each of its slices.
"""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from rao_jax.mesh import Rules
from rao_jax.policy.params import param_shardings
from rao_jax.policy.transformer import Params, PolicyConfig, init_params

HEAD = "lm_head.weight"
EMBED = "model.embed_tokens.weight"


class Entry(NamedTuple):
  """Where a tensor of a file lies in the parameters.

  Attributes:
    leaf: path of the leaf.
    index: of the tensor in the leaf's leading axes: (), (layer,) or (layer, expert).
    inputs: how many of the axes after those are inputs of a matrix, which the file keeps as [out, in]; 0 where the
      file's layout is the leaf's.
    shape: in the leaf, without the leading axes.
  """

  leaf: tuple[str, ...]
  index: tuple[int, ...]
  inputs: int
  shape: tuple[int, ...]

  @property
  def file_shape(self) -> tuple[int, ...]:
    split = (math.prod(self.shape[self.inputs :]), math.prod(self.shape[: self.inputs]))
    return split if self.inputs else self.shape

  def from_file(self, tensor: np.ndarray) -> np.ndarray:
    """A view in the leaf's layout."""
    return tensor.T.reshape(self.shape) if self.inputs else tensor

  def to_file(self, part: np.ndarray) -> np.ndarray:
    """The inverse of `from_file`."""
    return part.reshape(self.file_shape[::-1]).T if self.inputs else part


def name_table(config: PolicyConfig) -> dict[str, Entry]:
  """Every tensor of the model's files by its name, in the order in which they are written."""
  shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
  blocks = shapes["blocks"]
  table = {EMBED: Entry(("embed",), (), 0, shapes["embed"].shape)}
  # Gemma's files call the norm before the mlp `pre_feedforward`, and mean the one after attention by the name that the
  # others give to the one before the mlp.
  names = {
    "input_layernorm": ("attn_norm", 0),
    "pre_feedforward_layernorm" if config.post_norms else "post_attention_layernorm": ("mlp_norm", 0),
    "self_attn.q_proj": ("q", 1),
    "self_attn.k_proj": ("k", 1),
    "self_attn.v_proj": ("v", 1),
    "self_attn.o_proj": ("o", 2),
  }
  if config.qk_norm:
    names |= {"self_attn.q_norm": ("q_norm", 0), "self_attn.k_norm": ("k_norm", 0)}
  if config.post_norms:
    names |= {
      "post_attention_layernorm": ("attn_post_norm", 0),
      "post_feedforward_layernorm": ("mlp_post_norm", 0),
    }
  if config.experts:
    names |= {"mlp.gate": ("router", 1)}
  else:
    names |= {"mlp.gate_proj": ("gate", 1), "mlp.up_proj": ("up", 1), "mlp.down_proj": ("down", 1)}
  for layer in range(config.layers):
    for name, (leaf, inputs) in names.items():
      entry = Entry(("blocks", leaf), (layer,), inputs, blocks[leaf].shape[1:])
      table[f"model.layers.{layer}.{name}.weight"] = entry
    for expert in range(config.experts):
      for name in ("gate", "up", "down"):
        entry = Entry(("blocks", f"expert_{name}"), (layer, expert), 1, blocks[f"expert_{name}"].shape[2:])
        table[f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight"] = entry
  table["model.norm.weight"] = Entry(("norm",), (), 0, shapes["norm"].shape)
  if not config.tied:
    table[HEAD] = Entry(("head",), (), 1, shapes["head"].shape)
  return table


def split_experts(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
  """Views by the per-expert names, where files keep the experts of a layer in one tensor.

  Those are `mlp.experts.gate_up_proj` [E, 2 F, D], gates above ups, and `mlp.experts.down_proj` [E, D, F].
  """
  fused = [name for name in tensors if name.endswith((".mlp.experts.gate_up_proj", ".mlp.experts.down_proj"))]
  if not fused:
    return tensors
  out = {name: tensor for name, tensor in tensors.items() if name not in fused}
  for name in fused:
    prefix, kind = name.rsplit(".", 1)
    for expert, matrix in enumerate(tensors[name]):
      if kind == "down_proj":
        out[f"{prefix}.{expert}.down_proj.weight"] = matrix
      else:
        half = matrix.shape[0] // 2
        out[f"{prefix}.{expert}.gate_proj.weight"], out[f"{prefix}.{expert}.up_proj.weight"] = (
          matrix[:half], matrix[half:],
        )  # fmt: skip
  return out


def load_params(config: PolicyConfig, tensors: Mapping[str, np.ndarray], rules: Rules | None = None) -> Params:
  """Parameters from tensors by the names of `name_table`, born in their sharding.

  The host holds one tensor at a time, or one layer's experts: only the slices that its devices keep are read.

  Args:
    config: of the policy; param_dtype is that of the parameters, whatever the tensors have.
    tensors: from names to arrays.
    rules: sharding rules; None for the default device.
  Raises:
    ValueError: names are missing or surplus (all are listed), or a shape is another.
  """
  tensors, table = split_experts(tensors), name_table(config)
  _check_names(config, table, tensors)
  dtype = jnp.dtype(config.param_dtype)
  shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
  if rules:
    layout = param_shardings(config, rules)
  else:
    device = jax.sharding.SingleDeviceSharding(jnp.zeros(()).device)
    layout = jax.tree.map(lambda _: device, shapes)
  parts = {}  # leaf -> layer -> names, one for each expert
  for name, entry in table.items():
    parts.setdefault(entry.leaf, {}).setdefault(entry.index[:1], []).append(name)

  def view(name: str) -> np.ndarray:
    tensor, entry = tensors[name], table[name]
    if tensor.shape != entry.file_shape:
      raise ValueError(
        f"{name} has shape {list(tensor.shape)}, where the config asks for {list(entry.file_shape)}: config and "
        "weights are of different models"
      )
    return entry.from_file(tensor)

  def piece(names: list[str], shape: tuple[int, ...], sharding) -> jax.Array:
    last, held = None, None  # copies of a slice are handed to several devices

    def read(index: tuple[slice, ...]) -> np.ndarray:
      nonlocal last, held
      if index != last:
        if len(names) == 1:
          held = np.array(view(names[0])[index], dtype)
        else:
          held = np.stack([view(name)[index[1:]].astype(dtype) for name in names[index[0]]])
        last = index
      return held

    return jax.make_array_from_callback(shape, sharding, read)

  def leaf_of(path: tuple, struct: jax.ShapeDtypeStruct, sharding) -> jax.Array:
    layers = parts[tuple(key.key for key in path)]
    if () in layers:
      return piece(layers[()], struct.shape, sharding)
    shape = struct.shape[1:]
    one = _without_layers(sharding)
    put = jax.jit(
      lambda leaf, part, layer: jax.lax.dynamic_update_index_in_dim(leaf, part, layer, 0),
      donate_argnums=0,
      out_shardings=sharding,
    )
    leaf = jax.jit(lambda: jnp.zeros(struct.shape, dtype), out_shardings=sharding)()
    for (layer,), names in layers.items():
      leaf = put(leaf, piece(names, shape, one), np.int32(layer))
    return leaf

  return jax.tree_util.tree_map_with_path(leaf_of, shapes, layout)


def _without_layers(sharding):
  if isinstance(sharding, jax.sharding.NamedSharding):
    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*sharding.spec[1:]))
  return sharding


def _check_names(config: PolicyConfig, table: Mapping, tensors: Mapping) -> None:
  missing, surplus = [n for n in table if n not in tensors], [n for n in tensors if n not in table]
  if config.tied and HEAD in surplus and not missing:
    # Some files of tied models hold the shared matrix under both names.
    if not np.array_equal(tensors[HEAD], tensors[EMBED]):
      raise ValueError(f"the config ties the output head to the embedding, but {HEAD} differs from {EMBED}")
    surplus.remove(HEAD)
  if missing or surplus:
    lists = [f"{kind} {len(names)}: {', '.join(names)}" for kind, names in (("missing", missing), ("surplus", surplus)) if names]  # fmt: skip # noqa: E501
    raise ValueError("the weights are not those of the config; " + "; ".join(lists))


class ParamTensors(Mapping):
  """Parameters seen as a mapping from the names of `name_table` to host arrays in the files' layout.

  With arrays on several hosts every process must ask for the same names in the same order.
  """

  def __init__(self, config: PolicyConfig, params: Params):
    self.table = name_table(config)
    self._params = params
    self._held = {}  # leaf -> (layer, its part): all experts of a layer come at once
    self._take = jax.jit(lambda leaf, layer: leaf[layer])

  def __iter__(self):
    return iter(self.table)

  def __len__(self):
    return len(self.table)

  def _leaf(self, name: str) -> jax.Array:
    return functools.reduce(lambda node, key: node[key], self.table[name].leaf, self._params)

  def __getitem__(self, name: str) -> np.ndarray:
    entry, leaf = self.table[name], self._leaf(name)
    if not entry.index:
      return entry.to_file(_to_host(leaf))
    layer, *expert = entry.index
    if not expert:
      return entry.to_file(_to_host(self._take(leaf, layer)))
    if self._held.get(entry.leaf, (None,))[0] != layer:
      self._held[entry.leaf] = layer, _to_host(self._take(leaf, layer))
    return entry.to_file(self._held[entry.leaf][1][expert[0]])

  def dtype(self, name: str) -> np.dtype:
    return np.dtype(self._leaf(name).dtype)


def _to_host(x: jax.Array) -> np.ndarray:
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return multihost_utils.process_allgather(x, tiled=True)
  return np.asarray(x)
