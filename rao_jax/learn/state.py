"""The training state: parameters and optimiser state, born sharded; the optimiser that moves them."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rao_jax.mesh import Rules
from rao_jax.policy.lora import trained
from rao_jax.policy.params import param_shardings
from rao_jax.policy.transformer import Params, PolicyConfig, init_params


@flax.struct.dataclass
class TrainState:
  """Parameters that are trained, optimiser state, and how many updates were made or skipped for not being finite."""

  params: Params
  opt_state: optax.OptState
  updates: jax.Array  # i32
  skipped: jax.Array  # i32


def make_schedule(peak: float, warmup: int, total: int, final: float) -> optax.Schedule:
  """Linear warm-up to `peak` over `warmup` updates, then a cosine down to `final * peak` at update `total`.

  With a total of 0 (a warm start and an evaluation) no update takes a rate, and any warm-up will do.
  """
  if warmup < 0 or 0 < total <= warmup:
    raise ValueError(f"warmup={warmup} updates must be fewer than the {total} updates there are: lower it")
  return optax.warmup_cosine_decay_schedule(
    init_value=peak / (warmup + 1),
    peak_value=peak,
    warmup_steps=warmup,
    decay_steps=max(total, warmup + 1),
    end_value=final * peak,
  )


def make_optimizer(
  schedule: optax.Schedule, clip: float, b1: float, b2: float, eps: float, weight_decay: float
) -> optax.GradientTransformation:
  """Clipping by the global norm, then AdamW, all in float32; norms (one axis beside the layers) are not decayed."""

  def decays(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: not path[-1].key.endswith("norm"), params)

  return in_float32(
    optax.chain(
      optax.clip_by_global_norm(clip),
      optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decays),
    )
  )


def in_float32(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """The same optimiser with state and updates in float32, whatever the dtype of parameters and gradients."""
  cast = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float32))
  return optax.GradientTransformation(
    lambda params: optimizer.init(cast(params)),
    lambda grads, state, params: optimizer.update(cast(grads), state, cast(params)),
  )


def state_shardings(config: PolicyConfig, optimizer: optax.GradientTransformation, rules: Rules) -> TrainState:
  """The sharding of every leaf of the state: optimiser moments lie where their parameters lie."""
  layout = trained(param_shardings(config, rules), config)
  shapes = trained(jax.eval_shape(functools.partial(init_params, config), jax.random.key(0)), config)
  opt_layout = optax.tree.map_params(
    optimizer,
    lambda _, sharding: sharding,
    jax.eval_shape(optimizer.init, shapes),
    layout,
    transform_non_params=lambda _: rules.replicated,
  )
  return TrainState(layout, opt_layout, rules.replicated, rules.replicated)


def init_state(
  config: PolicyConfig, optimizer: optax.GradientTransformation, rules: Rules, key: jax.Array
) -> TrainState:
  """A fresh state; no leaf ever exists unsharded."""
  make = functools.partial(_fresh_state, config, optimizer)
  return jax.jit(make, out_shardings=state_shardings(config, optimizer, rules))(key)


def abstract_state(config: PolicyConfig, optimizer: optax.GradientTransformation, rules: Rules) -> TrainState:
  """Shapes, dtypes and shardings of the state: what a checkpoint is restored onto."""
  shapes = jax.eval_shape(functools.partial(_fresh_state, config, optimizer), jax.random.key(0))
  layout = state_shardings(config, optimizer, rules)
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout)


def _fresh_state(config, optimizer, key):
  params = trained(init_params(config, key), config)
  return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def with_optimizer(state: TrainState, optimizer: optax.GradientTransformation, layout: TrainState) -> TrainState:
  """The same parameters with a fresh optimiser: the policy-gradient stage does not inherit the warm start's moments."""
  fresh = jax.jit(optimizer.init, out_shardings=layout.opt_state)(state.params)
  counts = [jax.device_put(jnp.zeros((), jnp.int32), where) for where in (layout.updates, layout.skipped)]
  return TrainState(state.params, fresh, *counts)
