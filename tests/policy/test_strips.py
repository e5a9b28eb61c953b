"""Matrices in strips have the products of the matrices; who gets strips."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from rao_jax.policy.strips import WIDTH, Strips, in_strips, keys_in_strips
from rao_jax.policy.transformer import PolicyConfig, decode_params, init_params, project

# Matrices of 5 MB: more than a core keeps.
LARGE = PolicyConfig(
  vocab_size=192, layers=2, width=256, heads=4, kv_heads=2, head_size=64, mlp=512, tied=False, unroll=True
)


def normal(seed: int, *shape: int) -> jax.Array:
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(("shape", "inputs"), [((24, 3, 64), 1), ((24, 4, 32), 1), ((3, 8, 128), 2), ((24, 64), 1)])
def test_products_are_those_of_the_matrix(shape, inputs):
  w, x = normal(0, *shape), normal(1, 2, 5, *shape[:inputs])
  in_order = in_strips(w, inputs)
  assert in_order.strips.shape == (np.prod(shape[inputs:]) // WIDTH, 24, WIDTH)
  np.testing.assert_allclose(project(x, in_order, inputs), project(x, w, inputs), rtol=1e-5, atol=1e-5)


def test_columns_that_do_not_come_out_even_stay():
  w = normal(0, 24, 3, 30)
  assert in_strips(w, 1) is w


@pytest.mark.parametrize(("length", "strips"), [(128, 2), (96, 3), (100, 1)])
def test_keys_in_strips_hold_the_positions_in_order(length, strips):
  k = normal(0, 2, 3, length, 5)
  in_order = keys_in_strips(k)
  assert in_order.shape == (2, 3, strips, 5, length // strips)
  np.testing.assert_array_equal(in_order.swapaxes(3, 4).reshape(k.shape), k)


@pytest.mark.parametrize(
  ("changes", "whole", "kinds"),
  [
    ({}, True, {Strips}),
    ({}, False, {jax.ShapeDtypeStruct}),
    (dict(width=64), True, {jax.ShapeDtypeStruct}),
  ],
  ids=["large", "split by a mesh", "small"],
)
def test_matrices_that_a_core_cannot_keep_are_put_in_strips(changes, whole, kinds):
  config = dataclasses.replace(LARGE, **changes)
  params = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
  made = jax.eval_shape(functools.partial(decode_params, config=config, whole=whole), params)
  matrices = [layer[name] for layer in made["blocks"] for name in ("q", "k", "v", "o", "gate", "up", "down")]
  assert {type(x) for x in (*matrices, made["head"])} == kinds


def test_scanned_layers_stay_as_they_are():
  params = jax.eval_shape(functools.partial(init_params, LARGE), jax.random.key(0))
  assert decode_params(params, dataclasses.replace(LARGE, unroll=False), True) is params
