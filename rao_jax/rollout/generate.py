"""The device programs of a rollout: `decode` a slice of tokens; `prefill` and `extend` caches by known tokens.

Both work on a batch of W rows, each named by its slot in the cache pool and by how many positions of it are filled.
A row's *pending* tokens are known but not yet in its cache (a prompt, an output, the last sampled token). `decode`
feeds them first, one a step, and samples from where they end; `prefill` and `extend` swallow a long stretch of them at
once. No row waits for another's prompt, and nothing is read back by the host inside a slice.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from rao_jax.mesh import Rules
from rao_jax.policy.attention import attend, within
from rao_jax.policy.cache import CachePool, put_chunk, take_layers, take_rows
from rao_jax.policy.causal import causal_attention
from rao_jax.policy.prefix import Prefix
from rao_jax.policy.sampling import first_greatest, masked_logits
from rao_jax.policy.strips import Strips, keys_in_strips
from rao_jax.policy.transformer import Params, PolicyConfig, hidden_states, logits_of, taken_apart


@flax.struct.dataclass
class Rows:
  """What the host tells the device about the rows of one slice; padding rows use a scratch slot and room 0.

  Attributes:
    slot: i32[W], slot in the cache pool, counted within the device's part of it.
    prefix: i32[W], tokens of the node that the shared prefix has, all of them or none; the slot has what follows.
    length: i32[W], filled positions of the slot; the first pending token goes there.
    pending: i32[W, C], tokens to feed, from the left.
    sample_from: i32[W], step at which the last pending token is fed, hence the first token sampled; C if pending
      tokens go on beyond this slice.
    room: i32[W], tokens the turn may still sample; 0 at padding rows, which stay idle.
    key: u32[W, 2], the node's key; its token i, counted from its first, is drawn with fold_in(key, i).
  """

  slot: jax.Array
  prefix: jax.Array
  length: jax.Array
  pending: jax.Array
  sample_from: jax.Array
  room: jax.Array
  key: jax.Array


@flax.struct.dataclass
class Slice:
  """What a slice of decoding brought, each [W, C] but for the last two.

  Attributes:
    token: i32, the token sampled at each step.
    logp: f32, its log-probability under the sampling distribution.
    sampled: bool, whether the step sampled a token that counts.
    fed: i32[W], how many tokens went into the cache.
    steps: i32, how many steps there were.
  """

  token: jax.Array
  logp: jax.Array
  sampled: jax.Array
  fed: jax.Array
  steps: jax.Array


def decode(
  params: Params, pool: CachePool, shared: Prefix | None, rows: Rows, token_mask, temperature, *,
  config: PolicyConfig, rules: Rules, steps: int, least_busy: float, cache_length: int, end_token: int,
) -> tuple[CachePool, Slice]:  # fmt: skip
  """Feeds or samples up to `steps` tokens on every row; one is idle after `end_token`, or once it has used up its room.

  The token at position i of a node is argmax(log pi + Gumbel(fold_in(node key, i))), pi being the masked softmax at
  `temperature`, or the mode at temperature 0: the same noise in whatever batch the row happens to be.

  Args:
    params: policy parameters, by `decode_params`.
    pool: cache pool, donated.
    shared: the prefix; None if nothing is shared.
    rows: the batch.
    token_mask: bool[V], tokens that may be sampled.
    temperature: f32 scalar; 0 is greedy, with log-probabilities at temperature 1.
    config, rules: of the policy.
    steps: tokens a slice at most (C).
    least_busy: the slice ends early when no row, or less than this share of those that began it, is still at work.
    cache_length: positions of a slot that this program reads; length + steps must not exceed it.
    end_token: ends a turn.
  """
  W = rows.slot.shape[0]
  first = rows.prefix + rows.length  # position of the first token fed
  at_cache = jnp.arange(cache_length)[None]
  seen = (at_cache < rows.length[:, None])[:, None, :]  # [W, 1, S]
  at_cache = at_cache + rows.prefix[:, None]
  before = prefix_block(shared, rows.prefix, 1)
  scale = jnp.where(temperature > 0, temperature, 1.0)
  empty = jnp.zeros((config.layers, W, config.kv_heads, steps, config.head_size), config.dtype)
  chunk = CachePool(empty, empty)
  # A small model on a CPU: what the loop reads in another order is put into it here, once a slice.
  turned = config.unroll
  if turned:
    turn = keys_in_strips if isinstance(params["head"], Strips) else lambda k: k.swapaxes(2, 3)
    cache = [x.replace(k=turn(x.k)) for x in take_layers(pool, rows.slot, cache_length, rules)]
    shared, chunk = (taken_apart(x, config) for x in (shared, chunk.replace(k=chunk.k.swapaxes(3, 4))))
  else:
    cache = take_rows(pool, rows.slot, cache_length, rules)
  keys = jax.vmap(lambda key, at: jax.vmap(jax.random.fold_in, (None, 0))(key, at + 1 + jnp.arange(steps)))(
    jax.random.wrap_key_data(rows.key), first
  )

  began = rows.room > 0
  least = jnp.maximum(1, jnp.ceil(least_busy * began.sum()).astype(jnp.int32))

  def goes_on(carry):
    j, _, _, live, *_ = carry
    return (j < steps) & (live.sum() >= least)

  def step(carry):
    j, chunk, last, live, room, fed, out = carry
    token = jnp.where(j <= rows.sample_from, jax.lax.dynamic_index_in_dim(rows.pending, j, 1, False), last)
    own = jnp.broadcast_to(jnp.arange(steps) <= j, (W, 1, steps))
    at, at_own = (first + j)[:, None], first[:, None] + jnp.arange(steps)

    def attention(q, k, v, layer_caches, window):
      main, part, layer_prefix = layer_caches
      k = k.swapaxes(2, 3) if turned else k
      part = CachePool(
        jax.lax.dynamic_update_slice_in_dim(part.k, k, j, 3 if turned else 2),
        jax.lax.dynamic_update_slice_in_dim(part.v, v, j, 2),
      )
      masks = within(seen, at, at_cache, window), within(own, at, at_own, window)
      blocks = [(x.k if turned else x.k.swapaxes(2, 3), x.v, mask) for x, mask in zip((main, part), masks)]
      return attend(q, before(layer_prefix, at, window) + blocks), part

    caches = list(zip(cache, chunk, shared)) if turned else (cache, chunk, shared)
    hidden, chunk = hidden_states(params, config, token[:, None], at, attention, caches, rules)
    logits = masked_logits(logits_of(params, hidden[:, 0]), token_mask, scale)
    logps = jax.nn.log_softmax(logits)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys[:, j])
    drawn = first_greatest(logps + (temperature > 0) * noise)
    logp = jnp.take_along_axis(logps, drawn[:, None], 1)[:, 0]
    samples = live & (j >= rows.sample_from)
    room = room - samples
    out = [jax.lax.dynamic_update_index_in_dim(all_steps, x, j, 0) for all_steps, x in zip(out, (drawn, logp, samples))]
    ends = samples & ((drawn == end_token) | (room <= 0))
    return j + 1, chunk, drawn, live & ~ends, room, fed + live, out

  none = jnp.zeros(W, jnp.int32)
  out = [jnp.zeros((steps, W), dtype) for dtype in (jnp.int32, jnp.float32, bool)]
  ran, chunk, _, _, _, fed, out = jax.lax.while_loop(goes_on, step, (0, chunk, none, began, rows.room, none, out))
  token, logp, sampled = (x.T for x in out)
  if turned:
    chunk = jax.tree.map(lambda *layers: jnp.stack(layers), *chunk)
    chunk = chunk.replace(k=chunk.k.swapaxes(3, 4))
  pool = put_chunk(pool, rows.slot, rows.length, chunk, rules)
  return pool, Slice(token, logp, sampled, fed, ran)


def prefix_block(shared: Prefix | None, length: jax.Array, queries: int) -> Callable:
  """How rows see the shared prefix.

  Args:
    shared: all layers of it, or None.
    length: i32[W], tokens that a row has of it, all or none.
    queries: of a row, P.
  Returns:
    (prefix of the layer, positions i32[W, P] of the queries, window of the layer) -> blocks for `attend`: one, or none.
  """
  if shared is None:
    return lambda *_: []
  at = jnp.arange(shared.k.shape[2])[None]
  seen = jnp.broadcast_to((at < length[:, None])[:, None, :], (len(length), queries, at.shape[1]))
  return lambda prefix, positions, window: [(prefix.k.swapaxes(1, 2), prefix.v, within(seen, positions, at, window))]


def prefill(
  params: Params, pool: CachePool, shared: Prefix | None, slot, prefix, tokens, *, config: PolicyConfig, rules: Rules
) -> CachePool:  # fmt: skip
  """Puts the first chunk of W rows' tokens into their caches: `extend` where nothing is cached yet.

  Args:
    params: policy parameters.
    pool: cache pool, donated.
    shared: the prefix, after which the tokens come; None if nothing is shared.
    slot: i32[W], slots of the rows; padding rows use a scratch slot.
    prefix: i32[W], as in `Rows`.
    tokens: i32[W, C], padded on the right: what padding writes lies beyond the row's new length and is overwritten.
    config, rules: of the policy.
  """
  W, C = tokens.shape
  positions = prefix[:, None] + jnp.arange(C)
  if shared is None:
    within_row = causal_attention(config.attention, config.window, None, C, rules)
    attention = lambda q, k, v, _, window: (within_row(q, k, v, window), CachePool(k, v))
  else:
    before, causal = prefix_block(shared, prefix, C), jnp.broadcast_to(jnp.tril(jnp.ones((C, C), bool)), (W, C, C))

    def attention(q, k, v, layer_prefix, window):
      own = within(causal, positions, positions, window)
      return attend(q, [*before(layer_prefix, positions, window), (k.swapaxes(2, 3), v, own)]), CachePool(k, v)

  _, chunk = hidden_states(params, config, tokens, positions, attention, shared, rules)
  return put_chunk(pool, slot, jnp.zeros(W, jnp.int32), chunk, rules)


def extend(
  params: Params, pool: CachePool, shared: Prefix | None, slot, prefix, length, tokens, *, config: PolicyConfig,
  rules: Rules, cache_length: int,
) -> CachePool:  # fmt: skip
  """Puts a chunk of known tokens into the caches of W rows.

  Args:
    params: policy parameters.
    pool: cache pool, donated.
    shared: the prefix; None if nothing is shared.
    slot: i32[W], slots of the rows; padding rows use a scratch slot.
    prefix, length: i32[W], as in `Rows`.
    tokens: i32[W, C], padded on the right: what padding writes lies beyond the row's new length and is overwritten.
    config, rules: of the policy.
    cache_length: positions of a slot that this program reads; length + C must not exceed it.
  """
  W, C = tokens.shape
  cache = take_rows(pool, slot, cache_length, rules)
  at_cache = jnp.arange(cache_length)[None]
  seen = jnp.broadcast_to((at_cache < length[:, None])[:, None, :], (W, C, cache_length))
  causal = jnp.broadcast_to(jnp.tril(jnp.ones((C, C), bool)), (W, C, C))
  positions, at_cache = (prefix + length)[:, None] + jnp.arange(C), at_cache + prefix[:, None]
  before = prefix_block(shared, prefix, C)

  def attention(q, k, v, layer_caches, window):
    main, layer_prefix = layer_caches
    masks = within(seen, positions, at_cache, window), within(causal, positions, positions, window)
    blocks = [(main.k.swapaxes(2, 3), main.v, masks[0]), (k.swapaxes(2, 3), v, masks[1])]
    return attend(q, before(layer_prefix, positions, window) + blocks), CachePool(k, v)

  _, chunk = hidden_states(params, config, tokens, positions, attention, (cache, shared), rules)
  return put_chunk(pool, slot, length, chunk, rules)
