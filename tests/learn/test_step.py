import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rao_jax.learn.losses import LossOptions, normalisers, zero_stats
from rao_jax.learn.packing import microbatches
from rao_jax.learn.state import TrainState, make_optimizer, make_schedule, state_shardings, with_optimizer
from rao_jax.learn.step import Accumulated, Learner, accumulate
from rao_jax.mesh import TRAIN_RULES
from rao_jax.policy.transformer import forward
from rao_jax.tree.buffer import NodeRecord, TreeRecord, build
from tests.tiny import TINY, eight_devices, one_device, random_params

TEMPERATURE = 0.8
MASK = np.arange(TINY.vocab_size) % 7 != 6
REINFORCE = LossOptions(surrogate="reinforce")
ONE = functools.partial(one_device, TRAIN_RULES)
MESHES = {
  "one": ONE,
  "data8": functools.partial(eight_devices, TRAIN_RULES, data=8),
  "fsdp8": functools.partial(eight_devices, TRAIN_RULES, data=1, fsdp=8),
  "data2_tensor4": functools.partial(eight_devices, TRAIN_RULES, data=2, tensor=4),
  "data2_fsdp2_tensor2": functools.partial(eight_devices, TRAIN_RULES, data=2, fsdp=2, tensor=2),
}


def make_batch(count=20, seed=0):
  """A buffer of nodes of 3 to 16 tokens, with their advantages and weights."""
  rng = np.random.default_rng(seed)
  nodes = []
  for _ in range(count):
    n = int(rng.integers(3, 17))
    is_action = rng.random(n) < 0.6
    is_action[0], is_action[-1] = False, True
    allowed = rng.choice(np.flatnonzero(MASK), n)
    nodes.append(NodeRecord(allowed, is_action, rng.normal(-4, 0.3, n), -1, 0, 0.0))
  buffer = build([TreeRecord([node], i, True) for i, node in enumerate(nodes)], num_nodes=count)
  return buffer, rng.normal(size=count).astype(np.float32), rng.uniform(0.5, 2, count).astype(np.float32)


def scales_of(buffer):
  return normalisers("trajectory", int(buffer.exists.sum()), int(buffer.sampled.sum()))


def parts_of(batch, row_lengths=(16,), tokens=128, nodes=None):
  buffer, advantage, weight = batch
  return microbatches(
    buffer, np.arange(len(weight)) if nodes is None else nodes, advantage, weight, row_lengths, tokens
  )


def adam(weight_decay=0.0, clip=1e9):
  # A large eps: Adam's first step is otherwise the sign of the gradient, which blows rounding up where it is near 0.
  schedule = make_schedule(1e-2, warmup=2, total=8, final=0.1)
  return make_optimizer(schedule, clip, 0.9, 0.95, 1e-2, weight_decay), schedule


@functools.cache
def learner(mesh="one"):
  optimizer, schedule = adam()
  row_lengths = (8, 16) if mesh == "one" else (16,)
  return Learner(TINY, MESHES[mesh](), optimizer, schedule, REINFORCE, MASK, TEMPERATURE, row_lengths, 128)


