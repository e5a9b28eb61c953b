"""The decoder-only transformer: declared as Flax NNX modules, used as a pure function of a parameter pytree.

Rotary positions, grouped-query attention, RMSNorm, gated mlp, tied or separate output embedding; by option what Qwen3
(qk-norm), Qwen3-MoE (experts), Llama 3 (scaled rotary frequencies) and Gemma 3 (sliding windows, more norms) add.
Layers are stacked along a leading axis and scanned; where they differ, the difference is a scanned array. Training,
prefill and decode all run `hidden_states`; they differ only in the blocks of keys that attention sees.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rao_jax.mesh import Rules
from rao_jax.policy.attention import within
from rao_jax.policy.causal import attend_in_blocks, causal_attention, seen
from rao_jax.policy.experts import mixture
from rao_jax.policy.strips import CACHED, Strips, in_strips

Params = dict[str, Any]
ACTIVATIONS = {"silu": jax.nn.silu, "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True)}
NO_WINDOW = 1 << 30  # the window of full layers: wider than any context
LORA = "_lora_"  # q_lora_a and q_lora_b are the adapter of q; see policy/lora.py
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
INPUT_AXES = {"o": 2}  # how many leading axes of a projection its input has, where not one


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """Shape and numerics of a policy; hashable, so jitted functions take it as a static argument.

  Attributes:
    vocab_size: rows of the embedding (a multiple of 64 keeps every mesh happy).
    layers, width, heads, kv_heads, head_size, mlp: L, D, H, K, Q, F of the shape comments; F of one expert if there
      are experts.
    rope_base: base of the rotary frequencies.
    rope_scaling: none; linear (frequencies divided by rope_factor); or llama3 (only those whose wave is longer than
      rope_original / rope_low positions, with a smooth change from rope_original / rope_high on).
    rope_factor, rope_low, rope_high, rope_original: of rope_scaling.
    window: keys that a query of a sliding layer sees, its own included.
    window_pattern: which layers slide, one letter a layer, S or F (full), repeated over the layers; empty is all full.
    window_rope_base: base of the sliding layers, whose frequencies are not scaled.
    qk_norm: RMSNorm on each query and key head before rotation.
    post_norms: RMSNorm on what attention and mlp give, before it is added to the stream.
    norm_eps: of RMSNorm.
    norm_offset: norms multiply by 1 + scale.
    embed_scale: embeddings are multiplied by sqrt(width).
    query_scale: attention scores are divided by its square root; 0 takes head_size.
    activation: of the mlp's gate, silu or gelu_tanh.
    experts: E mlps a layer, of which a router picks experts_per_token for each token; 0 is one mlp for all.
    experts_per_token: of `experts`.
    norm_experts: the weights of the picked experts are scaled to sum to 1.
    tied: output logits reuse the input embedding.
    context: positions that the policy was made for; 0 says nothing.
    dtype: of activations; param_dtype: of parameters. Softmax, norms, router and logits are float32 always.
    unroll: layers are unrolled in the scan: faster for a few small layers on a CPU, slower to compile.
    remat: recompute each layer's activations in the backward pass instead of keeping them.
    attention: of rows over themselves; auto takes a kernel of the platform where it can be used, xla never.
    lora_rank: rank of the adapters, which are then all that is trained, in float32; 0 is none.
    lora_alpha: adapters are scaled by lora_alpha / lora_rank.
    lora_targets: the projections that have adapters.
  """

  vocab_size: int
  layers: int
  width: int
  heads: int
  kv_heads: int
  head_size: int
  mlp: int
  rope_base: float = 10_000.0
  rope_scaling: str = "none"
  rope_factor: float = 1.0
  rope_low: float = 1.0
  rope_high: float = 4.0
  rope_original: int = 0
  window: int = 0
  window_pattern: str = ""
  window_rope_base: float = 10_000.0
  qk_norm: bool = False
  post_norms: bool = False
  norm_offset: bool = False
  norm_eps: float = 1e-6
  embed_scale: bool = False
  query_scale: int = 0
  activation: str = "silu"
  experts: int = 0
  experts_per_token: int = 0
  norm_experts: bool = False
  tied: bool = True
  context: int = 0
  dtype: str = "float32"
  param_dtype: str = "float32"
  unroll: bool = False
  remat: bool = False
  attention: str = "auto"
  lora_rank: int = 0
  lora_alpha: float = 32.0
  lora_targets: tuple[str, ...] = PROJECTIONS

  def __post_init__(self):
    if self.heads % self.kv_heads:
      raise ValueError(f"policy.heads={self.heads} must be a multiple of policy.kv_heads={self.kv_heads}")
    if self.head_size % 2:
      raise ValueError(f"policy.head_size={self.head_size} must be even (rotary positions turn pairs)")
    if self.activation not in ACTIVATIONS:
      raise ValueError(f"policy.activation={self.activation!r}: choose one of {tuple(ACTIVATIONS)}")
    if self.attention not in ("auto", "xla"):
      raise ValueError(f"policy.attention={self.attention!r}: choose auto or xla")
    if self.rope_scaling not in ("none", "linear", "llama3"):
      raise ValueError(f"policy.rope_scaling={self.rope_scaling!r}: choose none, linear or llama3")
    if self.rope_scaling == "none" and self.rope_factor != 1:
      raise ValueError(f"policy.rope_factor={self.rope_factor} does nothing with rope_scaling=none: choose a scaling")
    if self.rope_scaling == "llama3" and not (self.rope_original > 0 and self.rope_low < self.rope_high):
      raise ValueError("policy.rope_scaling=llama3 needs rope_original > 0 and rope_low < rope_high")
    if set(self.window_pattern) - {"S", "F"}:
      raise ValueError(f"policy.window_pattern={self.window_pattern!r} may hold S and F only")
    if ("S" in self.window_pattern) != (self.window > 0):
      raise ValueError(
        f"policy.window={self.window} and policy.window_pattern={self.window_pattern!r} need each other: set both, or "
        "neither"
      )
    if self.experts and not 0 < self.experts_per_token <= self.experts:
      raise ValueError(f"policy.experts_per_token={self.experts_per_token} must be from 1 to experts={self.experts}")
    if not self.experts and (self.experts_per_token or self.norm_experts):
      raise ValueError("policy.experts_per_token and policy.norm_experts do nothing with policy.experts=0")
    if not self.lora_rank and (self.lora_alpha, self.lora_targets) != (32.0, PROJECTIONS):
      raise ValueError("policy.lora_alpha and policy.lora_targets do nothing with policy.lora_rank=0: set a rank")
    if self.lora_rank < 0 or self.lora_alpha <= 0:
      raise ValueError(f"policy.lora_rank={self.lora_rank} must be 0 or more, lora_alpha={self.lora_alpha} above 0")
    possible = PROJECTIONS[:4] if self.experts else PROJECTIONS
    if self.lora_rank and not (self.lora_targets and set(self.lora_targets) <= set(possible)):
      raise ValueError(
        f"policy.lora_targets={self.lora_targets}: choose some of {possible}"
        + " (experts get none)" * (self.experts > 0)
      )

  @property
  def sliding(self) -> np.ndarray | None:
    """bool[L], the layers with a window; None if there are none."""
    if "S" not in self.window_pattern:
      return None
    return np.resize(np.array(list(self.window_pattern)) == "S", self.layers)

  @property
  def lora_scale(self) -> float:
    return self.lora_alpha / self.lora_rank


def rms_norm(x: jax.Array, scale: jax.Array, config: PolicyConfig) -> jax.Array:
  y = x.astype(jnp.float32)
  y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + config.norm_eps)
  scale = scale.astype(jnp.float32)
  return (y * (1 + scale if config.norm_offset else scale)).astype(x.dtype)


def rotary(config: PolicyConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine of positions i32[B, P], f32[B, P, 1, Q / 2]; with sliding layers [2, ...], theirs second."""
  half = config.head_size // 2
  exponent = -jnp.arange(half, dtype=jnp.float32) / half
  freq = config.rope_base**exponent
  if config.rope_scaling == "linear":
    freq = freq / config.rope_factor
  elif config.rope_scaling == "llama3":
    waves = config.rope_original * freq / (2 * math.pi)  # in the context before it was stretched
    kept = jnp.clip((waves - config.rope_low) / (config.rope_high - config.rope_low), 0, 1)
    freq = freq * (kept + (1 - kept) / config.rope_factor)
  if config.sliding is not None:
    freq = jnp.stack([freq, config.window_rope_base**exponent])[:, None, None, None]
  angle = positions[..., None, None].astype(jnp.float32) * freq
  return jnp.cos(angle), jnp.sin(angle)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotary positions, half-split: x [B, P, H, Q], cos and sin f32[B, P, 1, Q / 2]."""
  a, b = jnp.split(x.astype(jnp.float32), 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def project(x: jax.Array, w: jax.Array | Strips, axes: int = 1) -> jax.Array:
  """Contracts the last `axes` axes of x with the first of w, as one plain matrix product.

  XLA's CPU backend is more than twice as slow at the weight gradient of a product with two batch axes.
  """
  batch, inner = x.shape[: x.ndim - axes], math.prod(x.shape[x.ndim - axes :])
  if isinstance(w, Strips):
    return w.product(x.reshape(-1, inner), x.dtype).reshape(*batch, *w.outputs)
  out = w.shape[axes:]
  return (x.reshape(-1, inner) @ w.reshape(inner, -1)).reshape(*batch, *out)


def norm_param(config: PolicyConfig, size: int) -> nnx.Param:
  fill = jnp.zeros if config.norm_offset else jnp.ones
  return nnx.Param(fill((size,), jnp.dtype(config.param_dtype)))


class Block(nnx.Module):
  """One layer: attention and gated mlp, each behind an RMSNorm and added to the stream."""

  def __init__(self, config: PolicyConfig, rngs: nnx.Rngs):
    c, dtype = config, jnp.dtype(config.param_dtype)
    normal = jax.nn.initializers.normal
    scale, out_scale = c.width**-0.5, (2 * c.layers) ** -0.5  # residual branches start small, as in GPT-2

    def param(stddev: float, *shape: int) -> nnx.Param:
      return nnx.Param(normal(stddev)(rngs.params(), shape, dtype))

    self.config = c
    self.attn_norm = norm_param(c, c.width)
    self.q = param(scale, c.width, c.heads, c.head_size)
    self.k = param(scale, c.width, c.kv_heads, c.head_size)
    self.v = param(scale, c.width, c.kv_heads, c.head_size)
    self.o = param((c.heads * c.head_size) ** -0.5 * out_scale, c.heads, c.head_size, c.width)
    self.mlp_norm = norm_param(c, c.width)
    if c.experts:
      self.router = param(scale, c.width, c.experts)
      self.expert_gate = param(scale, c.experts, c.width, c.mlp)
      self.expert_up = param(scale, c.experts, c.width, c.mlp)
      self.expert_down = param(c.mlp**-0.5 * out_scale, c.experts, c.mlp, c.width)
    else:
      self.gate = param(scale, c.width, c.mlp)
      self.up = param(scale, c.width, c.mlp)
      self.down = param(c.mlp**-0.5 * out_scale, c.mlp, c.width)
    if c.qk_norm:
      self.q_norm = norm_param(c, c.head_size)
      self.k_norm = norm_param(c, c.head_size)
    if c.post_norms:
      self.attn_post_norm = norm_param(c, c.width)
      self.mlp_post_norm = norm_param(c, c.width)
    for name in c.lora_targets if c.lora_rank else ():  # last, so that the rest is drawn as without them
      shape, inputs = getattr(self, name).shape, INPUT_AXES.get(name, 1)
      a = normal(math.prod(shape[:inputs]) ** -0.5)(rngs.params(), (*shape[:inputs], c.lora_rank), jnp.float32)
      setattr(self, f"{name}{LORA}a", nnx.Param(a))
      setattr(self, f"{name}{LORA}b", nnx.Param(jnp.zeros((c.lora_rank, *shape[inputs:]), jnp.float32)))

  def __call__(self, x: jax.Array, rope: tuple[jax.Array, jax.Array], attention: Callable, rules: Rules | None):
    """x [B, P, D] -> [B, P, D]; `attention(q, k, v)` adds what else the queries may see to this chunk's own keys."""
    c = self.config
    constrain = rules.constrain if rules else lambda x, *axes: x
    w = lambda p: value if isinstance(value := p.get_value(), Strips) else value.astype(c.dtype)
    norm = lambda x, p: rms_norm(x, p[...], c)

    def linear(x: jax.Array, name: str) -> jax.Array:
      axes = INPUT_AXES.get(name, 1)
      out = project(x, w(getattr(self, name)), axes)
      if c.lora_rank and name in c.lora_targets:
        a, b = (w(getattr(self, f"{name}{LORA}{side}")) for side in "ab")
        out = out + project(project(x, a, axes), b) * c.lora_scale
      return out

    with jax.named_scope("attention"):
      h = norm(x, self.attn_norm)
      q, k, v = (linear(h, name) for name in "qkv")
      if c.qk_norm:
        q, k = norm(q, self.q_norm), norm(k, self.k_norm)
      if c.query_scale not in (0, c.head_size):
        q = q * (c.head_size / c.query_scale) ** 0.5  # `attend` divides by sqrt(head_size)
      q, k = constrain(rotate(q, *rope), "rows", None, "heads", None), rotate(k, *rope)
      k, v = (constrain(t.swapaxes(1, 2), "rows", "kv_heads", None, None) for t in (k, v))  # [B, K, P, Q]
      out, kept = attention(q, k, v)
      out = linear(out, "o")
      if c.post_norms:
        out = norm(constrain(out, "rows", None, "act_embed"), self.attn_post_norm)
      x = constrain(x + out, "rows", None, "act_embed")
    with jax.named_scope("mlp"):
      h = norm(x, self.mlp_norm)
      activation = ACTIVATIONS[c.activation]
      if c.experts:
        weights = [w(p) for p in (self.router, self.expert_gate, self.expert_up, self.expert_down)]
        out = mixture(h, *weights, c.experts_per_token, c.norm_experts, activation, rules)
      else:
        h = constrain(activation(linear(h, "gate")) * linear(h, "up"), "rows", None, "mlp")
        out = linear(h, "down")
      if c.post_norms:
        out = norm(constrain(out, "rows", None, "act_embed"), self.mlp_post_norm)
      x = constrain(x + out, "rows", None, "act_embed")
    return x, kept


