"""The decoder-only transformer: declared as Flax NNX modules, used as a pure function of a parameter pytree.

Rotary positions, grouped-query attention, RMSNorm, gated mlp, optional qk-norm, tied or separate output embedding.
Layers are stacked along a leading axis and scanned. Training, prefill and decode all run `hidden_states`; they differ
only in the blocks of keys that attention sees.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rao_jax.mesh import Rules
from rao_jax.policy.attention import attend

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """Shape and numerics of a policy; hashable, so jitted functions take it as a static argument.

  Attributes:
    vocab_size: rows of the embedding (a multiple of 64 keeps every mesh happy).
    layers, width, heads, kv_heads, head_size, mlp: L, D, H, K, Q, F of the shape comments.
    rope_base: base of the rotary frequencies.
    qk_norm: RMSNorm on each query and key head before rotation.
    tied: output logits reuse the input embedding.
    dtype: of activations; param_dtype: of parameters. Softmax, norms and logits are float32 always.
    unroll: layers are unrolled in the scan: faster for a few small layers on a CPU, slower to compile.
    remat: recompute each layer's activations in the backward pass instead of keeping them.
  """

  vocab_size: int
  layers: int
  width: int
  heads: int
  kv_heads: int
  head_size: int
  mlp: int
  rope_base: float = 10_000.0
  qk_norm: bool = False
  tied: bool = True
  norm_eps: float = 1e-6
  dtype: str = "float32"
  param_dtype: str = "float32"
  unroll: bool = False
  remat: bool = False

  def __post_init__(self):
    if self.heads % self.kv_heads:
      raise ValueError(f"policy.heads={self.heads} must be a multiple of policy.kv_heads={self.kv_heads}")
    if self.head_size % 2:
      raise ValueError(f"policy.head_size={self.head_size} must be even (rotary positions turn pairs)")


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  y = x.astype(jnp.float32)
  y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + eps)
  return (y * scale.astype(jnp.float32)).astype(x.dtype)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotary positions, half-split: x [B, P, H, Q], cos and sin f32[B, P, 1, Q / 2]."""
  a, b = jnp.split(x.astype(jnp.float32), 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def project(x: jax.Array, w: jax.Array, axes: int = 1) -> jax.Array:
  """Contracts the last `axes` axes of x with the first of w, as one plain matrix product.

  XLA's CPU backend is more than twice as slow at the weight gradient of a product with two batch axes.
  """
  batch, out = x.shape[: x.ndim - axes], w.shape[axes:]
  inner = math.prod(w.shape[:axes])
  return (x.reshape(-1, inner) @ w.reshape(inner, -1)).reshape(*batch, *out)


class Block(nnx.Module):
  """One layer: attention and gated mlp, each behind an RMSNorm and added to the stream."""

  def __init__(self, config: PolicyConfig, rngs: nnx.Rngs):
    c, dtype = config, jnp.dtype(config.param_dtype)
    normal = jax.nn.initializers.normal
    scale, out_scale = c.width**-0.5, (2 * c.layers) ** -0.5  # residual branches start small, as in GPT-2

    def param(stddev: float, *shape: int) -> nnx.Param:
      return nnx.Param(normal(stddev)(rngs.params(), shape, dtype))

    self.config = c
    self.attn_norm = nnx.Param(jnp.ones((c.width,), dtype))
    self.q = param(scale, c.width, c.heads, c.head_size)
    self.k = param(scale, c.width, c.kv_heads, c.head_size)
    self.v = param(scale, c.width, c.kv_heads, c.head_size)
    self.o = param((c.heads * c.head_size) ** -0.5 * out_scale, c.heads, c.head_size, c.width)
    self.mlp_norm = nnx.Param(jnp.ones((c.width,), dtype))
    self.gate = param(scale, c.width, c.mlp)
    self.up = param(scale, c.width, c.mlp)
    self.down = param(c.mlp**-0.5 * out_scale, c.mlp, c.width)
    if c.qk_norm:
      self.q_norm = nnx.Param(jnp.ones((c.head_size,), dtype))
      self.k_norm = nnx.Param(jnp.ones((c.head_size,), dtype))

  def __call__(self, x: jax.Array, rope: tuple[jax.Array, jax.Array], attention: Callable, constrain: Callable):
    """x [B, P, D] -> [B, P, D]; `attention(q, k, v)` adds what else the queries may see to this chunk's own keys."""
    c = self.config
    w = lambda p: p[...].astype(c.dtype)
    with jax.named_scope("attention"):
      h = rms_norm(x, self.attn_norm[...], c.norm_eps)
      q, k, v = (project(h, w(p)) for p in (self.q, self.k, self.v))
      if c.qk_norm:
        q, k = rms_norm(q, self.q_norm[...], c.norm_eps), rms_norm(k, self.k_norm[...], c.norm_eps)
      q, k = constrain(rotate(q, *rope), "rows", None, "heads", None), rotate(k, *rope)
      k, v = (constrain(t.swapaxes(1, 2), "rows", "kv_heads", None, None) for t in (k, v))  # [B, K, P, Q]
      out, kept = attention(q, k, v)
      x = constrain(x + project(out, w(self.o), 2), "rows", None, "act_embed")
    with jax.named_scope("mlp"):
      h = rms_norm(x, self.mlp_norm[...], c.norm_eps)
      h = constrain(jax.nn.silu(project(h, w(self.gate))) * project(h, w(self.up)), "rows", None, "mlp")
      x = constrain(x + project(h, w(self.down)), "rows", None, "act_embed")
    return x, kept


class Transformer(nnx.Module):
  """Embedding, a stack of `Block`s (leading axis L on every leaf), final norm, output head."""

  def __init__(self, config: PolicyConfig, rngs: nnx.Rngs):
    c, dtype = config, jnp.dtype(config.param_dtype)
    normal = jax.nn.initializers.normal(c.width**-0.5)
    self.embed = nnx.Param(normal(rngs.params(), (c.vocab_size, c.width), dtype))
    make_blocks = nnx.split_rngs(splits=c.layers)(nnx.vmap(lambda r: Block(c, r), in_axes=(0,), out_axes=0))
    self.blocks = make_blocks(rngs)
    self.norm = nnx.Param(jnp.ones((c.width,), dtype))
    if not c.tied:
      self.head = nnx.Param(normal(rngs.params(), (c.width, c.vocab_size), dtype))


# Logical axes of every parameter, by the last name of its path; stacked layers have `layers` in front.
PARAM_AXES = {
  "embed": ("vocab", "embed"),
  "head": ("embed", "vocab"),
  "norm": (None,),
  "attn_norm": (None,),
  "mlp_norm": (None,),
  "q_norm": (None,),
  "k_norm": (None,),
  "q": ("embed", "heads", None),
  "k": ("embed", "kv_heads", None),
  "v": ("embed", "kv_heads", None),
  "o": ("heads", None, "embed"),
  "gate": ("embed", "mlp"),
  "up": ("embed", "mlp"),
  "down": ("mlp", "embed"),
}


def init_params(config: PolicyConfig, key: jax.Array) -> Params:
  """Random parameters as a plain dict pytree; `jax.eval_shape` of it gives the shapes."""
  model = Transformer(config, nnx.Rngs(params=key))
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))


