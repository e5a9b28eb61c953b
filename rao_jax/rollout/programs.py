"""The programs of a rollout over their ladders of shapes, lowered for the devices of a mesh, which need not be here."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rao_jax.mesh import Rules
from rao_jax.policy.cache import CachePool, pool_shape, pool_sharding
from rao_jax.policy.transformer import PolicyConfig, abstract_params
from rao_jax.rollout.generate import Rows, decode, extend, prefill

ProgramName = tuple[str, int, int]  # kind, rows, cache positions it reads (prefill: the tokens of its chunk)


def lower_rollout(
  config: PolicyConfig, rules: Rules, end_token: int, row_ladder: Sequence[int], cache_ladder: Sequence[int],
  steps: int, chunk: int, slots: int,
) -> dict[ProgramName, jax.stages.Lowered]:  # fmt: skip
  """`decode` for every batch and cache length; `prefill`, and `extend` for every cache length, for the smallest batch.

  Args:
    config, rules: of the policy, under the rollout's rule table.
    end_token, steps: of `decode`.
    row_ladder, cache_ladder: ascending.
    chunk: tokens of a `prefill` or `extend` call.
    slots: of the cache pool, scratch included.
  """
  length = cache_ladder[-1]
  layout = pool_sharding(config, slots, length, rules)
  rep = rules.replicated
  one = lambda sharding: jax.ShapeDtypeStruct(pool_shape(config, slots, length), config.dtype, sharding=sharding)
  pool = CachePool(one(layout.k), one(layout.v))
  params = abstract_params(config, rules)
  mask = jax.ShapeDtypeStruct((config.vocab_size,), jnp.bool_, sharding=rep)
  temperature = jax.ShapeDtypeStruct((), jnp.float32, sharding=rep)

  def rows(dtype, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=rules.sharding(shape, ("rows",) + (None,) * (len(shape) - 1)))

  programs = {}
  for W in row_ladder:
    i32 = functools.partial(rows, jnp.int32, W)
    batch = Rows(i32(), i32(), i32(steps), i32(), i32(), rows(jnp.uint32, W, 2))
    for S in cache_ladder:
      fn = functools.partial(decode, config=config, rules=rules, steps=steps, cache_length=S, end_token=end_token)
      jitted = jax.jit(fn, donate_argnums=1, out_shardings=(layout, rep))
      programs["decode", W, S] = jitted.lower(params, pool, batch, mask, temperature)
    if row_ladder[0] != W:
      continue
    fn = functools.partial(prefill, config=config, rules=rules)
    jitted = jax.jit(fn, donate_argnums=1, out_shardings=layout)
    programs["prefill", W, chunk] = jitted.lower(params, pool, i32(), i32(chunk))
    for S in (S for S in cache_ladder if chunk <= S):
      fn = functools.partial(extend, config=config, rules=rules, cache_length=S)
      jitted = jax.jit(fn, donate_argnums=1, out_shardings=layout)
      programs["extend", W, S] = jitted.lower(params, pool, i32(), i32(), i32(chunk))
  return programs
