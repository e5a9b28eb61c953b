"""Matrices as small batches on a CPU read them best: in strips of columns, each one stretch of memory.

A product of few rows waits for its matrix, of which XLA's CPU backend reads some columns at a time, every row of them
at another place. With matrices in strips 4 rows take less than half of the time, 16 rows three quarters, 32 the same;
but if all matrices stay in a core's own cache, 16 rows take a tenth longer.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp

WIDTH = 64  # 32 and 128 are slower
NARROWEST = 16  # strip of keys: a core's vector
CACHED = 4 << 20  # bytes of parameters that a core may find in its own cache at every step


@flax.struct.dataclass
class Strips:
  """A parameter [*inputs, *outputs], as a matrix [I, O], in strips [O / WIDTH, I, WIDTH].

  Attributes:
    strips: see above.
    outputs: the shape that O stands for.
  """

  strips: jax.Array
  outputs: tuple[int, ...] = flax.struct.field(pytree_node=False)

  def product(self, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Of x [N, I] with the matrix: [N, *outputs] in `dtype`."""
    for_each = jnp.broadcast_to(x, (len(self.strips), *x.shape))  # or XLA would put the strips together again
    out = jnp.einsum("sni,sio->sno", for_each, self.strips, preferred_element_type=dtype)
    return out.swapaxes(0, 1).reshape(len(x), *self.outputs)


def in_strips(w: jax.Array, inputs: int) -> Strips | jax.Array:
  """A parameter whose first `inputs` axes are contracted, in strips; as it is where they would not come out even."""
  outputs = w.shape[inputs:]
  if math.prod(outputs) % WIDTH:
    return w
  matrix = w.reshape(math.prod(w.shape[:inputs]), -1, WIDTH)
  return Strips(matrix.swapaxes(0, 1), outputs)


def keys_in_strips(k: jax.Array) -> jax.Array:
  """Keys [B, K, T, Q] as [B, K, N, Q, T / N]: in strips of WIDTH positions, or as many less as come out even.

  One strip of all, where these would be narrower than NARROWEST.
  """
  B, K, T, Q = k.shape
  width = math.gcd(T, WIDTH)
  width = width if width >= NARROWEST else T
  return k.reshape(B, K, T // width, width, Q).swapaxes(3, 4)
