"""The tokens that all sequences start with, such as a system's turn: computed once, their keys seen by every row."""

import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from rao_jax.mesh import Rules
from rao_jax.policy.causal import causal_attention
from rao_jax.policy.transformer import Params, PolicyConfig, hidden_states

PREFIX_AXES = ("layers", "kv_heads", None, None)


@flax.struct.dataclass
class Prefix:
  """Keys (rotated) and values of the shared tokens, each [L, K, P, Q]; on every part of the row axes."""

  k: jax.Array
  v: jax.Array


def prefix_of(params: Params, tokens: Sequence[int], config: PolicyConfig, rules: Rules | None) -> Prefix:
  """Keys and values of `tokens`, which are fixed when this is compiled; all parts of the row axes compute the same."""
  rules = rules and rules.whole("rows")
  tokens = jnp.asarray(tokens, jnp.int32)[None]
  P = tokens.shape[1]
  within_row = causal_attention(config.attention, config.window, None, P, rules)
  attention = lambda q, k, v, _, window: (within_row(q, k, v, window), (k, v))
  _, (k, v) = hidden_states(params, config, tokens, jnp.arange(P)[None], attention, rules=rules)
  return Prefix(k[:, 0], v[:, 0])


def abstract_prefix(config: PolicyConfig, length: int, rules: Rules) -> Prefix:
  """Shapes, dtypes and shardings of a prefix of `length` tokens."""
  shape = (config.layers, config.kv_heads, length, config.head_size)
  one = jax.ShapeDtypeStruct(shape, config.dtype, sharding=rules.sharding(shape, PREFIX_AXES))
  return Prefix(one, one)


def trace_prefix(params: Params, tokens: Sequence[int], config: PolicyConfig, rules: Rules) -> jax.stages.Traced:
  """`prefix_of` for parameters of these shapes and shardings."""
  out = jax.tree.map(lambda x: x.sharding, abstract_prefix(config, len(tokens), rules))
  fn = functools.partial(prefix_of, tokens=tuple(tokens), config=config, rules=rules)
  return jax.jit(fn, out_shardings=out).trace(params)
