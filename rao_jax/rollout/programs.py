"""The programs of a rollout over their ladders of shapes, traced for the devices of a mesh, which need not be here."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rao_jax.mesh import Rules
from rao_jax.policy.cache import CachePool, pool_shape, pool_sharding, put_chunk, take_rows
from rao_jax.policy.params import abstract_params, cast_params, with_shardings
from rao_jax.policy.prefix import abstract_prefix, trace_prefix
from rao_jax.policy.transformer import Params, PolicyConfig, decode_params
from rao_jax.rollout.generate import Rows, Slice, decode, extend, prefill

ProgramName = tuple[str, int, int]  # kind, rows, cache positions it reads (prefill: the tokens of its chunk)


def abstract_used_params(config: PolicyConfig, rules: Rules) -> Params:
  """Shapes, dtypes and shardings of the parameters as a rollout reads them: cast to the dtype of their use."""
  params = abstract_params(config, rules)
  used = jax.eval_shape(functools.partial(cast_params, config=config), params)
  return jax.tree.map(lambda x, y: jax.ShapeDtypeStruct(x.shape, y.dtype, sharding=x.sharding), params, used)


def trace_rollout(
  config: PolicyConfig, rules: Rules, end_token: int, row_ladder: Sequence[int], cache_ladder: Sequence[int],
  steps: int, least_busy: float, chunk: int, slots: int, to_host: bool = False, prefix: Sequence[int] = (),
) -> dict[ProgramName, jax.stages.Traced]:  # fmt: skip
  """`decode` for every batch and cache length; `prefill`, and `extend` for every cache length, for the smallest batch.

  A chunk longer than the cache leaves `decode` alone: every token is then fed by it.

  Args:
    config, rules: of the policy, under the rollout's rule table.
    end_token, steps, least_busy: of `decode`.
    row_ladder, cache_ladder: ascending.
    chunk: tokens of a `prefill` or `extend` call.
    slots: of the cache pool, one for padding in every part of the row axes included.
    to_host: also `save` and `load`, for every cache length, which copy a slot of every part out of the pool and back.
    prefix: tokens whose keys and values `prefix` computes, once for given parameters, and all others are given.
  Returns:
    by name; with unrolled layers also `decode_params`, whose output `decode` takes.
  """
  length = cache_ladder[-1]
  layout = pool_sharding(config, slots, length, rules)
  rep = rules.replicated
  one = lambda sharding: jax.ShapeDtypeStruct(pool_shape(config, slots, length), config.dtype, sharding=sharding)
  pool = CachePool(one(layout.k), one(layout.v))
  params = abstract_used_params(config, rules)
  mask = jax.ShapeDtypeStruct((config.vocab_size,), jnp.bool_, sharding=rep)
  temperature = jax.ShapeDtypeStruct((), jnp.float32, sharding=rep)

  def by_row(*shape: int) -> jax.sharding.NamedSharding:
    return rules.sharding(shape, ("rows",) + (None,) * (len(shape) - 1))

  def rows(dtype, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=by_row(*shape))

  programs, shared, for_decode = {}, None, params
  if config.unroll:
    fn = functools.partial(decode_params, config=config, whole=rules.ways("heads") == 1)
    for_decode = with_shardings(jax.eval_shape(fn, params), rules)
    layout_of = jax.tree.map(lambda x: x.sharding, for_decode)
    programs["decode_params", 0, 0] = jax.jit(fn, out_shardings=layout_of).trace(params)
  if prefix:
    programs["prefix", 1, len(prefix)] = trace_prefix(params, prefix, config, rules)
    shared = abstract_prefix(config, len(prefix), rules)
  for W in row_ladder:
    i32 = functools.partial(rows, jnp.int32, W)
    batch = Rows(i32(), i32(), i32(), i32(steps), i32(), i32(), rows(jnp.uint32, W, 2))
    brought = Slice(*[by_row(W, steps)] * 3, by_row(W), rep)
    for S in cache_ladder:
      fn = functools.partial(
        decode, config=config, rules=rules, steps=steps, least_busy=least_busy, cache_length=S, end_token=end_token
      )
      jitted = jax.jit(fn, donate_argnums=1, out_shardings=(layout, brought))
      programs["decode", W, S] = jitted.trace(for_decode, pool, shared, batch, mask, temperature)
    if row_ladder[0] != W or chunk > length:
      continue
    fn = functools.partial(prefill, config=config, rules=rules)
    jitted = jax.jit(fn, donate_argnums=1, out_shardings=layout)
    programs["prefill", W, chunk] = jitted.trace(params, pool, shared, i32(), i32(), i32(chunk))
    for S in (S for S in cache_ladder if chunk <= S):
      fn = functools.partial(extend, config=config, rules=rules, cache_length=S)
      jitted = jax.jit(fn, donate_argnums=1, out_shardings=layout)
      programs["extend", W, S] = jitted.trace(params, pool, shared, i32(), i32(), i32(), i32(chunk))
  if to_host:
    W = rules.ways("rows")
    slot = rows(jnp.int32, W)
    for S in cache_ladder:
      copied = pool_sharding(config, W, S, rules)
      fn = functools.partial(take_rows, length=S, rules=rules)
      programs["save", W, S] = jax.jit(fn, out_shardings=copied).trace(pool, slot)
      one = jax.ShapeDtypeStruct(pool_shape(config, W, S), config.dtype, sharding=copied.k)
      fn = functools.partial(put_chunk, rules=rules)
      jitted = jax.jit(fn, donate_argnums=0, out_shardings=layout)
      programs["load", W, S] = jitted.trace(pool, slot, slot, CachePool(one, one))
  return programs
