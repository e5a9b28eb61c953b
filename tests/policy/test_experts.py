import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rao_jax.mesh import TRAIN_RULES
from rao_jax.policy.experts import every_expert, mixture, picked_experts
from tests.tiny import eight_devices

B, P, D, E, F, K = 4, 5, 6, 8, 8, 3


def draw():
  rng = np.random.default_rng(0)
  shapes = (B, P, D), (D, E), (E, D, F), (E, D, F), (E, F, D)
  x, *weights = (0.5 * rng.normal(size=s).astype(np.float32) for s in shapes)
  x[:2] = x[0, 0]  # ten tokens are alike: three experts take them all, which a capacity would not allow
  return x, *weights


def twin(x, router, gate, up, down, normalise):
  """Token by token."""
  out = np.zeros(x.shape, np.float64)
  for b, p in np.ndindex(B, P):
    h = x[b, p].astype(np.float64)
    logits = h @ router
    probability = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = np.argsort(-probability)[:K]
    for e in best:
      g = h @ gate[e]
      weight = probability[e] / (probability[best].sum() if normalise else 1)
      out[b, p] += weight * ((g / (1 + np.exp(-g)) * (h @ up[e])) @ down[e])
  return out


@pytest.mark.parametrize("normalise", [True, False])
def test_mixture_is_the_sum_over_each_tokens_own_experts(normalise):
  arrays = draw()
  out = mixture(*arrays, K, normalise, jax.nn.silu, None)
  np.testing.assert_allclose(out, twin(*arrays, normalise), atol=1e-4)


def test_both_ways_to_multiply_agree_and_so_do_their_gradients():
  x, _, *experts = draw()
  x = x.reshape(-1, D)
  rng = np.random.default_rng(1)
  pick = np.argsort(rng.random((B * P, E)), -1)[:, :K].astype(np.int32)
  weight = rng.random((B * P, K)).astype(np.float32)

  def grads(product):
    loss = lambda x, weight, *experts: jnp.sin(product(x, pick, weight, *experts, jax.nn.silu)).sum()
    return jax.jit(jax.value_and_grad(loss, argnums=range(5)))(x, weight, *experts)

  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4), grads(picked_experts), grads(every_expert)
  )


@pytest.mark.parametrize("product", [every_expert, picked_experts])
def test_shares_of_the_experts_add_up_and_so_do_their_gradients(product):
  x, router, *experts = draw()
  x = x.reshape(-1, D)
  weight, pick = jax.lax.top_k(jax.nn.softmax(x @ router), K)

  def total(shares):
    def loss(x, weight, *experts):
      parts = [
        product(x, pick - at, weight, *(w[at : at + E // shares] for w in experts), jax.nn.silu)
        for at in range(0, E, E // shares)
      ]
      return jnp.sin(sum(parts)).sum()

    return jax.jit(jax.value_and_grad(loss, argnums=range(5)))(x, weight, *experts)

  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4), total(4), total(1))


@pytest.mark.parametrize("sizes", [dict(data=2, fsdp=2, tensor=2), dict(data=2, expert=4), dict(expert=2, tensor=4)])
def test_mixture_on_a_mesh_is_that_of_one_device_and_so_are_its_gradients(sizes):
  arrays, rules = draw(), eight_devices(TRAIN_RULES, **({"data": 1} | sizes))

  def grads(rules):
    loss = lambda *arrays: jnp.sin(mixture(*arrays, K, True, jax.nn.silu, rules)).sum()
    return jax.jit(jax.value_and_grad(loss, argnums=range(5)))(*arrays)

  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4), grads(rules), grads(None))