class Transformer(nnx.Module):
  """Embedding, a stack of `Block`s (leading axis L on every leaf), final norm, output head."""

  def __init__(self, config: PolicyConfig, rngs: nnx.Rngs):
    c, dtype = config, jnp.dtype(config.param_dtype)
    normal = jax.nn.initializers.normal(c.width**-0.5)
    self.embed = nnx.Param(normal(rngs.params(), (c.vocab_size, c.width), dtype))
    make_blocks = nnx.split_rngs(splits=c.layers)(nnx.vmap(lambda r: Block(c, r), in_axes=(0,), out_axes=0))
    self.blocks = make_blocks(rngs)
    self.norm = norm_param(c, c.width)
    if not c.tied:
      self.head = nnx.Param(normal(rngs.params(), (c.width, c.vocab_size), dtype))


def init_params(config: PolicyConfig, key: jax.Array) -> Params:
  """Random parameters as a plain dict pytree; `jax.eval_shape` of it gives the shapes."""
  model = Transformer(config, nnx.Rngs(params=key))
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))


@functools.cache
def _block_graph(config: PolicyConfig) -> nnx.GraphDef:
  return nnx.split(nnx.eval_shape(lambda: Block(config, nnx.Rngs(0))))[0]


def hidden_states(params: Params, config: PolicyConfig, tokens, positions, attention, caches=None, rules=None):
  """Runs the layers on a chunk of tokens.

  Args:
    params: pytree of `init_params`.
    config: the policy's shape.
    tokens: i32[B, P].
    positions: i32[B, P], rotary positions, from 0 within each sequence.
    attention: (q, k, v, cache of the layer, window of the layer) -> (out [B, P, H, Q], what to keep of this layer),
      where k and v [B, K, P, Q] are the chunk's own; the window i32[] is None if no layer slides.
    caches: pytree with leading axis L, handed to `attention` layer by layer; a list if params["blocks"] is one.
    rules: sharding rules for activations; None leaves them to the compiler.
  Returns:
    (hidden states [B, P, D] after the final norm, what `attention` kept, stacked [L, ...] or in a list).
  """
  constrain = rules.constrain if rules else lambda x, *axes: x
  ropes = rotary(config, positions)
  graph = _block_graph(config)

  def layer(x, per_layer):
    block_params, cache, slides = per_layer
    block = nnx.merge(graph, nnx.State(block_params))
    rope, window = ropes, None
    if slides is not None:
      rope = jax.tree.map(lambda both: jnp.where(slides, both[1], both[0]), ropes)
      window = jnp.where(slides, config.window, NO_WINDOW)
    return block(x, rope, lambda q, k, v: attention(q, k, v, cache, window), rules)

  if config.remat:
    layer = jax.checkpoint(layer)
  x = params["embed"][tokens].astype(config.dtype)  # in this order, gradients of a token's places add up in float32
  if config.embed_scale:
    x = x * jnp.asarray(config.width**0.5, x.dtype)
  x = constrain(x, "rows", None, "act_embed")
  if isinstance(params["blocks"], list):
    kept = []
    for i, (block, cache) in enumerate(zip(params["blocks"], caches)):
      x, of_layer = layer(x, (block, cache, None if config.sliding is None else config.sliding[i]))
      kept.append(of_layer)
  else:
    unroll = config.layers if config.unroll else 1
    x, kept = jax.lax.scan(layer, x, (params["blocks"], caches, config.sliding), unroll=unroll)
  return rms_norm(x, params["norm"], config), kept


