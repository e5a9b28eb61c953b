"""Causal self-attention of rows: by splash on TPU, by cuDNN on NVIDIA GPUs in half precision, by `attend` elsewhere.

A kernel never holds the scores [B, H, S, S] of a layer, which bound the rows that `attend` can work on. Under a mesh it
works on the rows and heads of one device. What a kernel cannot take goes to `attend`, and the log says so once.
"""

import functools
import logging
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

from rao_jax.mesh import Rules
from rao_jax.policy.attention import KeyBlock, attend, within

log = logging.getLogger(__name__)

BLOCK, BLOCKS = 192, 4  # queries of a block of `attend` at least, blocks of a row at most: each is compiled
LANES = 128  # rows of splash are multiples of it
SPLASH_BLOCK = 512  # queries and keys of a tile at most
CUDNN_HEAD_SIZE = 128  # Hopper takes 256, older GPUs do not

# (q [B, S, H, Q], k and v [B, K, S, Q], segment i32[B, S] or None, window or None) -> [B, S, H, Q]
Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None, int | None], jax.Array]


def causal_attention(choice: str, window: int, segment: jax.Array | None, length: int, rules: Rules | None) -> Callable:
  """Attention of rows over themselves: a token sees those before it, and itself, in its own segment.

  Args:
    choice: config.policy.attention; auto takes a kernel where there is one, xla never.
    window: keys that a query of a sliding layer sees; 0 if no layer slides.
    segment: i32[B, S], which sequence of its row a token belongs to, each a stretch of the row; None is one sequence.
    length: S.
    rules: sharding rules, whose devices decide; None is `attend`.
  Returns:
    (q [B, S, H, Q], k and v [B, K, S, Q], window of the layer, i32[] or None) -> [B, S, H, Q].
  """
  mask = seen(length, segment)  # out here, so that the layers share it
  at = jnp.arange(length)[None]

  def attention(q, k, v, layer_window):
    kernel = pick_kernel(choice, rules, q, k)
    if kernel is None:
      return attend_in_blocks(q, k, v, within(mask, at, at, layer_window))
    run = lambda window: functools.partial(over_mesh, kernel, rules, segment=segment, window=window)
    if layer_window is None:
      return run(None)(q, k, v)
    # The window of a kernel is fixed, that of a layer is data: both are compiled, a layer runs one.
    return jax.lax.cond(layer_window == window, run(window), run(None), q, k, v)

  return attention


