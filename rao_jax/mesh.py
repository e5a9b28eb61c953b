"""The device mesh, and the rule tables that map logical array axes onto it.

Every parameter and activation names its axes logically (`heads`, `mlp`, `rows`); a rule table says which mesh axis each
name is split over. Training and rollout use two tables over one mesh: see `TRAIN_RULES` and `ROLLOUT_RULES`.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "expert", "tensor")

# `rows` are batch rows (packed training rows, frontier rows, cache slots); the rest are parameter axes. Activations
# name their width `act_embed`, so that splitting weights over fsdp does not split activations too.
TRAIN_RULES = {
  "rows": ("data", "fsdp"),
  "embed": "fsdp",
  "heads": "tensor",
  "kv_heads": "tensor",
  "mlp": "tensor",
  "experts": "expert",
  "vocab": "tensor",
}
# While decoding, weights split over fsdp would be gathered for every token: only `tensor` splits them.
ROLLOUT_RULES = {**TRAIN_RULES, "embed": None}
# Axes that fall back to a full copy where the mesh axis does not divide them (multi-query attention on a tensor mesh).
MAY_REPLICATE = ("kv_heads",)


@dataclasses.dataclass(frozen=True)
class Rules:
  """A mesh with one table from logical axes to mesh axes (hashable: a static argument of jitted functions)."""

  mesh: Mesh
  table: tuple[tuple[str, str | tuple[str, ...] | None], ...]

  @classmethod
  def of(cls, mesh: Mesh, table: dict) -> "Rules":
    return cls(mesh, tuple(table.items()))

  def spec(self, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> PartitionSpec:
    """PartitionSpec of an array of `shape` whose dimensions are called `axes` (None: not split)."""
    table, out = dict(self.table), []
    for size, axis in zip(shape, axes, strict=True):
      target = table.get(axis) if axis else None
      ways = self.ways(axis)
      if size % ways:
        if axis not in MAY_REPLICATE:
          raise ValueError(
            f"axis {axis!r} of size {size} cannot be split {ways} ways over mesh axes {target}: choose a size that is "
            f"a multiple of {ways}, or a smaller config.mesh"
          )
        target = None
      out.append(target)
    return PartitionSpec(*out)

  def ways(self, axis: str | None) -> int:
    """Into how many parts a logical axis is split."""
    target = dict(self.table).get(axis) if axis else None
    names = (target,) if isinstance(target, str) else target or ()
    return math.prod(self.mesh.shape[name] for name in names)

  def sharding(self, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> NamedSharding:
    return NamedSharding(self.mesh, self.spec(shape, axes))

  def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins the layout of an activation inside jit, on every platform."""
    return jax.lax.with_sharding_constraint(x, self.sharding(x.shape, axes))

  def whole(self, axis: str) -> "Rules":
    """The same rules, but that a logical axis is split over nothing."""
    return dataclasses.replace(self, table=tuple((name, target) for name, target in self.table if name != axis))

  @property
  def row_owners(self) -> list[int]:
    """The process that holds each part of the row axes."""
    rows = self.mesh.devices.reshape(self.ways("rows"), -1)
    return [int(device.process_index) for device in rows[:, 0]]

  @property
  def replicated(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec())

  def replicate(self, value: np.ndarray) -> jax.Array:
    """A host array, the same on every process, on all devices."""
    return jax.make_array_from_callback(value.shape, self.replicated, lambda index: value[index])


def make_mesh(
  data: int = -1, fsdp: int = 1, tensor: int = 1, expert: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Mesh over `devices`, all there are by default, with the axes of AXES; one size may be -1 for 'the rest'.

  Devices that differ in their place on `expert` and `tensor` alone share the rows they work on, and a row's trees run
  in one process: these groups are kept within processes, and an error where that is impossible.
  """
  sizes = {"data": data, "fsdp": fsdp, "expert": expert, "tensor": tensor}
  devices = jax.devices() if devices is None else devices
  found = len(devices)
  asked = ", ".join(f"{k}={v}" for k, v in sizes.items())
  rest = [name for name, size in sizes.items() if size == -1]
  if len(rest) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
    raise ValueError(f"mesh ({asked}): sizes must be positive, and at most one may be -1 for 'the rest'")
  fixed = math.prod(size for size in sizes.values() if size != -1)
  if rest:
    if found % fixed:
      raise ValueError(f"mesh ({asked}): {fixed} does not divide the {found} devices found: change config.mesh")
    sizes[rest[0]] = found // fixed
  elif fixed != found:
    raise ValueError(f"mesh ({asked}) needs {fixed} devices, found {found}: set config.mesh.data=-1 for 'the rest'")
  shape, types = tuple(sizes.values()), (AxisType.Auto,) * len(AXES)
  group = sizes["expert"] * sizes["tensor"]
  # Axes of a TPU slice may have to be split: 16 x 4 on a slice of 8 x 8.
  close = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
  if all(len({d.process_index for d in rows}) == 1 for rows in close.reshape(-1, group)):
    return Mesh(close, AXES, axis_types=types)
  by_process = sorted(devices, key=lambda device: device.process_index)  # stable: the order within a process is kept
  rows = np.array(by_process).reshape(-1, group)
  if any(len({d.process_index for d in row}) > 1 for row in rows):
    here = sum(d.process_index == by_process[0].process_index for d in devices)
    raise ValueError(
      f"mesh ({asked}): expert x tensor = {group} devices share the rows they work on and must be in one process, but "
      f"one has {here}: set config.mesh.expert and config.mesh.tensor so that their product divides {here}"
    )
  return Mesh(rows.reshape(shape), AXES, axis_types=types)


def put(value: np.ndarray, sharding: NamedSharding) -> jax.Array | np.ndarray:
  """What a compiled program takes for a host array of which this process knows at least what its own devices hold.

  In one process that is the array itself.
  """
  if sharding.is_fully_addressable:
    return value
  value = np.asarray(value)
  return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def call(program: jax.stages.Compiled, *args):
  """Calls a compiled program; host arrays among its arguments are `put` where it wants them."""
  if jax.process_count() > 1:
    one = lambda x, sharding: x if isinstance(x, jax.Array) or sharding is None else put(x, sharding)  # None: not read
    args = jax.tree.map(one, args, program.input_shardings[0])
  return program(*args)


def fetch(arrays):
  """Device arrays as host arrays; of one over several processes the parts held here, zeros elsewhere."""
  if jax.process_count() == 1:
    return jax.device_get(arrays)
  for x in jax.tree.leaves(arrays):
    x.copy_to_host_async()

  def one(x):
    if x.is_fully_replicated:
      return np.asarray(x)
    out = np.zeros(x.shape, x.dtype)
    for shard in x.addressable_shards:
      out[shard.index] = shard.data
    return out

  return jax.tree.map(one, arrays)
