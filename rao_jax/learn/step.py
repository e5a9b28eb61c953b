"""The learning step: gradients summed over microbatches, one optimiser update. Jitted, sharded, donated.

Sums and counts stay apart until the end: a microbatch adds sums scaled by counts of the whole global batch, so how the
batch is cut into microbatches or spread over devices does not change the update.
"""

import functools
from collections.abc import Iterable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rao_jax.learn.losses import LossOptions, LossStats, means, merge, policy_gradient_loss, zero_stats
from rao_jax.learn.packing import PackedRows, microbatches, shift_targets
from rao_jax.learn.state import TrainState, abstract_state, state_shardings
from rao_jax.mesh import Rules, call
from rao_jax.policy.lora import frozen, join
from rao_jax.policy.params import abstract_params
from rao_jax.policy.prefix import Prefix, abstract_prefix, prefix_of, trace_prefix
from rao_jax.policy.scores import token_scores
from rao_jax.policy.transformer import Params, PolicyConfig, packed_hidden
from rao_jax.tree.buffer import TreeBuffer


@flax.struct.dataclass
class Accumulated:
  """Gradient sums and loss statistics of the microbatches so far."""

  grads: Params
  # Of the shared prefix's keys and values; `through_prefix` takes it on to the parameters.
  shared: Prefix | None
  loss: jax.Array
  stats: LossStats


def accumulate(
  params: Params, base: Params, acc: Accumulated, rows: PackedRows, scales: tuple, token_mask, temperature,
  reference: Params | None, shared: Prefix | None = None, reference_shared: Prefix | None = None, *,
  config: PolicyConfig, rules: Rules, options: LossOptions,
) -> Accumulated:  # fmt: skip
  """Adds one microbatch.

  Args:
    params: being trained.
    base: frozen parameters below them, {} if there are none; see policy/lora.py.
    acc: so far, donated.
    rows: [B, S] packed rows.
    scales: (policy_scale, token_scale) of `losses.normalisers`.
    token_mask: bool[V], as in the rollout.
    temperature: f32, as in the rollout.
    reference: what the reference policy has for params if options.kl_coefficient > 0, else None.
    shared, reference_shared: of these policies, the prefix that all sequences start with and the rows leave out; None
      if nothing is shared.
    config, rules: of the policy.
    options: which surrogate.
  """
  targets = shift_targets(rows)

  entropy = "train" if options.entropy_coefficient else "report" if options.report_entropy else "none"

  def scores(p, shared, entropy):
    p = join(base, p)
    hidden = packed_hidden(p, config, rows.tokens, rows.segment, rows.position, rules, shared)
    return token_scores(p, config, hidden, targets.token, token_mask, temperature, entropy, rules)

  def loss(p, shared):
    logp, spread = scores(p, shared, entropy)
    return policy_gradient_loss(
      logp, targets.behaviour_logp, targets.advantage, targets.weight, targets.is_action,
      spread, options, *scales,
      reference_logp=None
      if reference is None
      else jax.lax.stop_gradient(scores(reference, reference_shared, "none")[0]),
    )  # fmt: skip

  (value, stats), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, shared)
  sums = jax.tree.map(jnp.add, (acc.grads, acc.shared), grads)
  return Accumulated(*sums, acc.loss + value, merge(acc.stats, stats))


def through_prefix(
  params: Params, base: Params, acc: Accumulated, *, prefix: Sequence[int], config: PolicyConfig, rules: Rules
) -> Accumulated:
  """Adds what the parameters' gradient has by way of the shared prefix: one backward pass for all microbatches.

  Args:
    params, base, acc: as in `accumulate`.
    prefix: the shared tokens.
    config, rules: of the policy.
  """
  shared, back = jax.vjp(lambda p: prefix_of(join(base, p), prefix, config, rules), params)
  (grads,) = back(jax.tree.map(lambda x, like: x.astype(like.dtype), acc.shared, shared))
  return acc.replace(grads=jax.tree.map(jnp.add, acc.grads, grads))


