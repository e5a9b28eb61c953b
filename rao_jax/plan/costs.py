"""FLOPs and memory traffic of a program, counted by a walk over its jaxpr that knows how often each loop runs.

The compilers' own analyses count the body of a scan once and a kernel not at all. Here a product counts
2 x rows x columns x inner for every time it runs, on all devices together; kernels are known by name. Traffic is what
products, gathers, updates in place and kernels read and write: elementwise work is taken as fused into them, and a
value that was only cast, reshaped or transposed since counts with the bytes it was stored in.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.extend import core

# Kernels of attention by the start of their name: matmuls [S, Q] x [Q, S], and whether tiles that the causal mask
# hides are skipped. Splash computes scores again in each backward kernel; cuDNN's has one.
ATTENTION = {
  "splash_mha_fwd": (2, True),
  "splash_mha_dq": (3, True),
  "splash_mha_dkv": (4, True),
  "dot_product_attention_fwd": (2, False),
  "dot_product_attention_bwd": (5, False),
}
VIEWS = ("convert_element_type", "reshape", "transpose", "broadcast_in_dim", "squeeze", "copy", "sharding_constraint")
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclasses.dataclass
class Cost:
  """Of all devices together. `unknown`: what was counted once or not at all."""

  flops: float = 0.0
  bytes: float = 0.0
  unknown: frozenset[str] = frozenset()

  def __add__(self, other: "Cost") -> "Cost":
    return Cost(self.flops + other.flops, self.bytes + other.bytes, self.unknown | other.unknown)

  def __mul__(self, times: float) -> "Cost":
    return Cost(self.flops * times, self.bytes * times, self.unknown)


@dataclasses.dataclass(frozen=True)
class Read:
  """A value: bytes that reading it once takes, and how many times over it is read by all devices together."""

  bytes: float
  copies: float = 1.0

  @property
  def traffic(self) -> float:
    return self.bytes * self.copies


def cost_of(jaxpr: core.ClosedJaxpr, copies: Sequence[float] | None = None) -> Cost:
  """Counts a traced program.

  Args:
    jaxpr: of a `jax.stages.Traced`.
    copies: for each argument, how many times it is read when all devices read what they need of it, e.g. 4 for
      weights that a mesh of 4 x 2 splits in two; 1 if left out.
  """
  inner = jaxpr.jaxpr
  copies = copies or [1.0] * len(inner.invars)
  return _walk(inner, [Read(size_of(v.aval), n) for v, n in zip(inner.invars, copies, strict=True)])


def size_of(aval) -> float:
  """Bytes of an array (keys of random numbers and other tokens count as nothing)."""
  try:
    return math.prod(aval.shape) * np.dtype(aval.dtype).itemsize
  except (TypeError, AttributeError):
    return 0.0


def _walk(jaxpr: core.Jaxpr, reads: Sequence[Read]) -> Cost:
  known: dict = dict(zip(jaxpr.invars, reads, strict=True))

  def read(atom) -> Read:
    if isinstance(atom, core.Literal):
      return Read(0.0)
    return known.get(atom) or Read(size_of(atom.aval))

  total = Cost()
  for eqn in jaxpr.eqns:
    ins = [read(atom) for atom in eqn.invars]
    if eqn.primitive.name in VIEWS:
      known[eqn.outvars[0]] = ins[0]
    total += _equation(eqn, ins)
  return total


def _equation(eqn: core.JaxprEqn, ins: list[Read]) -> Cost:
  name, params = eqn.primitive.name, eqn.params
  out = size_of(eqn.outvars[0].aval) if eqn.outvars else 0.0
  everything = sum(r.traffic for r in ins) + sum(size_of(v.aval) for v in eqn.outvars)
  if name == "dot_general":
    return Cost(_dot_flops(eqn), everything)
  if name.startswith("ragged_dot"):
    return Cost(_ragged_flops(eqn), everything - ins[1].traffic * _unread(eqn))
  if name == "scan":
    return _scan(eqn, ins)
  if name == "while":
    inner = params["body_jaxpr"].jaxpr
    body = _walk(inner, ins[params["cond_nconsts"] :])
    if most := _most_rounds(params["cond_jaxpr"].jaxpr):
      return body * most
    return body + Cost(unknown=frozenset({"a while loop, counted once"} if body.flops or body.bytes else ()))
  if name == "cond":
    branches = [_walk(branch.jaxpr, ins[1:]) for branch in params["branches"]]
    return max(branches, key=lambda cost: (cost.flops, cost.bytes))
  if name == "shard_map":
    inner, mesh = params["jaxpr"], params["mesh"]
    inner = getattr(inner, "jaxpr", inner)
    devices = math.prod(mesh.shape[axis] for axis in params.get("manual_axes", mesh.axis_names))
    return _walk(inner, [Read(size_of(v.aval)) for v in inner.invars]) * devices  # its shapes are of one device
  kernel = _kernel_name(eqn)
  if kernel is not None:
    return _kernel(kernel, eqn, everything)
  if name == "gather" or name == "dynamic_slice":
    return Cost(0.0, 2 * out)
  if name == "dynamic_update_slice":
    return Cost(0.0, 2 * size_of(eqn.invars[1].aval))
  if name.startswith("scatter"):
    return Cost(0.0, 3 * size_of(eqn.invars[2].aval))
  for key in CALLS:
    if key in params and hasattr(inner := getattr(params[key], "jaxpr", params[key]), "eqns"):
      return _walk(inner, ins)
  return Cost()


def _most_rounds(condition: core.Jaxpr) -> int:
  """How often a while loop runs at most, if its condition has a counter from 0 stay below a number; else 0."""
  limits = [
    int(eqn.invars[1].val)
    for eqn in condition.eqns
    if eqn.primitive.name == "lt" and isinstance(eqn.invars[1], core.Literal) and eqn.invars[0] in condition.invars
  ]
  return min(limits, default=0)


def _dot_flops(eqn: core.JaxprEqn) -> float:
  (contracted, _), _ = eqn.params["dimension_numbers"]
  return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)


def _ragged_flops(eqn: core.JaxprEqn) -> float:
  """Every row meets the matrix of one expert; and so, in its gradient, every row adds to one expert's."""
  numbers = eqn.params["ragged_dot_dimension_numbers"]
  (_, contracted), (_, batch) = numbers.dot_dimension_numbers
  shape, gone = eqn.invars[1].aval.shape, {*contracted, *batch, *numbers.rhs_group_dimensions}
  return 2.0 * math.prod(eqn.invars[0].aval.shape) * math.prod(n for i, n in enumerate(shape) if i not in gone)