def fresh(some: Learner, seed=0) -> TrainState:
  """A state of random parameters where the learner wants it."""
  params = random_params(TINY, seed)
  state = TrainState(params, some.optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
  return jax.device_put(jax.tree.map(np.array, state), some.layout)


def assert_trees_close(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def log_probabilities(params, buffer):
  """Of every token of every node, each node in a row of its own: [N, 16, V], the distribution of token i at i - 1."""
  tokens = np.zeros((len(buffer.start), 16), np.int32)
  for n, (start, length) in enumerate(zip(buffer.start, buffer.length)):
    tokens[n, :length] = buffer.tokens[start : start + length]
  logits = jnp.where(MASK, forward(params, TINY, tokens) / TEMPERATURE, -1e30)
  return logits - jnp.log(jnp.sum(jnp.exp(logits), -1, keepdims=True))


def oracle_loss(params, batch, options, reference=None):
  """The loss token by token, unpacked: terms of the surrogate over the nodes, regularisers over the tokens."""
  buffer, advantage, weight = batch
  at = np.flatnonzero(buffer.is_action)
  node = np.searchsorted(buffer.start, at, side="right") - 1
  place, token = at - buffer.start[node], buffer.tokens[at]
  a, w, old = advantage[node], weight[node], buffer.behaviour_logp[at]
  logp = log_probabilities(params, buffer)[node, place - 1]  # [tokens, V]
  own = logp[np.arange(len(at)), token]
  ratio = jnp.exp(own - old)
  if options.surrogate == "reinforce":
    gain = a * own
  elif options.surrogate == "ppo":
    gain = jnp.minimum(ratio * a, jnp.clip(ratio, 1 - options.clip_low, 1 + options.clip_high) * a)
  else:
    gain = jax.lax.stop_gradient(jnp.clip(ratio, options.ratio_low, options.ratio_high)) * a * own
  loss = -jnp.sum(w * gain) / len(weight)
  entropy = -jnp.sum(jnp.where(MASK, jnp.exp(logp) * logp, 0), -1)
  loss -= options.entropy_coefficient * jnp.mean(entropy)
  if reference is not None:
    log_ratio = log_probabilities(reference, buffer)[node, place - 1][np.arange(len(at)), token] - own
    loss += options.kl_coefficient * jnp.mean(jnp.exp(log_ratio) - 1 - log_ratio)
  return loss


# Unoptimised code compiles twice as fast.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def assert_gradient_is_the_oracles(acc, batch, options, reference=None):
  loss = functools.partial(oracle_loss, batch=batch, options=options, reference=reference)
  value, grads = quick_jit(jax.value_and_grad(loss))(random_params(TINY))
  assert acc.loss == pytest.approx(float(value), rel=1e-5)
  largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
  assert_trees_close(acc.grads, grads, atol=1e-5 * largest, rtol=1e-4)


def accumulated(some: Learner, parts, scales):
  """Gradient sums and statistics at fresh parameters, before the optimiser."""
  params, acc = fresh(some).params, some.programs["start", 0]()
  scales = tuple(np.float32(s) for s in scales)
  for rows in parts:
    program = some.programs["accumulate", rows.tokens.shape[1]]
    acc = program(params, {}, acc, rows, scales, MASK, np.float32(TEMPERATURE), None, None, None)
  return jax.device_get(acc)


def test_gradient_is_that_of_the_plain_loss_of_unpacked_nodes():
  batch = make_batch()
  assert_gradient_is_the_oracles(accumulated(learner(), parts_of(batch), scales_of(batch[0])), batch, REINFORCE)


def test_gradient_with_ppo_entropy_and_reference_is_that_of_the_plain_loss_of_unpacked_nodes():
  batch, params, reference = make_batch(), random_params(TINY), random_params(TINY, 1)
  options = LossOptions(surrogate="ppo", entropy_coefficient=0.3, kl_coefficient=0.2)
  add = quick_jit(functools.partial(accumulate, config=TINY, rules=ONE(), options=options))
  acc = Accumulated(jax.tree.map(np.zeros_like, params), None, np.float32(0), zero_stats())
  for rows in parts_of(batch):
    acc = add(params, {}, acc, rows, scales_of(batch[0]), MASK, TEMPERATURE, reference)
  assert 0 < float(acc.stats.clipped) < float(acc.stats.tokens)
  assert_gradient_is_the_oracles(acc, batch, options, reference)


@pytest.mark.parametrize("mesh", [name for name in MESHES if name != "one"])
def test_eight_devices_make_the_update_of_one(mesh):
  batch = make_batch()
  results = []
  for name in ("one", mesh):
    some = learner(name)
    state, metrics = some.update(fresh(some), parts_of(batch), scales_of(batch[0]))
    state, _ = some.update(state, parts_of(make_batch(seed=1)), scales_of(batch[0]))
    results.append((jax.device_get(state), metrics))
  (one, metrics), (eight, metrics8) = results
  assert_trees_close(eight.params, one.params, atol=1e-5)
  assert_trees_close(eight.opt_state, one.opt_state, atol=1e-5)
  assert metrics8 == pytest.approx(metrics, rel=1e-4, abs=1e-5)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params, random_params(TINY))
  assert min(jax.tree.leaves(moved)) > 1e-3  # every leaf was moved by a hundred times that tolerance


def test_how_the_batch_is_cut_into_microbatches_does_not_change_the_update():
  batch, some = make_batch(), learner()
  together, by_length = parts_of(batch), parts_of(batch, (8, 16))
  alone = [part for n in range(20) for part in parts_of(batch, (8, 16), nodes=[n])]
  assert (len(together), len(alone)) == (2, 20)
  assert {rows.tokens.shape for rows in by_length} == {rows.tokens.shape for rows in alone} == {(16, 8), (8, 16)}
  one, metrics = some.update(fresh(some), together, scales_of(batch[0]))
  for parts in (by_length, alone):
    other, metrics_of_other = some.update(fresh(some), parts, scales_of(batch[0]))
    assert_trees_close(other.params, one.params, atol=1e-5)
    assert metrics_of_other == pytest.approx(metrics, rel=1e-4)


def test_minibatches_share_the_normaliser_of_the_batch():
  # Gradients of two halves at the same parameters, each scaled by 2 / N, average to that of the whole.
  batch = make_batch()
  halves = normalisers("trajectory", 20, int(batch[0].sampled.sum()), 2)
  grads = [
    accumulated(learner(), parts_of(batch, nodes=np.array(nodes)), scales).grads
    for nodes, scales in [(range(20), scales_of(batch[0])), (range(7), halves), (range(7, 20), halves)]
  ]
  whole, first, second = grads
  assert_trees_close(jax.tree.map(lambda a, b: (a + b) / 2, first, second), whole, atol=1e-5)


def test_reinforce_with_advantage_one_is_cross_entropy():
  buffer, _, _ = make_batch()
  ones = np.ones(20, np.float32)
  scale = 1 / int(buffer.sampled.sum())
  some = learner()
  _, metrics = some.update(fresh(some), parts_of((buffer, ones, ones)), (scale, scale))
  logp = jax.jit(lambda params: log_probabilities(params, buffer))(random_params(TINY))
  nats = [
    -logp[n, i - 1, buffer.tokens[start + i]]
    for n, (start, length) in enumerate(zip(buffer.start, buffer.length))
    for i in np.flatnonzero(buffer.is_action[start : start + length])
  ]
  assert metrics["loss"] == pytest.approx(np.mean(nats), rel=1e-5)
  assert metrics["tokens"] == len(nats)


def test_update_that_is_not_finite_is_skipped_and_counted():
  batch = make_batch()
  some = learner()
  state = fresh(some)
  before = jax.device_get(state)
  bad = parts_of(batch)
  row, at = np.argwhere(bad[1].is_action)[-1]
  bad[1].advantage[row, at - 1] = np.inf  # read where the logits of the sampled token are
  state, metrics = some.update(state, bad, scales_of(batch[0]))
  assert metrics["finite"] == 0 and not np.isfinite(metrics["loss"])
  assert (int(state.updates), int(state.skipped)) == (0, 1)
  assert_trees_close(jax.device_get(state.params), before.params, rtol=0)
  assert_trees_close(jax.device_get(state.opt_state), before.opt_state, rtol=0)
  state, metrics = some.update(state, parts_of(batch), scales_of(batch[0]))
  assert metrics["finite"] == 1 and (int(state.updates), int(state.skipped)) == (1, 1)
  clean, _ = some.update(fresh(some), parts_of(batch), scales_of(batch[0]))
  assert_trees_close(state.params, clean.params, rtol=0)


@pytest.mark.parametrize("mesh", ["one", "data2_fsdp2_tensor2"])
def test_state_is_donated_and_keeps_its_layout(mesh):
  batch, some = make_batch(), learner(mesh)
  old = fresh(some)
  new, _ = some.update(old, parts_of(batch), scales_of(batch[0]))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves((old.params, old.opt_state)))
  jax.tree.map(
    lambda leaf, layout: leaf.sharding.is_equivalent_to(layout, leaf.ndim) or pytest.fail(), new, some.layout
  )
  with pytest.raises(RuntimeError, match="deleted"):
    np.asarray(old.params["embed"])
  some.update(new, parts_of(batch), scales_of(batch[0]))


