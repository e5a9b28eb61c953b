"""A plan as text and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rao_jax.plan.programs import KINDS, Plan
from rao_jax.plan.remedies import Remedy
from rao_jax.plan.targets import Target
from rao_jax.plan.verdict import Verdict

GiB = 2**30

LIMITS = {
  "tpu": (
    "Compiled by the TPU compiler, which checks memory; never run. Not shown: speed (times are lower bounds from peak "
    "rates, without collectives, elementwise work and the host), numerics."
  ),
  "cuda": (
    "Compiled for sm_90a without a GPU; never run. Not shown: memory as the GPU would see it (the compiler does not "
    "check it: these are its buffer sizes, without autotuned workspaces, cuDNN's and NCCL's), speed (times are lower "
    "bounds from peak rates, without collectives, elementwise work and the host), numerics."
  ),
}


def text(name: str, plan: Plan, target: Target, verdicts: Sequence[Verdict]) -> str:
  """The table of one target, GiB and figures of one device."""
  mesh = " ".join(f"{axis}={size}" for axis, size in plan.parts.mesh.shape.items() if size > 1) or "one device"
  head = [
    f"{name} on {target.name}: {target.size}, mesh {mesh}; {plan.parameters:,} parameters; {plan.tokens:,} tokens a "
    f"step; {target.chip.memory / GiB:.2f} GiB a device",
    "",
  ]
  columns = [
    "program", *KINDS, "other", "total", "fits", "TFLOP", "GB moved", "ms", "bound by", "calls", "s a step",
    "compile s",
  ]  # fmt: skip
  rows = []
  for v in verdicts:
    memory = [gib(v.memory[kind]) for kind in (*KINDS, "other")]
    rows.append([
      v.name, *memory, gib(v.total), "yes" if v.fits else "NO", f"{v.flops / 1e12:.3g}", f"{v.bytes / 1e9:.3g}",
      f"{v.seconds * 1e3:.3g}", v.bound, f"{v.calls:,.0f}" if v.calls else "-",
      f"{v.seconds * v.calls:.3g}" if v.calls else "-", f"{v.compile_seconds:.0f}",
    ])  # fmt: skip
  lines = [*head, *markdown(columns, rows), ""]
  step = lambda field: sum(getattr(v, field) * v.calls for v in verdicts)
  lines.append(
    f"A step: {step('flops') / 1e12:,.0f} TFLOP and {step('bytes') / 1e9:,.0f} GB a device, {step('seconds'):,.0f} s "
    "at least. Prefill and extend are not in it: all tokens are counted as decoded, in full batches with the longest "
    "cache."
  )
  lines += [f"{v.name}: the compiler says: {v.note}" for v in verdicts if v.note]
  lines += [f"{v.name}: not in its FLOPs: {', '.join(v.unknown)}" for v in verdicts if v.unknown]
  return "\n".join([*lines, LIMITS[target.chip.platform]])


def gib(size: float | None) -> str:
  return "?" if size is None else f"{size / GiB:.2f}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table, the first column to the left, the others to the right."""
  width = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
  line = lambda row: (
    "| " + " | ".join(c.ljust(w) if not i else c.rjust(w) for i, (c, w) in enumerate(zip(row, width))) + " |"
  )
  rule = "|" + "|".join("-" * (w + 1) + ("-" if not i else ":") for i, w in enumerate(width)) + "|"
  return [line(columns), rule, *map(line, rows)]


def remedy_text(remedy: Remedy | list[str]) -> str:
  if isinstance(remedy, Remedy):
    worst = max(v.total for v in remedy.verdicts)
    fits = f"It fits with {remedy.words} (at most {gib(worst)} GiB a device, by compiling every program)."
    return "\n".join([fits, *(f"  before it: {line}" for line in remedy.tried)])
  return "\n".join(["Nothing on the list makes it fit. Tried:", *(f"  {line}" for line in remedy)])


def as_json(
  plan: Plan, target: Target, verdicts: Sequence[Verdict], remedy: Remedy | list[str] | None
) -> dict[str, Any]:
  """What `text` says, in bytes, FLOPs and seconds of a device."""
  out = {
    "topology": target.name,
    "devices": len(target.devices),
    "chip": dataclasses.asdict(target.chip),
    "mesh": dict(plan.parts.mesh.shape),
    "parameters": plan.parameters,
    "tokens_per_step": plan.tokens,
    "programs": [dataclasses.asdict(v) for v in verdicts],
    "fits": all(v.fits for v in verdicts),
    "not_shown": LIMITS[target.chip.platform],
  }
  if isinstance(remedy, Remedy):
    out["remedy"] = {"settings": remedy.settings, "tried": remedy.tried}
  elif remedy:
    out["remedy"] = {"settings": None, "tried": remedy}
  return out
