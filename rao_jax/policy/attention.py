"""Grouped-query attention over one or several blocks of keys, without repeating keys, as plain batched matmuls."""

import jax
import jax.numpy as jnp

KeyBlock = tuple[jax.Array, jax.Array, jax.Array]  # keys, values, mask; see `attend`


def attend(q: jax.Array, blocks: list[KeyBlock]) -> jax.Array:
  """Softmax attention of the queries over the keys of all blocks together.

  A block is a stretch of keys kept in an array of its own: the cache of a row, the chunk being worked on, or a prefix
  that all rows see. Softmax runs in float32 over all of them at once, so nothing is copied into one long array.

  Args:
    q: [B, P, H, Q] queries, rotated.
    blocks: (k [B, K, Q, T], v [B, K, T, Q], mask bool[B, P, T]) with H a multiple of K; masks say what may be seen.
      Keys [K, Q, T] and values [K, T, Q] are those of all rows. A query must see at least one key. Positions are last
      in keys, as a few queries then run along them: on a CPU the scores of one query take a quarter of the time. Keys
      may be in strips [B, K, N, Q, T / N].
  Returns:
    [B, P, H, Q].
  """
  B, P, H, Q = q.shape
  K = blocks[0][1].shape[-3]
  G = H // K
  # [B, K, P * G, Q]: with K = 1 this is a reshape, and every product below is a canonical batched matmul.
  q = q.reshape(B, P, K, G, Q).transpose(0, 2, 1, 3, 4).reshape(B, K, P * G, Q) * Q**-0.5
  scores = []
  for k, _, mask in blocks:
    if k.ndim == 5:
      of_strips = jnp.broadcast_to(q[:, :, None], (*k.shape[:3], P * G, Q))
      s = jnp.einsum("bknmq,bknqt->bknmt", of_strips, k, preferred_element_type=jnp.float32).swapaxes(2, 3)
    else:
      own = "b" if k.ndim == 4 else ""
      s = jnp.einsum(f"bkmq,{own}kqt->bkmt", q, k, preferred_element_type=jnp.float32)
    s = jnp.where(mask[:, None, :, None, :], s.reshape(B, K, P, G, -1), -1e30)
    scores.append(s.reshape(B, K, P * G, -1))
  top = scores[0].max(-1, keepdims=True)
  for s in scores[1:]:
    top = jnp.maximum(top, s.max(-1, keepdims=True))
  top = jax.lax.stop_gradient(top)
  total, out = 0.0, 0.0
  for s, (_, v, _) in zip(scores, blocks):
    e = jnp.exp(s - top)
    total += e.sum(-1, keepdims=True)
    own = "b" if v.ndim == 4 else ""
    out += jnp.einsum(f"bkmt,{own}ktq->bkmq", e.astype(v.dtype), v, preferred_element_type=jnp.float32)
  out = (out / total).astype(q.dtype)
  return out.reshape(B, K, P, G, Q).transpose(0, 2, 1, 3, 4).reshape(B, P, H, Q)


def within(mask: jax.Array, queries: jax.Array, keys: jax.Array, window: jax.Array | None) -> jax.Array:
  """What is left of a mask bool[B, P, T] by a sliding window: keys less than `window` positions back.

  Args:
    mask: what the queries may see without it.
    queries: i32[B, P], positions.
    keys: i32[B, T] or i32[1, T], positions.
    window: i32[], 1 or more; None leaves the mask as it is.
  """
  return mask if window is None else mask & (keys[:, None, :] > queries[:, :, None] - window)
