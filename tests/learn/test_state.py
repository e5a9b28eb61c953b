import jax
import jax.numpy as jnp
import numpy as np
import optax

from rao_jax.learn.state import make_optimizer


def test_optimiser_of_bfloat16_parameters_is_the_one_of_float32_parameters():
  optimizer = make_optimizer(lambda _: 0.1, 1.0, 0.9, 0.95, 1e-8, 0.01)
  params = {"q": jnp.array([[1.0, -2.0]], jnp.bfloat16), "norm": jnp.ones(2, jnp.bfloat16)}
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  states, results = [], []
  for start in (params, wide):
    state = optimizer.init(start)
    for size in (0.3, 0.1):
      updates, state = optimizer.update(jax.tree.map(lambda x, size=size: size * jnp.ones_like(x), wide), state, start)
    states.append(state)
    results.append(optax.apply_updates(start, updates))
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert all(x.dtype in (jnp.float32, jnp.int32) for x in jax.tree.leaves(states[0]))
  # Parameters are rounded after the update.
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(results[0]))
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), *results)
