"""The pool of KV caches: one slot a live node, keys and values of all layers."""

import flax.struct
import jax
import jax.numpy as jnp

from rao_jax.mesh import Rules
from rao_jax.policy.transformer import PolicyConfig

POOL_AXES = ("layers", "rows", "kv_heads", None, None)


@flax.struct.dataclass
class CachePool:
  """Keys (rotated) and values, each [L, slots, K, S, Q]. How many positions of a slot are filled, the host knows."""

  k: jax.Array
  v: jax.Array


def pool_shape(config: PolicyConfig, slots: int, length: int) -> tuple[int, ...]:
  return (config.layers, slots, config.kv_heads, length, config.head_size)


def pool_sharding(config: PolicyConfig, slots: int, length: int, rules: Rules) -> CachePool:
  one = rules.sharding(pool_shape(config, slots, length), POOL_AXES)
  return CachePool(one, one)


def position_bytes(config: PolicyConfig) -> int:
  """Bytes of one position of one slot: keys and values of all layers and heads."""
  return 2 * config.layers * config.kv_heads * config.head_size * jnp.dtype(config.dtype).itemsize


def slots_within(config: PolicyConfig, slots: int, length: int, budget: int, rules: Rules) -> int:
  """How many of `slots` fit, with those for padding, into `budget` bytes a device (0: all of them).

  A whole number for each part of the row axes; at least 0.
  """
  if not budget:
    return slots
  parts, layout = rules.ways("rows"), rules.spec(pool_shape(config, rules.ways("rows"), length), POOL_AXES)
  one = position_bytes(config) * length // (rules.ways("kv_heads") if layout[2] else 1)
  return min(slots, max(budget // one - 1, 0) * parts)


def make_pool(config: PolicyConfig, slots: int, length: int, rules: Rules) -> CachePool:
  """An empty pool, born sharded: slots over the row axes, key/value heads over `tensor`."""
  shape = pool_shape(config, slots, length)
  make = lambda: CachePool(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))
  return jax.jit(make, out_shardings=pool_sharding(config, slots, length, rules))()


def take_rows(pool: CachePool, rows: jax.Array, length: int, rules: Rules) -> CachePool:
  """The first `length` positions of the slots `rows` i32[W]: [L, W, K, length, Q].

  Slots are counted within a device's own part of the pool, and a row's slot lies where the row does: caches never move
  between devices.
  """

  def local(pool, rows):
    return jax.tree.map(lambda x: x[:, :, :, :length].at[:, rows].get(mode="clip"), pool)

  layout = rules.spec(pool.k.shape, POOL_AXES)
  return jax.shard_map(local, mesh=rules.mesh, in_specs=(layout, rules.spec(rows.shape, ("rows",))), out_specs=layout)(
    pool, rows
  )


def take_layers(pool: CachePool, rows: jax.Array, length: int, rules: Rules) -> list[CachePool]:
  """`take_rows` of each layer by itself, [W, K, length, Q]: as slices of one array they would be copied once more."""

  def local(pool, rows):
    return [jax.tree.map(lambda x, i=i: x.at[i, rows, :, :length].get(mode="clip"), pool) for i in range(layers)]

  layers, layout = len(pool.k), rules.spec(pool.k.shape, POOL_AXES)
  each = jax.sharding.PartitionSpec(*layout[1:])
  return jax.shard_map(local, mesh=rules.mesh, in_specs=(layout, rules.spec(rows.shape, ("rows",))), out_specs=each)(
    pool, rows
  )


def put_chunk(pool: CachePool, rows: jax.Array, start: jax.Array, chunk: CachePool, rules: Rules) -> CachePool:
  """Writes a chunk [L, W, K, C, Q] at positions start[w] .. start[w] + C of slot rows[w], counted as in `take_rows`.

  A chunk must not reach beyond the pool's length (the write would be moved back, over good positions).
  """

  def local(pool, rows, start, chunk):
    def write(w, pool):
      def one(whole, part):
        piece = jax.lax.dynamic_slice_in_dim(part, w, 1, 1)
        return jax.lax.dynamic_update_slice(whole, piece, (0, rows[w], 0, start[w], 0))

      return jax.tree.map(one, pool, chunk)

    return jax.lax.fori_loop(0, rows.shape[0], write, pool)

  layout, by_row = rules.spec(pool.k.shape, POOL_AXES), rules.spec(rows.shape, ("rows",))
  return jax.shard_map(local, mesh=rules.mesh, in_specs=(layout, by_row, by_row, layout), out_specs=layout)(
    pool, rows, start, chunk
  )
