"""What the processes of a run tell each other: small vectors of integers to agree on, bytes, and failures. Impure.

Every process runs the same program and meets the others in the same places. Between two such places each works alone,
and may fail alone: the next place tells the others, so that all end there and nobody waits for ever. In a run of one
process nothing here touches a device.
"""

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BLOCK = 1 << 16  # bytes of one gathering; longer messages take several
HEARTBEAT = 100  # seconds of silence after which a process counts as dead, by default


class PeerFailed(RuntimeError):
  """Another process failed, and this one ends with it."""


def first() -> bool:
  """Whether this process writes the files and prints the lines."""
  return jax.process_index() == 0


@functools.cache
def _gatherer(size: int) -> tuple[NamedSharding, jax.stages.Compiled]:
  """The program that gives every process the `size` bytes of each."""
  firsts = {device.process_index: device for device in reversed(jax.devices())}
  devices = np.array([firsts[p] for p in sorted(firsts)])
  mesh = Mesh(devices, ("process",), axis_types=(AxisType.Auto,))
  split, whole = (NamedSharding(mesh, PartitionSpec(axis)) for axis in ("process", None))
  rows = jax.ShapeDtypeStruct((len(devices), size), np.uint8, sharding=split)
  return split, jax.jit(lambda x: x, out_shardings=whole).lower(rows).compile()


def _gather(row: np.ndarray) -> np.ndarray:
  """u8[size] of this process -> u8[processes, size]."""
  split, program = _gatherer(row.size)
  shape = (jax.process_count(), row.size)
  return np.asarray(program(jax.make_array_from_callback(shape, split, lambda _: row[None])))


def agree(values: Sequence[int], error: BaseException | None = None) -> list[int]:
  """The largest of each value over the processes, i32.

  Args:
    values: as many on every process.
    error: why this process cannot go on.
  Raises:
    the error, if there is one, after the others were told.
    PeerFailed: another process had an error.
  """
  if jax.process_count() == 1:
    if error is not None:
      raise error
    return list(values)
  rows = _gather(np.array([error is not None, *values], np.int32).view(np.uint8)).view(np.int32)
  failed = np.flatnonzero(rows[:, 0])
  if not len(failed):
    return rows[:, 1:].max(0).tolist()
  if error is None:
    error = PeerFailed(f"process {failed[0]} of {jax.process_count()} failed: its output says why")
  error.known_to_all = True
  raise error


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Host work that ends well on every process or on none. Within it processes do not meet."""
  error = None
  try:
    yield
  except Exception as e:
    error = e
  agree([], error)


def known_to_all(error: BaseException) -> bool:
  """Whether every process is raising for the same reason: what needs them all, such as a save, can still be done."""
  return jax.process_count() == 1 or getattr(error, "known_to_all", False)


@contextlib.contextmanager
def end_at_once() -> Iterator[None]:
  """Ends this process at once on an error that the others do not know of: the runtime then ends them too.

  To unwind in good order would wait for them, and they for this one.
  """
  try:
    yield
  except BaseException as e:
    if known_to_all(e):
      raise
    traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def exchange(message: bytes) -> list[bytes]:
  """The messages of all processes, in their order."""
  if jax.process_count() == 1:
    return [message]
  data = np.frombuffer(len(message).to_bytes(8, "little") + message, np.uint8)
  sizes, parts = None, []
  while sizes is None or len(parts) * BLOCK < sizes.max():
    block = np.zeros(BLOCK, np.uint8)
    part = data[len(parts) * BLOCK :][:BLOCK]
    block[: len(part)] = part
    parts.append(_gather(block))
    if sizes is None:
      sizes = 8 + np.ascontiguousarray(parts[0][:, :8]).view(np.int64)[:, 0]
  whole = np.concatenate(parts, 1)
  return [row[8:size].tobytes() for row, size in zip(whole, sizes)]


def from_first(value: Any) -> Any:
  """What process 0 has for a JSON value: times, and what else may differ between processes."""
  if jax.process_count() == 1:
    return value
  return json.loads(exchange(json.dumps(value).encode() if first() else b"")[0])


def first_then_others(make: Callable[[], Any]) -> Any:
  """What `make` gives on process 0 and, once that is done, on the others: they find the files that it has written."""
  made = None
  for turn in (True, False):
    with together():
      if first() == turn:
        made = make()
  return made


def define_flags() -> None:
  flags.DEFINE_bool("distributed", False, "One of several processes: on TPU pods and under SLURM nothing else is set.")
  flags.DEFINE_string("coordinator", None, "host:port of process 0, where nothing tells it.")
  flags.DEFINE_integer("num_processes", None, "Processes in all, where nothing tells it.")
  flags.DEFINE_integer("process_id", None, "Number of this process, where nothing tells it.")
  flags.DEFINE_integer("heartbeat", HEARTBEAT, "Seconds of silence after which a process counts as dead.")


def start(f: flags.FlagValues) -> None:
  """Joins the other processes if --distributed says so, before anything touches a device."""
  by_hand = {"coordinator_address": f.coordinator, "num_processes": f.num_processes, "process_id": f.process_id}
  given = [value for value in by_hand.values() if value is not None]
  if not f.distributed:
    if given or f.heartbeat != HEARTBEAT:
      raise app.UsageError("--coordinator, --num_processes, --process_id and --heartbeat need --distributed")
    return
  if given and len(given) < len(by_hand):
    raise app.UsageError("--coordinator, --num_processes and --process_id need each other: give all three, or none")
  jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, which interrupt.py listens to
  try:
    jax.distributed.initialize(**by_hand, heartbeat_timeout_seconds=f.heartbeat, shutdown_timeout_seconds=f.heartbeat)
  except ValueError as e:
    raise app.UsageError(
      f"--distributed finds no cluster here ({e}): give --coordinator=host:port --num_processes=N --process_id=I"
    ) from e