def taken_apart(stack: Any, config: PolicyConfig) -> Any:
  """A pytree with leading axis L as a list of its layers if they are unrolled, for `hidden_states` in a loop.

  What a loop reads of a stack is copied at every step: XLA neither moves the slices out of it nor reads through them.
  """
  return [jax.tree.map(lambda x, i=i: x[i], stack) for i in range(config.layers)] if config.unroll else stack


def decode_params(params: Params, config: PolicyConfig, whole: bool) -> Params:
  """The parameters as `generate.decode` takes them: if layers are unrolled, taken apart, and with a head of their own.

  Args:
    params: of `init_params`.
    config: of the policy.
    whole: that no mesh splits matrices, which are then put in strips if a core cannot keep them all.
  """
  if not config.unroll:
    return params
  strips = whole and sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params)) > CACHED

  def matrix(name: str, w: jax.Array) -> Strips | jax.Array:
    if not strips or name not in (*PROJECTIONS, "head"):
      return w
    return in_strips(w.astype(config.dtype), INPUT_AXES.get(name, 1))

  blocks = [{name: matrix(name, w) for name, w in layer.items()} for layer in taken_apart(params["blocks"], config)]
  return params | {"blocks": blocks, "head": matrix("head", head_of(params))}


def head_of(params: Params) -> jax.Array:
  """The matrix [D, V] of the logits; of tied parameters the embedding, transposed."""
  return params["head"] if "head" in params else params["embed"].T


