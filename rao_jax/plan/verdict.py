"""Compiles the programs of a plan for their target and weighs what each needs against the device's memory."""

import dataclasses
import re
import time
from collections.abc import Callable

import jax

from rao_jax.plan.programs import Plan, Program
from rao_jax.plan.targets import Target

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass
class Verdict:
  """What one program needs, bytes a device and seconds.

  Attributes:
    name: of the program.
    memory: bytes by KINDS, and `other`: temporaries, batch, code, padding of layouts.
    total: their sum; None where the compiler stopped for lack of memory and did not say how much it wanted.
    fits: whether `total` is within the device's memory.
    note: what the compiler said, if it refused.
    flops, bytes: of one call, a device.
    seconds: of one call, at the chip's peak rates, so at least.
    bound: which rate that is, compute or memory.
    calls: in a step.
    compile_seconds: of lowering and compiling, on this machine.
    unknown: what the count of FLOPs leaves out.
  """

  name: str
  memory: dict[str, float]
  total: float | None
  fits: bool
  note: str
  flops: float
  bytes: float
  seconds: float
  bound: str
  calls: float
  compile_seconds: float
  unknown: list[str]


def judge(program: Program, target: Target) -> Verdict:
  """Compiles one program."""
  devices, chip = len(target.devices), target.chip
  began, note = time.monotonic(), ""
  try:
    own = own_bytes(program.traced.lower().compile())
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    own, note = wanted_bytes(str(e)), str(e).split("\n")[0][:300]
  held = sum(program.resident.values())
  other = None if own is None else max(own - program.own, 0.0)
  total = None if other is None else held + other
  flops, traffic = program.cost.flops / devices, program.cost.bytes / devices
  times = {"compute": flops / chip.flops, "memory": traffic / chip.bandwidth}
  bound = max(times, key=times.get)
  return Verdict(
    program.name, program.resident | {"other": other}, total, not note and total <= chip.memory, note, flops, traffic,
    times[bound], bound, program.calls, time.monotonic() - began, sorted(program.cost.unknown),
  )  # fmt: skip


def own_bytes(compiled: jax.stages.Compiled) -> float:
  """Bytes a device that a program takes while it runs: arguments, results that are not donated, temporaries, code."""
  m = compiled.memory_analysis()
  return (
    m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes + m.temp_size_in_bytes
    + m.generated_code_size_in_bytes
  )  # fmt: skip


def wanted_bytes(message: str) -> float | None:
  """What the TPU compiler's out-of-memory error says that the program would have taken, its arguments included."""
  found = re.search(r"memory required for HLO temporaries \(([\d.]+)([KMGT]?)\)", message)
  return float(found[1]) * UNITS[found[2]] if found else None


def judge_all(plan: Plan, target: Target, say: Callable[[str], None]) -> list[Verdict]:
  verdicts = []
  for program in plan.programs:
    say(f"{target.name}: compiling {program.name}")
    verdicts.append(judge(program, target))
  return verdicts
