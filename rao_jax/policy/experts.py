"""The mixture of experts: a router picks a few of a layer's mlps for each token; no token is dropped.

On TPU tokens are sorted by expert and multiplied in one ragged product, so an expert takes as many as come to it. For
CPU and CUDA XLA makes of such a product one of masked copies of all tokens, one copy an expert (three to seven times
slower on CPU; for H100 60 times the memory at 64 experts): there every expert sees every token. Under a mesh every
device works on the rows that it holds, with a share of every expert's mlp axis and, if `expert` splits them, a share of
the experts; what tokens get from the others' experts is summed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rao_jax.mesh import Rules


def mixture(
  x: jax.Array, router: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array, per_token: int, normalise: bool,
  activation: Callable, rules: Rules | None,
) -> jax.Array:  # fmt: skip
  """sum_{e in top(p)} p[e] mlp_e(x), p = softmax(x router) in float32.

  Args:
    x: [B, P, D].
    router: [D, E].
    gate, up: [E, D, F]; down: [E, F, D].
    per_token: experts picked for a token.
    normalise: the picked p are divided by their sum.
    activation: of the gate.
    rules: sharding rules; None for one device.
  Returns:
    [B, P, D].
  """
  platform = rules.mesh.devices.flat[0].platform if rules else jax.default_backend()
  product = picked_experts if platform == "tpu" else every_expert

  def local(x, router, *experts, first=0):
    flat = x.reshape(-1, x.shape[-1])
    p = jax.nn.softmax(jnp.matmul(flat, router, preferred_element_type=jnp.float32))
    weight, pick = jax.lax.top_k(p, per_token)
    if normalise:
      weight = weight / weight.sum(-1, keepdims=True)
    return product(flat, pick - first, weight, *experts, activation).reshape(x.shape)

  if rules is None:
    return local(x, router, gate, up, down).astype(x.dtype)
  rows = rules.spec(x.shape, ("rows", None, None))
  widening, narrowing = (
    rules.spec(gate.shape, ("experts", None, "mlp")),
    rules.spec(down.shape, ("experts", "mlp", None)),
  )
  split, by_expert = (dict(rules.table)[axis] for axis in ("mlp", "experts"))

  def share(x, router, gate, up, down):
    first = jax.lax.axis_index(by_expert) * gate.shape[0]
    return jax.lax.psum(local(x, router, gate, up, down, first=first), (split, by_expert))

  run = jax.shard_map(
    share,
    mesh=rules.mesh,
    in_specs=(rows, PartitionSpec(), widening, widening, narrowing),
    out_specs=rows,
  )
  return run(x, router, gate, up, down).astype(x.dtype)


def picked_experts(x, pick, weight, gate, up, down, activation):
  """sum_j weight[n, j] mlp_{pick[n, j]}(x[n]), each token times its own experts only.

  Args:
    x: [N, D].
    pick: i32[N, k], what is no index of gate adds nothing; weight: f32[N, k].
    gate, up, down, activation: as in `mixture`.
  Returns:
    f32[N, D].
  """
  experts = gate.shape[0]
  expert = jnp.where((pick >= 0) & (pick < experts), pick, experts).reshape(-1)
  order = jnp.argsort(expert)
  sizes = jnp.bincount(expert, length=experts)  # without those elsewhere, whose rows come last
  here = (expert[order] < experts)[:, None]
  rows = jnp.where(here, x[order // pick.shape[1]], 0)
  h = activation(jax.lax.ragged_dot(rows, gate, sizes)) * jax.lax.ragged_dot(rows, up, sizes)
  out = jnp.where(here, jax.lax.ragged_dot(h, down, sizes, preferred_element_type=jnp.float32), 0)
  out = out[jnp.argsort(order)].reshape(*pick.shape, -1)
  return jnp.einsum("nkd,nk->nd", out, weight)


def every_expert(x, pick, weight, gate, up, down, activation):
  """What `picked_experts` gives, by all tokens times all experts, one expert after the other."""

  experts = jnp.arange(gate.shape[0])
  shares = jnp.where(pick == experts[:, None, None], weight, 0).sum(-1)  # [E, N]

  def add(total, expert):
    share, gate, up, down = expert
    h = activation(x @ gate) * (x @ up)
    return total + share[:, None] * jnp.matmul(h, down, preferred_element_type=jnp.float32), None

  zero = 0.0 * (x + down[0, 0]).astype(jnp.float32)  # varies over the mesh as the sum will
  return jax.lax.scan(add, zero, (shares, gate, up, down))[0]
