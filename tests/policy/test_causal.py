"""Causal attention of rows. The TPU kernel runs here in Pallas' interpreter; that it compiles, the full tests show."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rao_jax.mesh import TRAIN_RULES
from rao_jax.policy.attention import attend
from rao_jax.policy.causal import attend_in_blocks, causal_attention, over_mesh, seen, splash
from tests.tiny import eight_devices

B, S, H, Q = 2, 384, 4, 16  # three tiles a row
interpreted = functools.partial(splash, interpret=True)


def draw(kv_heads, seed=0):
  rng = np.random.default_rng(seed)
  q, weight = rng.normal(size=(2, B, S, H, Q)).astype(np.float32)
  k, v = rng.normal(size=(2, B, kv_heads, S, Q)).astype(np.float32)
  # Three sequences and padding, of lengths that no tile starts at; a row of padding alone.
  segment = np.stack([np.repeat([1, 2, 3, 0], [100, 30, 190, 64]), np.zeros(S, int)]).astype(np.int32)
  return q, k, v, weight, segment


def assert_alike(one, other, q, k, v, weight):
  """Results and gradients of two ways to attend, which must be finite where padding is, too."""

  def both(attention):
    loss = lambda q, k, v: jnp.sum(jnp.sin(attention(q, k, v)) * weight)
    return jax.jit(lambda q, k, v: (attention(q, k, v), jax.grad(loss, (0, 1, 2))(q, k, v)))(q, k, v)

  close = functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-4)
  jax.tree.map(close, both(one), both(other))
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(both(one)))


def test_five_tokens_of_two_sequences_see_by_hand():
  expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]]
  np.testing.assert_array_equal(seen(5, jnp.array([[1, 1, 1, 2, 2]]))[0], np.array(expected, bool))
  expected[2][0] = 0
  np.testing.assert_array_equal(seen(5, jnp.array([[1, 1, 1, 2, 2]]), window=2)[0], np.array(expected, bool))


@pytest.mark.parametrize("length", [1, 300, 385, 1101])  # one block, two of 193, four of 276
@pytest.mark.parametrize("with_prefix", [False, True])
def test_blocks_of_a_row_attend_as_the_row_does(length, with_prefix):
  draw = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)
  q, k, v, weight = (
    draw(0, 2, length, 4, 8),
    draw(1, 2, 2, length, 8),
    draw(2, 2, 2, length, 8),
    draw(3, 2, length, 4, 8),
  )
  mask = seen(length, jnp.asarray(np.arange(length) * 7 // length)[None])
  before = [(draw(4, 2, 8, 5), draw(5, 2, 5, 8), jnp.ones((1, length, 5), bool))] if with_prefix else []
  whole = lambda q, k, v: attend(q, [*before, (k.swapaxes(2, 3), v, mask)])
  assert_alike(lambda q, k, v: attend_in_blocks(q, k, v, mask, before), whole, q, k, v, weight)


@pytest.mark.parametrize(("kv_heads", "packed", "window"), [(1, True, 0), (2, True, 0), (2, False, 0), (2, True, 40)])
def test_splash_is_the_attention_of_xla(kv_heads, packed, window):
  q, k, v, weight, segment = draw(kv_heads)
  segment = jnp.asarray(segment) if packed else None
  xla = causal_attention("xla", window, segment, S, None)
  one = lambda q, k, v: interpreted(q, k, v, segment, window or None)
  assert_alike(one, lambda q, k, v: xla(q, k, v, window or None), q, k, v, weight)


@pytest.mark.parametrize(
  ("kv_heads", "mesh"), [(1, {"fsdp": 2, "tensor": 4}), (2, {"data": 2, "tensor": 4}), (4, {"expert": 2, "tensor": 4})]
)
def test_splash_on_a_mesh_is_that_of_one_device(kv_heads, mesh):
  # Two key heads of four ways: a device has all keys and finds the head of its queries.
  q, k, v, weight, segment = draw(kv_heads)
  rules = eight_devices(TRAIN_RULES, **{"data": 1, **mesh})
  meshed = lambda q, k, v: over_mesh(interpreted, rules, q, k, v, segment=jnp.asarray(segment), window=None)
  assert_alike(meshed, lambda q, k, v: causal_attention("xla", 0, segment, S, None)(q, k, v, None), q, k, v, weight)
