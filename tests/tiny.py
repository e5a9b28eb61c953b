"""The small policy of the tests, its parameters without the compile time of a real initialisation, and meshes."""

import functools

import jax
import numpy as np

from rao_jax.mesh import Rules, make_mesh
from rao_jax.policy.transformer import Params, PolicyConfig, init_params

TINY = PolicyConfig(vocab_size=64, layers=2, width=32, heads=4, kv_heads=2, head_size=8, mlp=64)


def random_params(config: PolicyConfig, seed: int = 0) -> Params:
  """Every leaf random, norms too: scales that are all 1 would hide a norm that is left out."""
  shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
  leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
  rng = np.random.default_rng(seed)
  draw = lambda path, x: rng.normal(size=x.shape) * 0.2 + path[-1].key.endswith("norm")
  return tree.unflatten([draw(path, x).astype(np.float32) for path, x in leaves])


def one_device(table: dict) -> Rules:
  """Rules over a mesh of one of the process's devices; `make_mesh` takes them all by default."""
  return Rules.of(make_mesh(devices=jax.devices()[:1]), table)


def eight_devices(table: dict, **sizes: int) -> Rules:
  return Rules.of(make_mesh(**sizes), table)