def test_nothing_compiles_after_construction():
  batch, some = make_batch(), learner()
  state = fresh(some)
  some.update(fresh(some), parts_of(batch), scales_of(batch[0]))  # the means of the metrics are plain operations
  compiled = []
  listen = lambda event, seconds, **_: compiled.append(event) if event.startswith("/jax/core/compile/") else None
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    some.update(state, parts_of(batch), scales_of(batch[0]))
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert not compiled


def test_row_length_off_the_ladder_is_refused():
  with pytest.raises(KeyError):
    learner().update(fresh(learner()), parts_of(make_batch(), (32,), 128), (1.0, 1.0))


def test_microbatch_that_the_devices_cannot_share_is_refused_with_the_remedy():
  optimizer, schedule = adam()
  with pytest.raises(
    ValueError, match=r"tokens_per_microbatch=64 makes 4 rows of 16.*8 devices: use a multiple of 128"
  ):
    Learner(TINY, MESHES["data8"](), optimizer, schedule, REINFORCE, MASK, TEMPERATURE, (16,), 64)


def test_clipping_bounds_the_global_norm_of_what_adam_sees():
  optimizer, _ = adam(clip=0.5)
  params = {"q": jnp.zeros(4)}
  _, state = optimizer.update({"q": jnp.full(4, 3.0)}, optimizer.init(params), params)
  mu = optax.tree.get(state, "mu")["q"]
  np.testing.assert_allclose(mu, 0.1 * 0.25, rtol=1e-5)  # norm 6 to 0.5: each 3 becomes 0.25; times 1 - b1


