"""The device mesh, and the rule tables that map logical array axes onto it.

Every parameter and activation names its axes logically (`heads`, `mlp`, `rows`); a rule table says which mesh axis each
name is split over. Training and rollout use two tables over one mesh: see `TRAIN_RULES` and `ROLLOUT_RULES`.
"""

import dataclasses
import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

# `rows` are batch rows (packed training rows, frontier rows, cache slots); the rest are parameter axes. Activations
# name their width `act_embed`, so that splitting weights over fsdp does not split activations too.
TRAIN_RULES = {
  "rows": ("data", "fsdp"),
  "embed": "fsdp",
  "heads": "tensor",
  "kv_heads": "tensor",
  "mlp": "tensor",
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

  @property
  def replicated(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec())


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
  """Mesh over all devices with axes (data, fsdp, tensor); one size may be -1 for 'the rest'."""
  sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
  found = jax.device_count()
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
  return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES))
