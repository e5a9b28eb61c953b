"""The training state: parameters and optimiser state, born sharded; the optimiser that moves them."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rao_jax.mesh import Rules
from rao_jax.policy.lora import trained
from rao_jax.policy.params import param_shardings
from rao_jax.policy.transformer import INPUT_AXES, PROJECTIONS, Params, PolicyConfig, init_params

OPTIMIZERS = ("adamw", "muon")
MUON_RMS = 0.2  # of an update with a learning rate of 1, about that of AdamW


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
  schedule: optax.Schedule, clip: float, b1: float, b2: float, eps: float, weight_decay: float, kind: str = "adamw"
) -> optax.GradientTransformation:
  """Clipping by the global norm, then AdamW or Muon, all in float32; norms (one axis beside layers) are not decayed.

  Muon orthogonalises the momentum of the layers' matrices and scales it as large as AdamW's updates are, so that both
  take the same learning rates (arXiv 2502.16982). What is no such matrix (embedding, norms, routers, adapters) has
  AdamW's update, with Nesterov momentum and undecayed.

  Args:
    kind: a name of OPTIMIZERS.
  """

  def decays(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: not path[-1].key.endswith("norm"), params)

  if kind == "muon":
    step = optax.contrib.muon(
      schedule, eps=eps, weight_decay=weight_decay, adam_b1=b1, adam_b2=b2, consistent_rms=MUON_RMS,
      muon_weight_dimension_numbers=_matrices,
    )  # fmt: skip
  else:
    step = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decays)
  return in_float32(optax.chain(optax.clip_by_global_norm(clip), step))


def _matrices(params: Params) -> Params:
  """Which axes of a projection are its matrix's inputs and outputs; None where there is no matrix."""

  def one(path, x):
    first = 1 + path[-1].key.startswith("expert_")  # axes before the matrix: layers, experts
    name = path[-1].key.removeprefix("expert_")
    if path[0].key != "blocks" or name not in PROJECTIONS:
      return None
    axes = range(first, first + INPUT_AXES.get(name, 1))
    return optax.contrib.MuonDimensionNumbers(tuple(axes), tuple(range(axes.stop, x.ndim)))

  return jax.tree_util.tree_map_with_path(one, params)


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
  places = dict(jax.tree_util.tree_leaves_with_path(layout))

  def place(path, _):  # a moment's path ends with that of its parameter
    return next((places[path[i:]] for i in range(len(path)) if path[i:] in places), rules.replicated)

  opt_layout = jax.tree_util.tree_map_with_path(place, jax.eval_shape(optimizer.init, shapes))
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
