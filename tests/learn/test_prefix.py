"""Training on sequences that share a prefix: worked once, rows without it, the same update."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rao_jax.learn.losses import LossOptions, normalisers
from rao_jax.learn.state import TrainState
from rao_jax.learn.step import Learner
from rao_jax.mesh import TRAIN_RULES
from rao_jax.policy.lora import frozen, trained
from rao_jax.tree.buffer import NodeRecord, TreeRecord, build
from tests.learn.test_step import MASK, TEMPERATURE, adam, assert_trees_close
from tests.tiny import TINY, eight_devices, one_device, random_params

PREFIX = (3, 13, 4, 1, 5)  # the second is never sampled
OPTIONS = LossOptions(surrogate="ppo", entropy_coefficient=0.3, kl_coefficient=0.2)
WINDOWS = dataclasses.replace(TINY, window=4, window_pattern="SF")
ADAPTERS = dataclasses.replace(TINY, lora_rank=2, lora_alpha=2.0)
EXPERTS = dataclasses.replace(TINY, experts=4, experts_per_token=2, remat=True)
ONE = functools.partial(one_device, TRAIN_RULES)


def make_batch(count=12, seed=0, prefix=PREFIX):
  """A buffer of nodes that start with the prefix, of 2 to 8 tokens beyond it; their advantages and weights."""
  rng = np.random.default_rng(seed)
  nodes = []
  for _ in range(count):
    n = int(rng.integers(2, 9))
    is_action = np.array([False] * (len(prefix) + 1) + [True] * (n - 1))
    tokens = [*prefix, *rng.choice(np.flatnonzero(MASK), n)]
    nodes.append(NodeRecord(np.array(tokens), is_action, rng.normal(-4, 0.3, len(tokens)), -1, 0, 0.0))
  buffer = build([TreeRecord([node], i, True) for i, node in enumerate(nodes)], num_nodes=count)
  return buffer, rng.normal(size=count).astype(np.float32), rng.uniform(0.5, 2, count).astype(np.float32)


@functools.cache
def learner(config, rules, prefix):
  optimizer, schedule = adam()
  base = jax.device_put(frozen(random_params(config), config), rules.replicated)
  return Learner(config, rules, optimizer, schedule, OPTIONS, MASK, TEMPERATURE, (16,), 64, base, prefix)


def updated(config, rules, prefix):
  """State and metrics after two updates, and the tokens that rows held."""
  params, reference = random_params(config), random_params(config, 1)
  some, own = learner(config, rules, prefix), trained(params, config)
  state = TrainState(own, some.optimizer.init(own), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
  state = jax.device_put(jax.tree.map(np.array, state), some.layout)
  reference = jax.device_put(trained(reference, config), some.layout.params)
  for seed in range(2):
    buffer, advantage, weight = make_batch(seed=seed)
    parts = some.microbatches(buffer, np.arange(len(weight)), advantage, weight)
    scales = normalisers("trajectory", len(weight), int(buffer.sampled.sum()))
    state, metrics = some.update(state, parts, scales, reference)
  return jax.device_get(state), metrics, sum(int((part.segment > 0).sum()) for part in parts)


def assert_same_update(config, rules):
  state, metrics, tokens = updated(config, ONE(), ())
  other, metrics_of_other, own = updated(config, rules, PREFIX)
  assert own == tokens - 12 * len(PREFIX)
  assert metrics_of_other == pytest.approx(metrics, rel=1e-3, abs=1e-5)
  # A leaf moves by 1e-2; steps are large where gradients are small.
  assert_trees_close(other.params, state.params, atol=5e-5, rtol=1e-4)
  assert_trees_close(other.opt_state, state.opt_state, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("config", [WINDOWS, ADAPTERS])
def test_a_shared_prefix_does_not_change_the_update(config):
  assert_same_update(config, ONE())


def test_a_shared_prefix_does_not_change_the_update_of_eight_devices():
  assert_same_update(EXPERTS, eight_devices(TRAIN_RULES, data=1, fsdp=2, expert=2, tensor=2))


def test_nodes_that_start_otherwise_are_refused():
  buffer, advantage, weight = make_batch(prefix=(2, *PREFIX[1:]))
  with pytest.raises(ValueError, match=r"not all nodes start with the 5 tokens .* config.share_prefix=none"):
    learner(WINDOWS, ONE(), PREFIX).microbatches(buffer, np.arange(12), advantage, weight)
