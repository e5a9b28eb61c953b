import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rao_jax.policy.attention import attend, within

B, P, T, H, Q = 2, 3, 10, 4, 8


def draw(kv_heads, seed=0):
  """Queries, keys, values and a mask that shows every query the first key of the stretches 0:3, 3:4, 4:10."""
  rng = np.random.default_rng(seed)
  q = rng.normal(size=(B, P, H, Q)).astype(np.float32)
  k = rng.normal(size=(B, kv_heads, Q, T)).astype(np.float32)
  v = rng.normal(size=(B, kv_heads, T, Q)).astype(np.float32)
  mask = rng.random((B, P, T)) < 0.5
  mask[..., [0, 3, 4]] = True
  return q, k, v, mask


def twin(q, k, v, mask):
  """Softmax attention by loops over rows, queries and heads."""
  out = np.zeros_like(q, np.float64)
  group = H // k.shape[1]
  for b, p, h in np.ndindex(B, q.shape[1], H):
    seen = np.flatnonzero(mask[b, p])
    score = q[b, p, h].astype(np.float64) @ k[b, h // group][:, seen] / np.sqrt(Q)
    weight = np.exp(score - score.max())
    out[b, p, h] = weight @ v[b, h // group, seen] / weight.sum()
  return out


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("cuts", [(), (3,), (3, 4)])
def test_blocks_together_are_one_softmax_over_the_keys_that_the_masks_let_through(kv_heads, cuts):
  q, k, v, mask = draw(kv_heads)
  blocks = zip(np.split(k, cuts, 3), np.split(v, cuts, 2), np.split(mask, cuts, 2))
  np.testing.assert_allclose(attend(jnp.asarray(q), list(blocks)), twin(q, k, v, mask), atol=1e-5)


def test_two_keys_worked_by_hand():
  # One head of size 1: scores q * k = ln 3 and 0, weights 3/4 and 1/4.
  q = jnp.full((1, 1, 1, 1), np.log(3.0), jnp.float32)
  k, v = jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2), jnp.array([8.0, 4.0]).reshape(1, 1, 2, 1)
  assert attend(q, [(k, v, jnp.ones((1, 1, 2), bool))]).item() == pytest.approx(7.0)
  assert attend(q, [(k, v, jnp.array([[[False, True]]]))]).item() == pytest.approx(4.0)


def test_grouped_queries_equal_repeated_keys():
  q, k, v, mask = draw(kv_heads=2)
  repeated = attend(q, [(np.repeat(k, 2, 1), np.repeat(v, 2, 1), mask)])
  np.testing.assert_allclose(attend(q, [(k, v, mask)]), repeated, atol=1e-6)


def test_masked_keys_touch_neither_result_nor_gradient():
  q, k, v, mask = draw(kv_heads=1)
  mask[..., 5:] = False
  junk = np.where(np.arange(T) >= 5, 1e4, 0).astype(np.float32)  # what lies in a cache beyond its filled part
  f = lambda k, v: attend(q, [(k, v, mask)])
  np.testing.assert_array_equal(f(k + junk, v + junk[:, None]), f(k, v))
  of_k, of_v = jax.grad(lambda k, v: jnp.sum(f(k, v) ** 2), argnums=(0, 1))(k + junk, v + junk[:, None])
  assert np.any(of_k) and np.any(of_v) and not np.any(of_k[..., 5:]) and not np.any(of_v[:, :, 5:])


def test_block_of_which_nothing_is_seen_changes_nothing():
  q, k, v, mask = draw(kv_heads=2)
  empty = (k, v, np.zeros_like(mask))  # the empty cache of a fresh node
  np.testing.assert_array_equal(attend(q, [empty, (k, v, mask)]), attend(q, [(k, v, mask)]))


def test_window_of_three_shows_a_query_its_own_key_and_the_two_before():
  queries, keys = np.array([[4, 5]]), np.array([[0, 1, 2, 3, 4, 5]])
  causal = keys[:, None] <= queries[..., None]
  expected = [[[False, False, True, True, True, False], [False, False, False, True, True, True]]]
  np.testing.assert_array_equal(within(causal, queries, keys, 3), expected)
  np.testing.assert_array_equal(within(causal, queries, keys, None), causal)
