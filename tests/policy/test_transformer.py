import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES
from rao_jax.policy.attention import attend
from rao_jax.policy.params import param_shardings
from rao_jax.policy.transformer import (
  forward,
  hidden_states,
  init_params,
  logits_of,
  packed_hidden,
)
from tests.tiny import TINY, eight_devices, random_params

forward_jit = jax.jit(forward, static_argnums=1)
packed_jit = jax.jit(packed_hidden, static_argnums=1)


def draw_tokens(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, TINY.vocab_size, shape).astype(np.int32)


def twin(params, config, tokens):
  """The forward of one sequence from its definition: float64, one head and one position at a time."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  norm = lambda x, scale: x / np.sqrt((x**2).mean() + config.norm_eps) * scale
  half = config.head_size // 2

  def turn(x, position):
    out = x.copy()
    for i in range(half):
      angle = position * config.rope_base ** (-i / half)
      a, b = x[i], x[i + half]
      out[i], out[i + half] = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
    return out

  stream = [params["embed"][token] for token in tokens]
  for number in range(config.layers):
    layer = jax.tree.map(lambda x, number=number: x[number], params["blocks"])
    keys, values = [], []
    for position, x in enumerate(stream):
      h = norm(x, layer["attn_norm"])
      keys.append([h @ layer["k"][:, j] for j in range(config.kv_heads)])
      values.append([h @ layer["v"][:, j] for j in range(config.kv_heads)])
      if config.qk_norm:
        keys[-1] = [norm(k, layer["k_norm"]) for k in keys[-1]]
      keys[-1] = [turn(k, position) for k in keys[-1]]
    after = []
    for position, x in enumerate(stream):
      h = norm(x, layer["attn_norm"])
      for head in range(config.heads):
        q, group = h @ layer["q"][:, head], head // (config.heads // config.kv_heads)
        if config.qk_norm:
          q = norm(q, layer["q_norm"])
        q = turn(q, position)
        weight = np.exp([q @ keys[t][group] / np.sqrt(config.head_size) for t in range(position + 1)])
        mixed = sum(w * values[t][group] for t, w in enumerate(weight / weight.sum()))
        x = x + mixed @ layer["o"][head]
      h = norm(x, layer["mlp_norm"])
      gate = h @ layer["gate"]
      after.append(x + (gate / (1 + np.exp(-gate)) * (h @ layer["up"])) @ layer["down"])
    stream = after
  head = params["embed"].T if config.tied else params["head"]
  return np.array([norm(x, params["norm"]) @ head for x in stream])


@pytest.mark.parametrize(
  "options",
  [dict(), dict(kv_heads=1, tied=False), dict(kv_heads=4, qk_norm=True), dict(qk_norm=True, tied=False)],
  ids=["tied", "one_key_head_untied", "qk_norm_tied", "qk_norm_untied"],
)
def test_forward_is_the_slow_twin(options):
  config = dataclasses.replace(TINY, **options)
  params, tokens = random_params(config), draw_tokens(2, 9)
  logits = forward_jit(params, config, tokens)
  expected = np.stack([twin(params, config, row) for row in tokens])
  assert np.abs(expected).max() > 1
  # Logits of size 10 and more: float32 leaves 1e-5 of that.
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_rotary_base_reaches_the_keys():
  tokens = draw_tokens(1, 9)
  config, other = TINY, dataclasses.replace(TINY, rope_base=100.0)
  params = random_params(config)
  expected = twin(params, other, tokens[0])
  np.testing.assert_allclose(forward_jit(params, other, tokens)[0], expected, atol=1e-5 * np.abs(expected).max())
  assert np.abs(forward_jit(params, config, tokens)[0] - expected).max() > 1e-2


def test_a_later_token_does_not_change_earlier_logits():
  params, tokens = random_params(TINY), draw_tokens(2, 12)
  changed = tokens.copy()
  changed[:, 7] = (changed[:, 7] + 1) % TINY.vocab_size
  a, b = (np.asarray(forward_jit(params, TINY, t)) for t in (tokens, changed))
  np.testing.assert_array_equal(a[:, :7], b[:, :7])
  assert np.all(np.abs(a[:, 7:] - b[:, 7:]).max(-1) > 1e-3)


def test_packed_sequences_do_not_see_each_other():
  params = random_params(TINY)
  lengths = [5, 3, 6]
  parts = [draw_tokens(n, seed=n) for n in lengths]
  segment = np.repeat([1, 2, 3, 0], [*lengths, 2])[None].astype(np.int32)
  position = np.concatenate([*map(np.arange, lengths), np.zeros(2, int)])[None].astype(np.int32)
  tokens = np.concatenate([*parts, [9, 9]])[None].astype(np.int32)
  packed = logits_of(params, packed_jit(params, TINY, tokens, segment, position))[0]
  assert np.isfinite(packed).all()
  at = 0
  for part in parts:
    alone = forward_jit(params, TINY, part[None])[0]
    np.testing.assert_allclose(packed[at : at + len(part)], alone, atol=1e-4)
    at += len(part)


def test_unrolling_and_recomputing_change_no_value_and_no_gradient():
  params, tokens = random_params(TINY), draw_tokens(2, 9)
  loss = lambda config, params: jax.nn.log_softmax(forward(params, config, tokens))[..., 0].mean()
  value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=1), static_argnums=0)
  value, grads = value_and_grad(TINY, params)
  value_with, grads_with = value_and_grad(dataclasses.replace(TINY, unroll=True, remat=True), params)
  np.testing.assert_allclose(value_with, value, rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads_with, grads)


def test_scan_hands_every_layer_its_own_parameters_and_cache():
  params, tokens = random_params(TINY), draw_tokens(1, 6)
  causal = np.tril(np.ones((1, 6, 6), bool))
  attention = lambda q, k, v, number, _: (attend(q, [(k.swapaxes(2, 3), v, causal)]), (number, k))

  @jax.jit
  def run(blocks):
    return hidden_states({**params, "blocks": blocks}, TINY, tokens, np.arange(6)[None], attention, np.arange(2))[1]

  order, keys = run(params["blocks"])
  np.testing.assert_array_equal(order, [0, 1])
  # Keys of layer 0 do not depend on the parameters of layer 1.
  _, changed = run(jax.tree.map(lambda x: np.concatenate([x[:1], x[1:] * 1.5]), params["blocks"]))
  np.testing.assert_array_equal(changed[0], keys[0])
  assert np.abs(changed[1] - keys[1]).max() > 1e-3


def test_bfloat16_activations_keep_float32_logits():
  config = dataclasses.replace(TINY, dtype="bfloat16")
  params, tokens = random_params(TINY), draw_tokens(1, 6)
  logits = forward_jit(params, config, tokens)
  assert logits.dtype == np.float32
  np.testing.assert_allclose(logits, forward_jit(params, TINY, tokens), atol=0.1)


def test_head_counts_that_do_not_divide_are_named():
  with pytest.raises(ValueError, match=r"policy\.heads=4 must be a multiple of policy\.kv_heads=3"):
    dataclasses.replace(TINY, kv_heads=3)


def test_odd_head_size_is_named():
  with pytest.raises(ValueError, match=r"policy\.head_size=7 must be even"):
    dataclasses.replace(TINY, head_size=7)


def test_parameters_lie_on_the_mesh_as_the_tables_say():
  config = dataclasses.replace(TINY, kv_heads=1, tied=False, qk_norm=True)
  layout = param_shardings(config, eight_devices(TRAIN_RULES, data=2, fsdp=2, tensor=2))
  spec = {name: s.spec for name, s in layout["blocks"].items()}
  assert layout["embed"].spec == P("tensor", "fsdp") and layout["head"].spec == P("fsdp", "tensor")
  assert spec["q"] == P(None, "fsdp", "tensor", None) and spec["o"] == P(None, "tensor", None, "fsdp")
  assert spec["k"] == spec["v"] == P(None, "fsdp", None, None)  # one key head: copied
  assert spec["gate"] == spec["up"] == P(None, "fsdp", "tensor") and spec["down"] == P(None, "tensor", "fsdp")
  assert all(spec[name] == P(None, None) for name in spec if name.endswith("norm"))
  rollout = param_shardings(config, eight_devices(ROLLOUT_RULES, data=2, fsdp=2, tensor=2))
  assert "fsdp" not in {axis for s in jax.tree.leaves(rollout) for axis in s.spec}


def test_parameters_born_sharded_are_the_unsharded_ones():
  layout = param_shardings(TINY, eight_devices(TRAIN_RULES, data=2, fsdp=2, tensor=2))
  # Unoptimised: seven random draws take LLVM seconds to compile.
  jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
  make = functools.partial(init_params, TINY)
  whole, split = jit(make)(jax.random.key(3)), jit(make, out_shardings=layout)(jax.random.key(3))
  jax.tree.map(np.testing.assert_array_equal, split, whole)
  assert split["blocks"]["q"].addressable_shards[0].data.shape == (2, 16, 2, 8)
  assert not np.array_equal(whole["blocks"]["q"][0], whole["blocks"]["q"][1])  # every layer has its own draw


def test_forward_on_a_mesh_is_the_forward_on_one_device():
  rules = eight_devices(TRAIN_RULES, data=2, fsdp=2, tensor=2)
  config = dataclasses.replace(TINY, kv_heads=1)
  params, tokens = random_params(config), draw_tokens(4, 9)
  segment, position = np.ones_like(tokens), np.broadcast_to(np.arange(9), (4, 9))
  alone = packed_jit(params, config, tokens, segment, position)
  placed = jax.device_put(params, param_shardings(config, rules))
  rows = [jax.device_put(x, rules.sharding(x.shape, ("rows", None))) for x in (tokens, segment, position)]
  meshed = jax.jit(packed_hidden, static_argnums=(1, 5))(placed, config, *rows, rules)
  np.testing.assert_allclose(meshed, alone, atol=1e-5)
