"""FLOPs and traffic against counts by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES, Rules, make_mesh
from rao_jax.plan.costs import cost_of
from rao_jax.plan.programs import weight_ways
from rao_jax.policy.attention import attend
from rao_jax.policy.causal import attend_in_blocks, splash
from rao_jax.policy.experts import picked_experts
from rao_jax.policy.transformer import PolicyConfig, forward, init_params

L, B, D, F = 12, 8, 16, 32
MATMULS = 2 * B * D * F * 2  # of one layer: [B, D] x [D, F] and back


def flops(f, *shapes):
  return cost_of(jax.jit(f).trace(*shapes).jaxpr).flops


def array(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def layers(x, weights, remat=False):
  def layer(x, w):
    return jnp.sin(x @ w[0]) @ w[1], None

  return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, weights)[0].sum()


WEIGHTS = (array(L, D, F), array(L, F, D))


def test_scanned_layer_counts_for_every_time_it_runs():
  assert flops(layers, array(B, D), WEIGHTS) == L * MATMULS


def test_gradient_of_scanned_layers_is_three_forwards_and_four_with_remat():
  grad = lambda remat: functools.partial(jax.grad(layers, argnums=(0, 1)), remat=remat)
  assert flops(grad(False), array(B, D), WEIGHTS) == 3 * L * MATMULS
  # The second product of a layer need not be made again: nothing reads its result.
  assert flops(grad(True), array(B, D), WEIGHTS) == 3 * L * MATMULS + L * MATMULS / 2


def test_product_inside_shard_map_counts_on_every_device():
  mesh = make_mesh(data=4, tensor=2)
  f = jax.shard_map(
    lambda x, w: jax.lax.psum(x @ w, "tensor"),
    mesh=mesh,
    in_specs=(P("data", "tensor"), P("tensor")),
    out_specs=P("data"),
  )
  assert flops(f, array(B, D), array(D, F)) == 2 * B * D * F


def test_batched_product_counts_its_batch_and_a_branch_its_dearest():
  assert flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), array(3, 4, 5), array(3, 5, 6)) == 2 * 3 * 4 * 5 * 6
  pick = lambda p, a, b: jax.lax.cond(p, lambda: (a @ b).sum(), lambda: 0.0)
  assert flops(pick, array(dtype=jnp.bool_), array(4, 5), array(5, 6)) == 2 * 4 * 5 * 6


def test_ragged_product_counts_one_expert_a_row():
  N, k, E = 10, 2, 4
  up, down = array(E, D, F), array(E, F, D)
  f = lambda x, pick, weight, *experts: picked_experts(x, pick, weight, *experts, jax.nn.silu).sum()
  shapes = (array(N, D), array(N, k, dtype=jnp.int32), array(N, k), up, up, down)
  mixed = 2 * N * k * D  # the picked outputs, weighed and added
  assert flops(f, *shapes) == 3 * 2 * N * k * D * F + mixed
  grads = flops(jax.grad(f, argnums=(0, 3, 4, 5)), *shapes)
  assert grads == 3 * (3 * 2 * N * k * D * F) + 2 * mixed  # weight needs no gradient


def test_unknown_loop_and_kernel_are_named_not_hidden():
  f = lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)
  cost = cost_of(jax.jit(f).trace(array(4, 4)).jaxpr)
  assert cost.flops == 2 * 4**3 and cost.unknown == {"a while loop, counted once"}


def test_loop_that_may_end_early_counts_as_often_as_its_counter_allows():
  f = lambda x: jax.lax.while_loop(lambda c: (c[0] < 5) & (c[1].sum() < 9), lambda c: (c[0] + 1, c[1] @ c[1]), (0, x))
  cost = cost_of(jax.jit(f).trace(array(4, 4)).jaxpr)
  assert cost.flops == 5 * 2 * 4**3 and not cost.unknown


def qwen(**more):
  numbers = dict(vocab_size=64, layers=3, width=32, heads=4, kv_heads=2, head_size=8, mlp=64, qk_norm=True)
  return PolicyConfig(**numbers | more)


def matrices(config):
  """Parameters that every token is multiplied with: of experts those that it is sent to."""
  c = config
  mlp = 3 * c.width * c.mlp * (c.experts_per_token or 1) + c.width * c.experts
  attention = 2 * c.width * c.head_size * (c.heads + c.kv_heads)
  return c.layers * (attention + mlp) + c.width * c.vocab_size


def forward_flops(config, rows, length):
  params = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
  return flops(lambda p, t: forward(p, config, t), params, array(rows, length, dtype=jnp.int32))


def test_forward_of_the_transformer_is_two_flops_a_parameter_and_token_plus_attention():
  config, rows, length = qwen(), 2, 16
  attention = 4 * rows * length * length * config.heads * config.head_size * config.layers
  assert forward_flops(config, rows, length) == 2 * matrices(config) * rows * length + attention


def test_splash_counts_half_its_tiles_forward_and_the_scores_again_in_both_backward_kernels():
  rows, S, H, K, Q = 2, 256, 4, 2, 128
  q, k = array(rows, S, H, Q, dtype=jnp.bfloat16), array(rows, K, S, Q, dtype=jnp.bfloat16)
  segment = array(rows, S, dtype=jnp.int32)
  f = lambda q, k, v, segment: splash(q, k, v, segment, None).astype(jnp.float32).sum()
  product = 2 * rows * H * S * S * Q / 2
  assert flops(f, q, k, k, segment) == 2 * product
  row_sums = 2 * rows * H * S * Q  # of results times their gradients
  assert flops(jax.grad(f, argnums=(0, 1, 2)), q, k, k, segment) == (2 + 3 + 4) * product + row_sums


def test_attention_by_xla_counts_all_scores():
  B, S, H, K, Q = 2, 16, 4, 2, 8
  f = lambda q, k, v: attend(q, [(k.swapaxes(2, 3), v, jnp.tril(jnp.ones((1, S, S), bool)))])
  assert flops(f, array(B, S, H, Q), array(B, K, S, Q), array(B, K, S, Q)) == 2 * 2 * B * H * S * S * Q


def test_of_a_row_in_four_blocks_five_eighths_of_the_scores_are_worked_out():
  B, S, H, K, Q = 2, 1024, 4, 2, 8
  f = lambda q, k, v: attend_in_blocks(q, k, v, jnp.tril(jnp.ones((1, S, S), bool)))
  all_scores = 2 * 2 * B * H * S * S * Q
  assert flops(f, array(B, S, H, Q), array(B, K, S, Q), array(B, K, S, Q)) == all_scores * 5 / 8


# -- traffic ----------------------------------------------------------------------------------------------------------


def test_product_moves_its_operands_and_result_in_the_bytes_they_are_stored_in():
  f = lambda x, w: x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16).T
  cost = cost_of(jax.jit(f).trace(array(B, D), array(F, D)).jaxpr)
  assert cost.bytes == 4 * B * D + 4 * D * F + 2 * B * F


def test_weights_of_scanned_layers_are_read_once_each_by_every_device_that_needs_them():
  jaxpr = jax.jit(layers).trace(array(B, D), WEIGHTS).jaxpr
  one, four = cost_of(jaxpr).bytes, cost_of(jaxpr, [1, 4, 4]).bytes
  weights = 4 * L * 2 * D * F
  activations = 4 * L * (B * D + B * F + B * F + B * D)
  assert one == weights + activations and four == 4 * weights + activations


def test_experts_that_no_row_can_have_picked_are_not_read():
  rows, E = 3, 12
  f = lambda x, w, sizes: jax.lax.ragged_dot(x, w, sizes)
  shapes = array(rows, D), array(E, D, F), array(E, dtype=jnp.int32)
  sizes = 4 * E
  assert cost_of(jax.jit(f).trace(*shapes).jaxpr).bytes == 4 * (rows * D + rows * D * F + rows * F) + sizes


def test_cache_rows_that_are_gathered_and_updates_in_place_move_their_own_bytes_only():
  take = cost_of(jax.jit(lambda pool, rows: pool[rows]).trace(array(100, D), array(3, dtype=jnp.int32)).jaxpr)
  assert take.bytes == 2 * 4 * 3 * D
  put = cost_of(
    jax.jit(lambda pool, x: jax.lax.dynamic_update_slice(pool, x, (5, 0))).trace(array(100, D), array(2, D)).jaxpr
  )
  assert put.bytes == 2 * 4 * 2 * D


@pytest.mark.parametrize("table", [TRAIN_RULES, ROLLOUT_RULES])
def test_weights_split_over_fsdp_are_read_whole_and_those_split_over_tensor_in_parts(table):
  ways = weight_ways(qwen(), Rules.of(make_mesh(data=2, fsdp=2, tensor=2), table))
  assert (ways["q"], ways["gate"], ways["embed"], ways["attn_norm"]) == (2, 2, 2, 1)
  assert np.all([n <= 2 for n in ways.values()])