def logits_of(params: Params, hidden: jax.Array) -> jax.Array:
  """[..., D] -> f32[..., V]."""
  head = head_of(params)
  if isinstance(head, Strips):
    return head.product(hidden.reshape(-1, hidden.shape[-1]), jnp.float32).reshape(*hidden.shape[:-1], -1)
  return jnp.einsum("...d,dv->...v", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)


def packed_hidden(
  params: Params, config: PolicyConfig, tokens, segment, positions, rules=None, prefix=None
) -> jax.Array:
  """Hidden states of packed rows: several sequences side by side, each seeing only itself, causally.

  Args:
    params, config, rules: as in `hidden_states`.
    tokens: i32[B, S].
    segment: i32[B, S], which sequence of its row a token belongs to, each a stretch of the row; 0 at padding.
    positions: i32[B, S], from 0 within each sequence, or from the length of the prefix.
    prefix: `prefix.Prefix` that every sequence starts with, which the rows then lack; None is none.
  """
  if prefix is None:
    within_row = causal_attention(config.attention, config.window, segment, tokens.shape[1], rules)
    attention = lambda q, k, v, _, window: (within_row(q, k, v, window), None)
    return hidden_states(params, config, tokens, positions, attention, rules=rules)[0]
  (B, S), P = tokens.shape, prefix.k.shape[2]
  own, at, at_prefix = seen(S, segment), jnp.arange(S)[None], jnp.arange(P)[None]
  before = jnp.ones((B, S, P), bool)

  def attention(q, k, v, shared, window):
    first = shared.k.swapaxes(1, 2), shared.v, within(before, positions, at_prefix, window)
    return attend_in_blocks(q, k, v, within(own, at, at, window), [first]), None

  return hidden_states(params, config, tokens, positions, attention, prefix, rules)[0]


def forward(params: Params, config: PolicyConfig, tokens: jax.Array) -> jax.Array:
  """Logits of whole sequences: tokens i32[B, S] -> f32[B, S, V]."""
  B, S = tokens.shape
  positions = jnp.broadcast_to(jnp.arange(S), (B, S))
  return logits_of(params, packed_hidden(params, config, tokens, jnp.ones_like(tokens), positions))
