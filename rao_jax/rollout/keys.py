"""Randomness by path: a node's key is fold_in(parent's key, launch index), whatever batch or machine it runs on."""

from collections.abc import Sequence

import jax
import numpy as np

BATCH = 64  # keys derived by one call of the one compiled program


@jax.jit
def _fold(keys: jax.Array, numbers: jax.Array) -> jax.Array:
  one = lambda key, number: jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key), number))
  return jax.vmap(one)(keys, numbers)


def fold_keys(keys: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
  """u32[n, 2], key i folded with number i; keys may be one key [2] for all."""
  n = len(numbers)
  total = -(-n // BATCH) * BATCH
  parents, folded = np.zeros((total, 2), np.uint32), np.zeros(total, np.uint32)
  parents[:n], folded[:n] = keys, numbers
  parts = [_fold(parents[at : at + BATCH], folded[at : at + BATCH]) for at in range(0, total, BATCH)]
  return np.concatenate(jax.device_get(parts))[:n] if parts else parents
