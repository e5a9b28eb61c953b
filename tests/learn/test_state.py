import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rao_jax.learn.state import make_optimizer, state_shardings
from rao_jax.mesh import TRAIN_RULES
from tests.tiny import TINY, eight_devices, random_params


def test_muon_turns_matrices_of_layers_and_leaves_the_rest_to_adam():
  params, rng = random_params(TINY, 0), np.random.default_rng(0)
  grads = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
  first = {}
  for kind in ("muon", "adamw"):
    optimizer = make_optimizer(lambda _: 1.0, 1e9, 0.9, 0.95, 1e-8, 0.0, kind)
    first[kind], _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
  muon, adam = first["muon"], first["adamw"]
  for name, matrix in {
    "q": lambda x: x.reshape(x.shape[0], x.shape[1], -1), "o": lambda x: x.reshape(x.shape[0], -1, x.shape[-1]),
    "down": lambda x: x,
  }.items():  # fmt: skip
    for layer in matrix(muon["blocks"][name]):
      found = np.linalg.svd(layer, compute_uv=False) / (0.2 * max(layer.shape) ** 0.5)
      assert np.quantile(found, 0.1) > 0.6 and found.max() < 1.3  # so near to 1 come five steps of Newton-Schulz
    assert np.mean(np.sign(muon["blocks"][name]) == -np.sign(grads["blocks"][name])) > 0.7
  for name in ("embed", "norm"):  # the first step of Nesterov's Adam has the same direction
    np.testing.assert_allclose(np.sign(muon[name]), np.sign(adam[name]))
    assert np.ptp(np.abs(muon[name])) < 1e-3


def test_muon_takes_each_expert_as_a_matrix_and_no_router():
  config = dataclasses.replace(TINY, experts=4, experts_per_token=2)
  params, rng = random_params(config, 0), np.random.default_rng(0)
  grads = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
  optimizer = make_optimizer(lambda _: 1.0, 1e9, 0.9, 0.95, 1e-8, 0.0, "muon")
  updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
  for matrix in np.reshape(updates["blocks"]["expert_up"], (-1, *updates["blocks"]["expert_up"].shape[2:])):
    found = np.linalg.svd(matrix, compute_uv=False) / (0.2 * max(matrix.shape) ** 0.5)
    assert np.quantile(found, 0.1) > 0.6 and found.max() < 1.3
  assert np.ptp(np.abs(updates["blocks"]["router"])) < 1e-3  # a first step of Adam


def test_muon_over_eight_devices_is_muon_on_one():
  params, rng = random_params(TINY, 0), np.random.default_rng(0)
  grads = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
  optimizer = make_optimizer(lambda _: 0.1, 1.0, 0.9, 0.95, 1e-8, 0.01, "muon")
  layout = state_shardings(TINY, optimizer, eight_devices(TRAIN_RULES, data=2, fsdp=2, tensor=2))
  expected, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
  params, grads = jax.device_put(params, layout.params), jax.device_put(grads, layout.params)
  moments = jax.jit(optimizer.init, out_shardings=layout.opt_state)(params)
  found, _ = jax.jit(optimizer.update, out_shardings=(layout.params, layout.opt_state))(grads, moments, params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_moments_of_muon_lie_with_their_parameters():
  optimizer = make_optimizer(lambda _: 0.1, 1.0, 0.9, 0.95, 1e-8, 0.0, "muon")
  layout = state_shardings(TINY, optimizer, eight_devices(TRAIN_RULES, data=2, fsdp=2, tensor=2))
  paths = jax.tree_util.tree_leaves_with_path(layout.opt_state)
  where = {jax.tree_util.keystr(path): place for path, place in paths}
  [q] = [place for path, place in where.items() if path.endswith("['blocks']['q']")]  # a momentum alone
  assert q == layout.params["blocks"]["q"] and not q.is_fully_replicated
  embeds = [place for path, place in where.items() if path.endswith("['embed']")]
  assert embeds == [layout.params["embed"]] * 2 and not embeds[0].is_fully_replicated


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
