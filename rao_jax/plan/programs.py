"""The programs of a run, traced for devices that need not be here, and the arrays that lie beside them in memory."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rao_jax.config import loss_options, policy_config, validate
from rao_jax.learn.state import abstract_state, make_optimizer, make_schedule
from rao_jax.learn.step import trace_step
from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES, Rules, make_mesh
from rao_jax.plan.costs import Cost, copies_of, cost_of
from rao_jax.policy.cache import pool_shape, pool_sharding, slots_within
from rao_jax.policy.lora import frozen, trained
from rao_jax.policy.params import abstract_params, cast_params, param_shardings
from rao_jax.policy.transformer import PolicyConfig
from rao_jax.rollout.programs import abstract_used_params, trace_rollout

KINDS = ("parameters", "optimiser", "gradients", "cache")  # of arrays that outlive a program
# Arrays, and the kind of each: those of training (params are trained, base frozen below adapters), the same as a
# rollout reads them, and the rest.
ARRAYS = {
  "params": "parameters", "base": "parameters", "used": "parameters", "used_base": "parameters",
  "optimiser": "optimiser", "gradients": "gradients", "cache": "cache",
}  # fmt: skip
ALWAYS = {"params", "base", "used_base", "optimiser", "cache"}
# What programs take and give; of all that is held while one runs, only `used` and `gradients` come and go.
OWN = {
  "reshard": {"params", "used"},
  "prefill": {"used", "used_base", "cache"},
  "extend": {"used", "used_base", "cache"},
  "decode": {"used", "used_base", "cache"},
  "gradients": {"params", "base", "gradients"},
  "optimiser": {"params", "optimiser", "gradients"},
}


@dataclasses.dataclass
class Parts:
  """A config on devices.

  Attributes:
    policy, mesh: of the run.
    train, rollout: rule tables over the mesh.
    optimizer, schedule: of the policy gradient.
    slots, length: of the cache pool.
  """

  policy: PolicyConfig
  mesh: jax.sharding.Mesh
  train: Rules
  rollout: Rules
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  slots: int
  length: int


@dataclasses.dataclass
class Program:
  """One program of the run.

  Attributes:
    kind: key of OWN.
    name: kind and shape.
    traced: not lowered yet.
    cost: of one call, all devices together.
    resident: bytes a device of each of KINDS while it runs, its own arguments and results included.
    own: of `resident`, the bytes that are its arguments or results.
    calls: in one step of the plan.
  """

  kind: str
  name: str
  traced: jax.stages.Traced
  cost: Cost
  resident: dict[str, float]
  own: float
  calls: float


@dataclasses.dataclass
class Plan:
  parts: Parts
  parameters: int
  tokens: int  # a step
  programs: list[Program]


def policy_of(config: ConfigDict) -> PolicyConfig:
  """The policy, without its tokenizer or weights: only a run that trains its own tokenizer must say how large it is."""
  p = config.policy
  if not (p.preset or p.path or p.vocab_size):
    raise ValueError(
      "a plan has no tokenizer to count: set --config.policy.vocab_size (rows of the embedding), or a preset"
    )
  return policy_config(config, 0)


def check(config: ConfigDict) -> None:
  """Refuses what a run would refuse, but for tokenizer and weights, which a plan does without."""
  config = config.copy_and_resolve_references()
  config.protocol, config.chat.system, config.policy.path = "compact", "", ""
  validate(config)


def parts_of(config: ConfigDict, devices: Sequence[jax.Device]) -> Parts:
  check(config)
  c, r, mesh = config.learn, config.rollout, make_mesh(**config.mesh.to_dict(), devices=devices)
  train, rollout = Rules.of(mesh, TRAIN_RULES), Rules.of(mesh, ROLLOUT_RULES)
  schedule = make_schedule(c.rate, c.warmup, config.steps * c.minibatches, c.final)
  optimizer = make_optimizer(schedule, c.clip, c.b1, c.b2, c.eps, c.weight_decay)
  policy, length = policy_of(config), max(r.cache_ladder)
  slots = slots_within(policy, r.slots, length, config.cache.bytes, rollout) + rollout.ways("rows")  # for padding
  return Parts(policy, mesh, train, rollout, optimizer, schedule, slots, length)


def held_bytes(parts: Parts) -> dict[str, float]:
  """Bytes a device of each of ARRAYS."""
  policy, slots, length = parts.policy, parts.slots, parts.length
  state = abstract_state(policy, parts.optimizer, parts.train)
  used = abstract_used_params(policy, parts.rollout)
  where = pool_sharding(policy, slots, length, parts.rollout)
  arrays = dict(
    params=state.params,
    base=frozen(abstract_params(policy, parts.train), policy),
    used=trained(used, policy),
    used_base=frozen(used, policy),
    optimiser=state.opt_state,
    gradients=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), state.params),
    cache=[
      jax.ShapeDtypeStruct(pool_shape(policy, slots, length), policy.dtype, sharding=s) for s in (where.k, where.v)
    ],
  )
  return {name: bytes_of(arrays[name]) for name in ARRAYS}


def bytes_of(tree: Any) -> float:
  """Bytes that a pytree of ShapeDtypeStructs with shardings takes on a device."""
  one = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * jnp.dtype(x.dtype).itemsize
  return float(sum(one(x) for x in jax.tree.leaves(tree)))


def resident(held: dict[str, float], kind: str) -> dict[str, float]:
  """Bytes a device of each of KINDS while a program of a kind runs."""
  here = ALWAYS | OWN[kind]
  return {k: sum(held[name] for name in here if ARRAYS[name] == k) for k in KINDS}


def surely_too_much(parts: Parts, memory: float) -> str | None:
  """A kind of program whose arrays alone, without temporaries, are beyond the memory, if there is one."""
  held = held_bytes(parts)
  return next((kind for kind in OWN if sum(resident(held, kind).values()) > memory), None)


def make_plan(config: ConfigDict, parts: Parts, tokens_per_tree: int) -> Plan:
  """Traces the programs of a run: those with the widest batch, the longest cache and the longest rows.

  Args:
    config: of the run; parts: of it.
    tokens_per_tree: that a tree feeds and samples, by which the calls of a step are counted.
  """
  r, c, policy = config.rollout, config.learn, parts.policy
  few, rows, S, length = min(r.row_ladder), max(r.row_ladder), max(c.row_lengths), parts.length
  held = held_bytes(parts)
  tokens = sum(config.tasks.train.values()) * config.rollouts_per_task * tokens_per_tree
  microbatches = max(math.ceil(tokens / c.tokens_per_microbatch), c.minibatches)

  steps = trace_step(
    policy, parts.train, parts.optimizer, parts.schedule, loss_options(config), (S,), c.tokens_per_microbatch
  )
  slices = trace_rollout(
    policy, parts.rollout, 0, sorted({few, rows}), (length,), r.steps, r.least_busy, r.chunk, parts.slots
  )
  state = abstract_state(policy, parts.optimizer, parts.train)
  where = trained(param_shardings(policy, parts.rollout), policy)
  reshard = jax.jit(functools.partial(cast_params, config=policy), out_shardings=where).trace(state.params)

  def program(kind: str, shape: str, traced: jax.stages.Traced, calls: float, rules: Rules, extra: float = 0.0):
    """`extra`: bytes that elementwise work moves on a device, which the walk over the jaxpr leaves out."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(traced.args_info)[0]]
    cost = cost_of(traced.jaxpr, copies_of(weight_ways(policy, rules), paths, parts.mesh.size))
    own = sum(held[name] for name in OWN[kind])
    cost += Cost(bytes=extra * parts.mesh.size)
    return Program(kind, f"{kind} {shape}".strip(), traced, cost, resident(held, kind), own, calls)

  train, rollout = parts.train, parts.rollout
  programs = [
    program("reshard", "", reshard, 1, rollout, held["params"] + held["used"]),
    program("prefill", f"{few} x {r.chunk}", slices["prefill", few, r.chunk], 0, rollout),
    program("extend", f"{few} x {r.chunk}, cache {length}", slices["extend", few, length], 0, rollout),
    program(
      "decode", f"{rows} x {r.steps}, cache {length}", slices["decode", rows, length],
      math.ceil(tokens / (rows * r.steps)), rollout,
    ),
    program(
      "gradients", f"{c.tokens_per_microbatch // S} x {S}", steps["accumulate", S], microbatches, train,
      2 * held["gradients"],
    ),
    program(
      "optimiser", "", steps["apply", 0], c.minibatches, train,
      2 * (held["params"] + held["optimiser"]) + held["gradients"],
    ),
  ]  # fmt: skip
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(abstract_params(policy, rollout)))
  return Plan(parts, count, tokens, programs)


def weight_ways(policy: PolicyConfig, rules: Rules) -> dict[str, int]:
  """In how many parts each parameter is read, by its name: what splits rows too (fsdp) is gathered before use."""
  split_rows = dict(rules.table)["rows"]

  def ways(sharding: jax.sharding.NamedSharding) -> int:
    axes = [a for part in sharding.spec if part for a in ((part,) if isinstance(part, str) else part)]
    return math.prod(rules.mesh.shape[a] for a in axes if a not in split_rows)

  leaves = jax.tree_util.tree_flatten_with_path(param_shardings(policy, rules))[0]
  return {path[-1].key: ways(sharding) for path, sharding in leaves}
