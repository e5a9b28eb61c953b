"""Attention over packed rows beside attention over rows of one sequence each, timed on a device of this machine.

  python benchmarks/attention_rows.py [--row_lengths=1024,4096] [--tokens=32768] [--dtype=bfloat16] [--attention=auto]

On a GPU packed rows cost cuDNN a mask [B, 1, S, S], and it works on the tiles between two sequences too; a row of one
sequence needs no mask, but is filled less, which costs the rest of the layer time that is not counted here. Which wins
depends on the lengths, drawn around --median. More options: --help.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from rao_jax.learn.packing import pack
from rao_jax.mesh import TRAIN_RULES, Rules, make_mesh
from rao_jax.policy.causal import causal_attention


def options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--row_lengths", default="1024,4096", help="as config.learn.row_lengths")
  parser.add_argument("--tokens", type=int, default=32_768, help="as config.learn.tokens_per_microbatch")
  parser.add_argument("--sequences", type=int, default=256)
  parser.add_argument("--median", type=float, default=600, help="of the lengths, log-normal with deviation 0.8")
  parser.add_argument("--heads", type=int, default=32)
  parser.add_argument("--kv_heads", type=int, default=8)
  parser.add_argument("--head_size", type=int, default=128)
  parser.add_argument("--dtype", default="bfloat16")
  parser.add_argument("--attention", default="auto", help="as config.policy.attention")
  parser.add_argument("--repeats", type=int, default=5)
  return parser.parse_args()


def microbatch_ms(o: argparse.Namespace, rows: int, length: int, packed: bool) -> float:
  """Forward and backward of one layer's attention over [rows, length], the median of the repeats."""
  rules = Rules.of(make_mesh(devices=jax.devices()[:1]), TRAIN_RULES)
  draw = lambda key, *shape: jax.random.normal(jax.random.key(key), shape, o.dtype)
  q = draw(0, rows, length, o.heads, o.head_size)
  k, v = (draw(key, rows, o.kv_heads, length, o.head_size) for key in (1, 2))
  # Where the boundaries lie does not change the work: no kernel skips tiles by segments.
  segment = jnp.broadcast_to(1 + jnp.arange(length) // max(length // 4, 1), (rows, length)) if packed else None

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1, 2))
  def grads(q, k, v):
    return causal_attention(o.attention, 0, segment, length, rules)(q, k, v, None).astype(jnp.float32).sum()

  times = []
  for _ in range(o.repeats + 1):  # the first one compiles
    start = time.perf_counter()
    jax.block_until_ready(grads(q, k, v))
    times.append(1e3 * (time.perf_counter() - start))
  return float(np.median(times[1:]))


def main() -> None:
  o = options()
  ladder = sorted(map(int, o.row_lengths.split(",")))
  lengths = np.random.default_rng(0).lognormal(np.log(o.median), 0.8, o.sequences)
  lengths = np.clip(lengths, 8, ladder[-1]).astype(int)
  device = jax.devices()[0]
  print(f"{device.device_kind}: {o.sequences} sequences, {lengths.sum()} tokens, attention={o.attention}, {o.dtype}")
  print(f"{'layout':12}{'row length':>12}{'rows':>8}{'filled':>8}{'ms a microbatch':>18}{'ms in all':>12}")
  for packed in (True, False):
    layout = "packed" if packed else "one a row"
    total = 0.0
    for rung, length in enumerate(ladder):
      own = lengths[np.searchsorted(ladder, lengths) == rung].tolist()
      rows, batch = len(pack(own, length)) if packed else len(own), max(o.tokens // length, 1)
      ms = microbatch_ms(o, batch, length, packed)
      total += ms * -(-rows // batch)
      fill = sum(own) / max(rows * length, 1)
      print(f"{layout:12}{length:12}{rows:8}{fill:8.0%}{ms:18.1f}{ms * -(-rows // batch):12.1f}")
    print(f"{layout:12}{'all':>12}{'':34}{total:12.1f}")


if __name__ == "__main__":
  main()