def attend_in_blocks(
  q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, before: Sequence[KeyBlock] = ()
) -> jax.Array:
  """`attend` of rows over themselves, some queries at a time over the keys up to the last of them.

  Most scores that causality masks are left out: of a row of two blocks a quarter of all, of four three eighths.

  Args:
    q: [B, S, H, Q].
    k, v: [B, K, S, Q].
    mask: bool[B, S, S] or bool[1, S, S], nothing above its diagonal.
    before: blocks of keys that come first, as `attend` takes them.
  Returns:
    [B, S, H, Q].
  """
  S, k = q.shape[1], k.swapaxes(2, 3)
  size = -(-S // max(min(S // BLOCK, BLOCKS), 1))
  out = []
  for start in range(0, S, size):
    part, end = slice(start, start + size), min(start + size, S)
    first = [(keys, values, masked[:, part]) for keys, values, masked in before]
    out.append(attend(q[:, part], [*first, (k[..., :end], v[:, :, :end], mask[:, part, :end])]))
  return jnp.concatenate(out, axis=1)


def seen(length: int, segment: jax.Array | None, window: int | None = None) -> jax.Array:
  """bool[B, S, S], or [1, S, S] without segments: which keys a query sees."""
  at = jnp.arange(length)[None]
  mask = within(at[:, None, :] <= at[:, :, None], at, at, window)
  return mask if segment is None else mask & (segment[:, :, None] == segment[:, None, :])


def pick_kernel(choice: str, rules: Rules | None, q: jax.Array, k: jax.Array) -> Kernel | None:
  """The kernel of the mesh's devices for q [B, S, H, Q] and k [B, K, S, Q], if it can take them."""
  if choice == "xla" or rules is None:
    return None
  device = rules.mesh.devices.flat[0]
  S, Q = q.shape[1], q.shape[3]
  K, ways = k.shape[1], rules.ways("heads")
  if device.platform == "tpu":
    kernel, name = splash, "splash"
    needs = [(S % LANES == 0, f"config.learn.row_lengths and rollout.chunk in multiples of {LANES}, not {S}")]
  elif "NVIDIA" in device.device_kind:
    kernel, name = cudnn, "cuDNN"
    needs = [
      (q.dtype in (jnp.bfloat16, jnp.float16), f"config.policy.dtype=bfloat16 or float16, not {q.dtype}"),
      (
        Q % 8 == 0 and Q <= CUDNN_HEAD_SIZE,
        f"config.policy.head_size in multiples of 8 up to {CUDNN_HEAD_SIZE}, not {Q}",
      ),
      (S % 2 == 0, f"config.learn.row_lengths and rollout.chunk in multiples of 2, not {S}"),
    ]
  else:
    return None
  needs.append(
    (K % ways == 0 or ways % K == 0, f"config.mesh.tensor to divide {K} key heads or be a multiple, not {ways}")
  )
  missing = [need for met, need in needs if not met]
  if missing:
    log_once(f"attention by XLA: {name} needs " + ", and ".join(missing))
    return None
  return kernel


log_once = functools.cache(log.warning)


def over_mesh(kernel: Kernel, rules: Rules, q, k, v, *, segment: jax.Array | None, window: int | None) -> jax.Array:
  """The kernel on every device's own rows and heads; shapes as in `Kernel`."""
  H, K, ways = q.shape[2], k.shape[1], rules.ways("heads")
  queries = rules.spec(q.shape, ("rows", None, "heads", None))
  keys = rules.spec(k.shape, ("rows", "kv_heads", None, None))
  rows = rules.spec(q.shape[:2], ("rows", None))

  def local(q, k, v, *segment):
    if K % ways and K > 1:  # every device has all keys; its queries are of one group
      own = jax.lax.axis_index(dict(rules.table)["heads"]) * q.shape[2] // (H // K)
      k, v = (jax.lax.dynamic_slice_in_dim(x, own, 1, 1) for x in (k, v))
    return kernel(q, k, v, segment[0] if segment else None, window)

  segments = () if segment is None else (segment,)
  run = jax.shard_map(
    local,
    mesh=rules.mesh,
    in_specs=(queries, keys, keys) + (rows,) * len(segments),
    out_specs=queries,
    check_vma=False,  # kernels do not say over which axes their results vary
  )
  return run(q, k, v, *segments)


def splash(q, k, v, segment, window, interpret: bool = False) -> jax.Array:
  """The TPU kernel, a `Kernel`; tiles of which the causal mask or the window shows nothing are skipped."""
  _, S, H, Q = q.shape
  shape, block = (S, S), math.gcd(S, SPLASH_BLOCK)
  mask = splash_attention_mask
  one = mask.LocalMask(shape, (window - 1, 0), 0) if window else mask.CausalMask(shape)
  kernel = splash_attention_kernel.make_splash_mha_single_device(
    mask.MultiHeadMask([one] * H),
    block_sizes=splash_attention_kernel.BlockSizes(
      block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
    ),
    interpret=interpret,
  )
  ids = None if segment is None else splash_attention_kernel.SegmentIds(segment, segment)
  q = q.swapaxes(1, 2) * Q**-0.5
  return jax.vmap(kernel, (0, 0, 0, None if ids is None else 0))(q, k, v, ids).swapaxes(1, 2)


def cudnn(q, k, v, segment, window) -> jax.Array:
  """The cuDNN kernel, a `Kernel`. Segments cost it a mask [B, 1, S, S] in q's dtype, and the skipping of tiles."""
  attention = functools.partial(jax.nn.dot_product_attention, q, *(x.swapaxes(1, 2) for x in (k, v)))
  if segment is None:
    return attention(is_causal=True, local_window_size=(window - 1, 0) if window else None, implementation="cudnn")
  return attention(mask=seen(q.shape[1], segment, window)[:, None], implementation="cudnn")