def apply(
  state: TrainState, acc: Accumulated, *, optimizer: optax.GradientTransformation, schedule: optax.Schedule
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One optimiser update from the summed gradients; skipped, and counted, if they or it are not finite.

  Returns:
    (state, {"grad_norm": before clipping, "finite": whether the update was made, "lr": its learning rate}).
  """
  norm = optax.global_norm(acc.grads)
  updates, opt_state = optimizer.update(acc.grads, state.opt_state, state.params)
  finite = jnp.isfinite(norm) & jnp.isfinite(acc.loss) & jnp.isfinite(optax.global_norm(updates))
  moved = state.replace(
    params=optax.apply_updates(state.params, updates), opt_state=opt_state, updates=state.updates + 1
  )
  kept = state.replace(skipped=state.skipped + 1)
  new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), moved, kept)
  return new, {"grad_norm": norm, "finite": finite, "lr": schedule(state.updates)}


def trace_step(
  config: PolicyConfig, rules: Rules, optimizer: optax.GradientTransformation, schedule: optax.Schedule,
  options: LossOptions, row_lengths: Sequence[int], tokens_per_microbatch: int, prefix: Sequence[int] = (),
) -> dict[tuple[str, int], jax.stages.Traced]:  # fmt: skip
  """The programs of a step by (kind, row length or 0), traced for the devices of the mesh, which need not be here.

  `start` makes empty sums, `accumulate` adds a microbatch of a row length, `apply` makes the update. With a prefix that
  all sequences share, `prefix` comes first, and `through` before the update.
  """
  state, rep = abstract_state(config, optimizer, rules), rules.replicated
  layout = state_shardings(config, optimizer, rules)
  base, shared = frozen(abstract_params(config, rules), config), None
  if prefix:
    shared = abstract_prefix(config, len(prefix), rules)
  shared_layout = jax.tree.map(lambda x: x.sharding, shared)
  acc_layout = Accumulated(layout.params, shared_layout, rep, jax.tree.map(lambda _: rep, zero_stats()))
  zeros = functools.partial(jax.tree.map, lambda x: jnp.zeros(x.shape, jnp.float32))
  start = lambda: Accumulated(zeros(state.params), zeros(shared), jnp.zeros(()), zero_stats())
  acc = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), jax.eval_shape(start), acc_layout)
  scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=rep)
  mask = jax.ShapeDtypeStruct((config.vocab_size,), jnp.bool_, sharding=rep)
  reference = state.params if options.kl_coefficient else None
  add = jax.jit(
    functools.partial(accumulate, config=config, rules=rules, options=options),
    donate_argnums=2,
    out_shardings=acc_layout,
  )
  programs = {("start", 0): jax.jit(start, out_shardings=acc_layout).trace()}
  if prefix:
    programs["prefix", 0] = trace_prefix(join(base, state.params), prefix, config, rules)
    through = functools.partial(through_prefix, prefix=tuple(prefix), config=config, rules=rules)
    jitted = jax.jit(through, donate_argnums=2, out_shardings=acc_layout)
    programs["through", 0] = jitted.trace(state.params, base, acc)
  for S in row_lengths:
    B = tokens_per_microbatch // S
    if B < 1 or B % rules.ways("rows"):
      raise ValueError(
        f"learn.tokens_per_microbatch={tokens_per_microbatch} makes {B} rows of {S}, which cannot be split over "
        f"{rules.ways('rows')} devices: use a multiple of {S * rules.ways('rows')}"
      )
    field = lambda dtype: jax.ShapeDtypeStruct((B, S), dtype, sharding=rules.sharding((B, S), ("rows", None)))  # noqa: B023
    i32, f32 = field(jnp.int32), field(jnp.float32)
    rows = PackedRows(i32, i32, i32, field(jnp.bool_), f32, f32, f32)
    programs["accumulate", S] = add.trace(
      state.params, base, acc, rows, (scalar, scalar), mask, scalar, reference, shared, reference and shared
    )
  programs["apply", 0] = (
    jax.jit(
      functools.partial(apply, optimizer=optimizer, schedule=schedule), donate_argnums=0, out_shardings=(layout, rep)
    ).trace(state, acc)
  )  # fmt: skip
  return programs


class Learner:
  """The compiled step for a ladder of microbatch shapes.

  Args:
    config: of the policy.
    rules: the training rule table over the mesh.
    optimizer: optax transformation; schedule: its learning rate, to be reported.
    options: the loss.
    token_mask: bool[V], tokens that may be sampled.
    temperature: of the sampling distribution.
    row_lengths: S of the microbatches.
    tokens_per_microbatch: B = tokens_per_microbatch // S rows, the same number of tokens whatever S.
    base: frozen parameters of a policy with adapters.
    prefix: tokens that all sequences start with: worked once an update, rows hold what follows.
  """

  def __init__(
    self,
    config: PolicyConfig,
    rules: Rules,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    options: LossOptions,
    token_mask: np.ndarray,
    temperature: float,
    row_lengths: tuple[int, ...],
    tokens_per_microbatch: int,
    base: Params | None = None,
    prefix: Sequence[int] = (),
  ):
    self.row_lengths, self.tokens_per_microbatch = tuple(sorted(row_lengths)), tokens_per_microbatch
    self._token_mask = rules.replicate(token_mask)
    self._temperature = np.float32(temperature)
    self.optimizer, self._base = optimizer, base or {}
    self.layout = state_shardings(config, optimizer, rules)
    self.abstract = abstract_state(config, optimizer, rules)
    self._prefix = np.asarray(prefix, np.int32)
    traced = trace_step(config, rules, optimizer, schedule, options, self.row_lengths, tokens_per_microbatch, prefix)
    self.programs = {name: one.lower().compile() for name, one in traced.items()}

  def microbatches(
    self, buffer: TreeBuffer, nodes: np.ndarray, advantage: np.ndarray, weight: np.ndarray,
    rng: np.random.Generator | None = None,
  ) -> list[PackedRows]:  # fmt: skip
    """Nodes in rows of this step's shapes; arguments as in `packing.microbatches`."""
    P = len(self._prefix)
    starts = buffer.start[nodes][:, None] + np.arange(P)
    if not (buffer.tokens[starts] == self._prefix).all() or (buffer.length[nodes] <= P).any():
      raise ValueError(f"not all nodes start with the {P} tokens of the shared prefix: set config.share_prefix=none")
    return microbatches(buffer, nodes, advantage, weight, self.row_lengths, self.tokens_per_microbatch, rng, skip=P)

  def update(
    self, state: TrainState, parts: Iterable[PackedRows], scales: tuple, reference: Params | None = None
  ) -> tuple[TrainState, dict[str, float]]:
    """One update from the microbatches of a minibatch. The state is donated: use the one returned.

    Returns:
      (state, metrics of the loss by name).
    """
    scales = tuple(np.float32(s) for s in scales)
    acc = self.programs["start", 0]()
    shared = [None if p is None else self._shared(p) for p in (state.params, reference)]
    for rows in parts:
      program = self.programs["accumulate", rows.tokens.shape[1]]
      acc = call(
        program, state.params, self._base, acc, rows, scales, self._token_mask, self._temperature, reference, *shared
      )
    if len(self._prefix):
      acc = self.programs["through", 0](state.params, self._base, acc)
    stats, loss = jax.device_get((acc.stats, acc.loss))
    state, applied = self.programs["apply", 0](state, acc)
    metrics = {"loss": loss, "tokens": stats.tokens, **means(stats), **jax.device_get(applied)}
    return state, {name: float(value) for name, value in metrics.items()}

  def _shared(self, params: Params) -> Prefix | None:
    return self.programs["prefix", 0](join(self._base, params)) if len(self._prefix) else None


class FiniteGuard:
  """Stops a run whose updates are skipped `limit` times in a row for not being finite."""

  def __init__(self, limit: int):
    self._limit, self.in_a_row = limit, 0

  def count(self, metrics: dict[str, float]) -> None:
    """Takes in the metrics of an update."""
    self.in_a_row = 0 if metrics["finite"] else self.in_a_row + 1

  def check(self, where: str, rate: str) -> None:
    """Raises if the last update was one too many."""
    if self.in_a_row >= self._limit:
      raise FloatingPointError(
        f"{where}: gradients were not finite {self.in_a_row} times in a row, the updates were skipped: lower {rate}, "
        "or go on from an earlier checkpoint"
      )