def test_weight_decay_skips_norms_and_nothing_else():
  optimizer, schedule = adam(weight_decay=0.1)
  params = jax.tree.map(lambda x: x.reshape(-1)[:2], random_params(dataclasses.replace(TINY, qk_norm=True, tied=False)))
  updates, _ = optimizer.update(jax.tree.map(np.zeros_like, params), optimizer.init(params), params)

  def check(path, update, param):
    decayed = path[-1].key not in ("norm", "attn_norm", "mlp_norm", "q_norm", "k_norm")
    np.testing.assert_allclose(update, -float(schedule(0)) * 0.1 * param if decayed else 0 * param, rtol=1e-5)

  jax.tree_util.tree_map_with_path(check, updates, params)


def test_schedule_warms_up_in_equal_steps_and_falls_by_a_cosine():
  schedule = make_schedule(peak=1.0, warmup=3, total=11, final=0.1)
  # Halfway down the cosine lies the mean of 1 and 0.1; a quarter down, 0.55 + 0.45 cos(45 degrees).
  expected = {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0, 5: 0.55 + 0.45 * 0.5**0.5, 7: 0.55, 11: 0.1, 20: 0.1}
  for step, rate in expected.items():
    assert float(schedule(step)) == pytest.approx(rate, rel=1e-5), step


def test_schedule_without_warmup_starts_at_the_peak():
  assert float(make_schedule(peak=2.0, warmup=0, total=4, final=1.0)(0)) == 2.0


def test_warmup_as_long_as_the_run_is_refused():
  with pytest.raises(ValueError, match="warmup=4 updates must be fewer than the 4 updates there are"):
    make_schedule(1.0, 4, 4, 0.1)


@pytest.mark.parametrize("warmup", [0, 5])
def test_run_of_no_steps_has_a_schedule(warmup):
  schedule = make_schedule(0.5, warmup, 0, 0.1)  # config.steps = 0 is a warm start and an evaluation
  assert float(schedule(0)) == pytest.approx(0.5 / (warmup + 1))


def test_learning_rate_reported_is_the_one_used():
  some, batch = learner(), make_batch()
  state, rates = fresh(some), []
  for _ in range(3):
    state, metrics = some.update(state, parts_of(batch), scales_of(batch[0]))
    rates.append(metrics["lr"])
  np.testing.assert_allclose(rates, [1e-2 / 3, 2e-2 / 3, 1e-2], rtol=1e-5)


def test_moments_lie_with_their_parameters_and_a_fresh_optimizer_keeps_them():
  optimizer, _ = adam()
  rules = MESHES["data2_fsdp2_tensor2"]()
  layout = state_shardings(TINY, optimizer, rules)
  mu = optax.tree.get(layout.opt_state, "mu")
  assert jax.tree.map(lambda a, b: a == b, mu, layout.params) == jax.tree.map(lambda _: True, layout.params)
  some = learner("data2_fsdp2_tensor2")
  state, _ = some.update(fresh(some), parts_of(make_batch()), (1.0, 1.0))
  again = with_optimizer(state, optimizer, layout)
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(again.opt_state)) and int(again.updates) == 0
  assert again.params["embed"] is state.params["embed"]