@functools.cache
def _block_graph(config: PolicyConfig) -> nnx.GraphDef:
  return nnx.split(nnx.eval_shape(lambda: Block(config, nnx.Rngs(0))))[0]


def param_shardings(config: PolicyConfig, rules: Rules) -> Params:
  """The sharding of every parameter under a rule table, as a pytree like the parameters."""
  shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))

  def one(path, leaf):
    axes = PARAM_AXES[path[-1].key]
    stacked = ("layers",) if path[0].key == "blocks" else ()
    return rules.sharding(leaf.shape, stacked + axes)

  return jax.tree_util.tree_map_with_path(one, shapes)


def hidden_states(params: Params, config: PolicyConfig, tokens, positions, attention, caches=None, rules=None):
  """Runs the layers on a chunk of tokens.

  Args:
    params: pytree of `init_params`.
    config: the policy's shape.
    tokens: i32[B, P].
    positions: i32[B, P], rotary positions, from 0 within each sequence.
    attention: (q, k, v, cache of the layer) -> (out [B, P, H, Q], what to keep of this layer), where k and v
      [B, K, P, Q] are the chunk's own.
    caches: pytree with leading axis L, handed to `attention` layer by layer.
    rules: sharding rules for activations; None leaves them to the compiler.
  Returns:
    (hidden states [B, P, D] after the final norm, what `attention` kept, stacked [L, ...]).
  """
  constrain = rules.constrain if rules else lambda x, *axes: x
  half = config.head_size // 2
  freq = config.rope_base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angle = positions[..., None, None].astype(jnp.float32) * freq  # [B, P, 1, Q / 2]
  rope = (jnp.cos(angle), jnp.sin(angle))
  graph = _block_graph(config)

  def layer(x, per_layer):
    block_params, cache = per_layer
    block = nnx.merge(graph, nnx.State(block_params))
    return block(x, rope, lambda q, k, v: attention(q, k, v, cache), constrain)

  if config.remat:
    layer = jax.checkpoint(layer)
  x = constrain(params["embed"].astype(config.dtype)[tokens], "rows", None, "act_embed")
  unroll = config.layers if config.unroll else 1
  x, kept = jax.lax.scan(layer, x, (params["blocks"], caches), unroll=unroll)
  return rms_norm(x, params["norm"], config.norm_eps), kept


def logits_of(params: Params, config: PolicyConfig, hidden: jax.Array) -> jax.Array:
  """[..., D] -> f32[..., V]."""
  if config.tied:
    return jnp.einsum("...d,vd->...v", hidden, params["embed"].astype(hidden.dtype), preferred_element_type=jnp.float32)
  return jnp.einsum("...d,dv->...v", hidden, params["head"].astype(hidden.dtype), preferred_element_type=jnp.float32)


def packed_hidden(params: Params, config: PolicyConfig, tokens, segment, positions, rules=None) -> jax.Array:
  """Hidden states of packed rows: several sequences side by side, each seeing only itself, causally.

  Args:
    params, config, rules: as in `hidden_states`.
    tokens: i32[B, S].
    segment: i32[B, S], which sequence of its row a token belongs to; 0 at padding.
    positions: i32[B, S], from 0 within each sequence.
  """
  S = tokens.shape[1]
  causal = jnp.tril(jnp.ones((S, S), bool))
  mask = causal & (segment[:, :, None] == segment[:, None, :])
  attention = lambda q, k, v, _: (attend(q, [(k, v, mask)]), None)
  return hidden_states(params, config, tokens, positions, attention, rules=rules)[0]


def forward(params: Params, config: PolicyConfig, tokens: jax.Array) -> jax.Array:
  """Logits of whole sequences: tokens i32[B, S] -> f32[B, S, V]."""
  B, S = tokens.shape
  positions = jnp.broadcast_to(jnp.arange(S), (B, S))
  return logits_of(params, config, packed_hidden(params, config, tokens, jnp.ones_like(tokens), positions))
