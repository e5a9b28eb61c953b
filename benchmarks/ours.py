"""Our side of the benchmarks: the model that all sides have, random, over the devices of this process."""

import jax
import numpy as np

from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES, Rules, make_mesh
from rao_jax.policy.transformer import Params, PolicyConfig, init_params

# A small Llama. The base of the rotary frequencies is the one that tunix's Llama takes, whatever it is told.
POLICY = PolicyConfig(
  vocab_size=1024, layers=4, width=256, heads=4, kv_heads=2, head_size=64, mlp=1024, rope_base=1e6, norm_eps=1e-5,
  unroll=True,
)  # fmt: skip
PAD = 0  # no row of random tokens holds it
END = -1  # never sampled


class Ours:
  def __init__(self, seed: int = 0):
    mesh = make_mesh()
    self.train_rules, self.rollout_rules = Rules.of(mesh, TRAIN_RULES), Rules.of(mesh, ROLLOUT_RULES)
    make = jax.jit(lambda key: init_params(POLICY, key), out_shardings=self.rollout_rules.replicated)
    self.params: Params = make(jax.random.key(seed))


def random_tokens(rows: int, length: int, seed: int) -> np.ndarray:
  """i32[rows, length], none of them PAD."""
  return np.random.default_rng(seed).integers(PAD + 1, POLICY.vocab_size, (rows, length), np.int32)