def _unread(eqn: core.JaxprEqn) -> float:
  """Share of the experts that cannot have been picked, as there are fewer rows than experts."""
  groups = eqn.params["ragged_dot_dimension_numbers"].rhs_group_dimensions
  if not groups:
    return 0.0
  return max(1 - eqn.invars[0].aval.shape[0] / eqn.invars[1].aval.shape[groups[0]], 0.0)


def _scan(eqn: core.JaxprEqn, ins: list[Read]) -> Cost:
  consts, carry, length = (eqn.params[key] for key in ("num_consts", "num_carry", "length"))
  whole, slices = ins[: consts + carry], ins[consts + carry :]
  body = _walk(eqn.params["jaxpr"].jaxpr, [*whole, *(Read(r.bytes / max(length, 1), r.copies) for r in slices)])
  return body * length


def _kernel_name(eqn: core.JaxprEqn) -> str | None:
  if eqn.primitive.name == "pallas_call":
    info = eqn.params.get("name_and_src_info")
    return getattr(info, "name", None) or eqn.params.get("name") or "pallas_call"
  return eqn.primitive.name if eqn.primitive.name.startswith("dot_product_attention") else None


def _kernel(name: str, eqn: core.JaxprEqn, everything: float) -> Cost:
  found = next((value for start, value in ATTENTION.items() if name.startswith(start)), None)
  arrays = [
    v.aval.shape for v in eqn.invars if len(v.aval.shape) >= 3 and jax.numpy.issubdtype(v.aval.dtype, np.floating)
  ]
  if found is None or len(arrays) < 2:
    return Cost(0.0, everything, frozenset({f"kernel {name}, its FLOPs not counted"}))
  matmuls, skips = found
  queries, keys = arrays[:2]
  length = keys[-2] if name.startswith("splash") else keys[-3]  # [.., S, Q], or [B, S, K, Q]
  return Cost(matmuls * 2.0 * math.prod(queries) * length * (0.5 if skips else 1.0), everything)


def copies_of(ways: Mapping[str, int], paths: Sequence[tuple], devices: int) -> list[float]:
  """How many times all devices together read each argument: weights by `ways` that split them, the rest once.

  Args:
    ways: name of a parameter -> parts that it is read in.
    paths: key paths of the arguments, whose last key names a parameter.
    devices: of the mesh.
  """
  return [devices / ways.get(str(getattr(path[-1], "key", "")) if path else "", devices) for path in paths]
