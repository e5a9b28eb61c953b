import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rao_jax.learn.losses import LossOptions
from rao_jax.learn.state import TrainState, init_state
from rao_jax.learn.step import Learner
from rao_jax.mesh import TRAIN_RULES
from rao_jax.policy import PolicyConfig, from_pretrained, save_pretrained
from rao_jax.policy.lora import frozen, join, merge_adapters, trained, without_adapters
from rao_jax.policy.params import abstract_params, cast_params
from rao_jax.policy.transformer import LORA, forward, init_params
from tests.learn.test_step import MASK, TEMPERATURE, adam, make_batch, parts_of, scales_of
from tests.tiny import TINY, eight_devices, one_device, random_params

ADAPTED = dataclasses.replace(TINY, lora_rank=3, lora_alpha=6.0)
EXPERTS = dataclasses.replace(ADAPTED, experts=4, experts_per_token=2, qk_norm=True, lora_targets=("q", "k", "v", "o"))
TOKENS = np.random.default_rng(0).integers(0, TINY.vocab_size, (2, 9)).astype(np.int32)
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def logits(params, config):
  return quick_jit(forward, static_argnums=1)(params, config, TOKENS)


def test_an_adapter_adds_its_scaled_product_to_the_matrix():
  params = random_params(ADAPTED)
  blocks = merge_adapters(params, ADAPTED)["blocks"]
  layer = {name: np.asarray(leaf[1]) for name, leaf in params["blocks"].items()}
  up = layer["up"] + 2 * layer["up_lora_a"] @ layer["up_lora_b"]  # 2 = alpha 6 / rank 3
  np.testing.assert_allclose(blocks["up"][1], up, atol=1e-6)
  o = layer["o"].reshape(32, 32) + 2 * layer["o_lora_a"].reshape(32, 3) @ layer["o_lora_b"]
  np.testing.assert_allclose(blocks["o"][1].reshape(32, 32), o, atol=1e-6)


@pytest.mark.parametrize("config", [ADAPTED, EXPERTS], ids=["dense", "experts"])
def test_merged_parameters_compute_the_same(config):
  params = random_params(config)
  merged = merge_adapters(params, config)
  assert jax.tree.structure(merged) == jax.tree.structure(random_params(without_adapters(config)))
  out = logits(params, config)
  np.testing.assert_allclose(out, logits(merged, without_adapters(config)), atol=2e-5)
  assert np.abs(out - logits(frozen(params, config), without_adapters(config))).max() > 0.1  # they do something


def test_a_fresh_adapter_changes_nothing_and_the_rest_is_drawn_as_without_it():
  params = init_params(ADAPTED, jax.random.key(3))
  bare = init_params(TINY, jax.random.key(3))
  jax.tree.map(np.testing.assert_array_equal, frozen(params, ADAPTED), bare)
  np.testing.assert_array_equal(logits(params, ADAPTED), logits(bare, TINY))


def test_gradient_is_that_of_the_merged_matrix():
  params = random_params(ADAPTED)
  base, adapters = frozen(params, ADAPTED), trained(params, ADAPTED)
  loss = lambda params, config: jnp.sin(forward(params, config, TOKENS)).sum()
  direct = quick_jit(jax.grad(lambda t: loss(join(base, t), ADAPTED)))(adapters)
  merged = quick_jit(jax.grad(lambda t: loss(merge_adapters(join(base, t), ADAPTED), TINY)))(adapters)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-3), direct, merged)
  assert all(np.abs(leaf).max() > 0.01 for leaf in jax.tree.leaves(direct))


def learner(rules, **options) -> tuple[Learner, TrainState]:
  optimizer, schedule = adam()
  params = random_params(ADAPTED)
  base = jax.device_put(frozen(params, ADAPTED), layout_of(frozen(abstract_params(ADAPTED, rules), ADAPTED)))
  options = LossOptions(surrogate="reinforce", **options)
  some = Learner(ADAPTED, rules, optimizer, schedule, options, MASK, TEMPERATURE, (16,), 128, base)
  fresh = init_state(ADAPTED, optimizer, rules, jax.random.key(0))
  return some, fresh.replace(params=jax.device_put(trained(params, ADAPTED), some.layout.params))


def layout_of(abstract):
  return jax.tree.map(lambda x: x.sharding, abstract)


def test_a_step_trains_adapters_alone_and_over_a_mesh_the_same():
  results = []
  for rules in one_device(TRAIN_RULES), eight_devices(TRAIN_RULES, data=2, fsdp=2, tensor=2):
    some, state = learner(rules)
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(state.params)}
    assert len(names) == 14 and all(LORA in name for name in names)  # what a checkpoint holds, too
    before = jax.device_get(state.params)
    state, metrics = some.update(state, parts_of(make_batch()), scales_of(make_batch()[0]))
    after = jax.device_get(state.params)
    assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before, after))))
    results.append((after, metrics["loss"], metrics["grad_norm"]))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *results)


def test_the_reference_policy_is_another_set_of_adapters_over_the_same_base():
  some, state = learner(one_device(TRAIN_RULES), kl_coefficient=1.0)
  reference = jax.tree.map(jnp.copy, state.params)
  batch = make_batch()
  for expected_zero in True, False:
    state, metrics = some.update(state, parts_of(batch), scales_of(batch[0]), reference)
    assert (abs(metrics["reference_kl"]) < 1e-9) == expected_zero


def test_parameters_in_their_compute_dtype_give_the_same_outputs():
  config = dataclasses.replace(ADAPTED, dtype="bfloat16", qk_norm=True)
  params = random_params(config)
  cast = cast_params(params, config)
  assert cast["blocks"]["q"].dtype == cast["embed"].dtype == jnp.bfloat16
  assert cast["blocks"]["q_norm"].dtype == cast["norm"].dtype == jnp.float32
  np.testing.assert_array_equal(logits(params, config), logits(cast, config))


def test_saving_merges(tmp_path):
  params = random_params(ADAPTED)
  save_pretrained(tmp_path / "model", ADAPTED, params)
  config, loaded = from_pretrained(tmp_path / "model")
  assert config.lora_rank == 0
  np.testing.assert_allclose(logits(loaded, config), logits(params, ADAPTED), atol=2e-5)


def test_settings_that_do_nothing_or_cannot_be_are_refused():
  numbers = dict(vocab_size=64, layers=1, width=32, heads=4, kv_heads=2, head_size=8, mlp=64)
  with pytest.raises(ValueError, match=r"lora_targets do nothing with policy\.lora_rank=0"):
    PolicyConfig(**numbers, lora_alpha=8.0)
  with pytest.raises(ValueError, match=r"lora_targets=\('q', 'qkv'\): choose some of \('q', 'k'"):
    PolicyConfig(**numbers, lora_rank=2, lora_targets=("q", "qkv"))
  with pytest.raises(ValueError, match=r"choose some of \('q', 'k', 'v', 'o'\) \(experts get none\)"):
    PolicyConfig(**numbers, lora_rank=2, experts=2, experts_per_token=1)
  with pytest.raises(ValueError, match=r"lora_rank=-1 must be 0 or more"):
    PolicyConfig(**numbers, lora_rank=-1)
