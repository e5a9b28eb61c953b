"""TextCraft: tasks of one to three items with Minecraft's recipes, some items made in several ways, some of any wood.

Recipes and tasks are the published ones of the benchmark's wheel. Its reader knows crafting tables only (no furnaces),
leaves out a slot that takes one of several named items (a torch takes no coal, a quartz slab nothing at all), and finds
the items of a tag by their names. So does this one, or the published plans would not replay.
"""

import functools
import pathlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from rao_jax.envs import storage
from rao_jax.envs.base import Demonstrator, Task
from rao_jax.envs.textcraft import builder, compact, minecraft_script, wheel
from rao_jax.envs.textcraft.asked import asked_items
from rao_jax.envs.textcraft.crafting import TAG
from rao_jax.envs.textcraft.dataset import published_plan
from rao_jax.envs.textcraft.env import TextCraft
from rao_jax.envs.textcraft.minecraft_plan import plan
from rao_jax.envs.textcraft.tasks import with_slack
from rao_jax.envs.textcraft.world import Recipe

# A recipe as it is kept on disk: item made, units of each ingredient, units made.
Row = tuple[str, dict[str, int], int]

_TAGS = """\
An item may have several recipes: any one will do. An ingredient `tag:...` stands for one of several items, listed \
with it; give one of those to craft, by its own name."""

_STONES = {
  "tag:coals": ("coal",),
  "tag:stone_crafting_materials": ("cobblestone", "smooth_stone", "stone"),
  "tag:stone_tool_materials": ("blackstone", "cobblestone", "stone"),
}


class MinecraftWorld:
  """The recipe book; see `RecipeBook`. An item's recipes come in the order of their files' names."""

  def __init__(self, rows: Iterable[Row]):
    self._rows: dict[str, list[tuple[dict[str, int], int]]] = {}
    for item, ingredients, count in rows:
      self._rows.setdefault(item, []).append((ingredients, count))
    parts = {part for ways in self._rows.values() for ingredients, _ in ways for part in ingredients}
    self.items = sorted(self._rows.keys() | {part for part in parts if not part.startswith(TAG)})
    self.base_items = frozenset(self.items) - self._rows.keys()
    self._depths = {item: self._down(item, frozenset()) for item in self._rows}
    self._tags = {tag: tuple(_tagged(tag, self.items)) for tag in parts if tag.startswith(TAG)}
    self.recipes = {
      item: tuple(Recipe(ingredients, count, self._depths[item]) for ingredients, count in ways)
      for item, ways in self._rows.items()
    }
    # Some tags stand for nothing (`wooden_slabs`), so that what takes one cannot be made (a barrel).
    follow = lambda recipe: all(self._tags.get(part, part) for part in recipe.ingredients)
    self.craftable = [item for item in self.recipes if any(map(follow, self.recipes[item]))]

  def recipes_of(self, name: str) -> Sequence[Recipe]:
    return self.recipes.get(name, ())

  def tagged(self, tag: str) -> Sequence[str]:
    return self._tags.get(tag, ())

  def depth(self, name: str) -> int:
    """The longest way down to raw material through ingredients that are no tags; a circle ends where it closes."""
    return self._depths.get(name, 0)

  def _down(self, item: str, above: frozenset[str]) -> int:
    if item in above:
      return 0
    parts = {part for ingredients, _ in self._rows.get(item, ()) for part in ingredients if not part.startswith(TAG)}
    return max((1 + self._down(part, above | {item}) for part in parts), default=0)


def parse_recipes(files: Mapping[str, dict[str, Any]]) -> list[Row]:
  """The crafting recipes among Minecraft's recipe files (name -> content), by name."""
  rows = []
  for _, file in sorted(files.items()):
    if file["type"] == "minecraft:crafting_shapeless":
      slots = file["ingredients"]
    elif file["type"] == "minecraft:crafting_shaped":
      slots = [file["key"][letter] for line in file["pattern"] for letter in line if letter in file["key"]]
    else:
      continue
    named = [slot for slot in slots if isinstance(slot, dict)]  # a list is a choice of items, and left out
    units = Counter(_bare(slot["item"]) if "item" in slot else TAG + _bare(slot["tag"]) for slot in named)
    rows.append((_bare(file["result"]["item"]), dict(units), file["result"].get("count", 1)))
  return rows


def _bare(name: str) -> str:
  return name.removeprefix("minecraft:")


def _tagged(tag: str, items: Sequence[str]) -> list[str]:
  """The items that a tag stands for: by their endings, of one kind of wood by their beginnings, stones by a list."""
  kind = tag.removeprefix(TAG)
  if kind in ("planks", "wool"):
    return [item for item in items if item.endswith("_" + kind)]
  if kind == "logs":
    return [item for item in items if item.endswith(("_log", "_stem"))]
  wood, _, part = kind.rpartition("_")
  if part in ("logs", "stems"):
    return [item for item in items if item.startswith((wood + "_log", wood + "_stem"))]
  return [item for item in _STONES.get(tag, ()) if item in items]


class TextcraftMinecraft(builder.TaskBuilder):
  """TextCraft tasks: items to craft by Minecraft's recipes; the recipes are in the data set's metadata."""

  VERSION = tfds.core.Version("1.0.0")
  needs_wheel = True

  def _info(self) -> tfds.core.DatasetInfo:
    return super()._info(metadata=tfds.core.MetadataDict())

  def splits(self, folder: pathlib.Path | None) -> dict[str, Iterable[Task]]:
    rows = parse_recipes(wheel.read_recipes(folder))
    self.info.metadata["recipes"] = rows
    world = MinecraftWorld(rows)
    return {
      split: [
        published_task(record, world, f"textcraft_minecraft.{split}.{i}")
        for i, record in enumerate(wheel.read_tasks(folder, f"textcraft_{split}.jsonl"))
      ]
      for split in ("train", "val")
    }


def published_task(record: dict[str, Any], world: MinecraftWorld, name: str) -> Task:
  """A record of a published task file as a task of a name of our own: the files' are not unique.

  Its difficulty is the depth of its deepest target, 2 to 4.
  """
  facts = record["misc"]
  depth = max(world.depth(item) for item in facts["target_items"])
  data = {
    "targets": facts["target_items"],
    "inventory": facts["initial_inventory"],
    "gold": published_plan(facts),
    "max_depth": depth,
  }
  return Task(name, f"depth_{depth}", data)


def asked_task(world: MinecraftWorld, text: str) -> Task:
  """The task that a text asks for, see `asked.asked_items`.

  Its stock, what `plan` takes and some more, follows from the text.

  Raises:
    ValueError: it says what the recipes can make instead.
  """
  targets = asked_items(text, world.craftable, "Minecraft", ("oak_planks", "stick", "ladder"))
  gold, raw = plan(world, targets)
  suffix = ".".join(f"{units}_{item}" for item, units in targets.items())
  depth = max(map(world.depth, targets))
  data = {
    "targets": targets,
    "inventory": with_slack(raw, random.Random(suffix)),
    "gold": [list(step) for step in gold],
    "max_depth": depth,
  }
  return Task(f"textcraft_minecraft.asked.{suffix}", f"depth_{depth}", data)


class Minecraft(TextCraft):
  """TextCraft with Minecraft's recipes, and tasks from disk: splits `train` and `val`.

  Args:
    data_dir: where the TFDS data set lives; it is made there if missing.
    manual_dir: folder of the wheel, needed to make it; "" is TFDS's own, `downloads/manual` below `data_dir`.
    success, compact, refuse_ancestor_goals: see `TextCraft`.
  """

  longest_name = 40
  examples = ("oak_planks", "stick")

  def __init__(
    self,
    data_dir: str,
    manual_dir: str = "",
    success: str = "produced",
    compact: bool = True,
    refuse_ancestor_goals: bool = True,
  ):
    super().__init__(success, compact, refuse_ancestor_goals)
    self._data_dir, self._manual_dir = data_dir, manual_dir
    self.tasks = functools.cache(self.tasks)

  @functools.cached_property
  def _builder(self) -> TextcraftMinecraft:
    return builder.prepare(lambda: TextcraftMinecraft(data_dir=self._data_dir), self._data_dir, self._manual_dir)

  @functools.cached_property
  def world(self) -> MinecraftWorld:
    return MinecraftWorld(self._builder.info.metadata["recipes"])

  @functools.cached_property
  def pieces(self) -> tuple[str, ...]:
    words = [item.split("_") for item in self.world.items]
    firsts = sorted({first for first, *_ in words})
    return compact.pieces([TAG, *firsts, *sorted({"_" + word for _, *rest in words for word in rest})])

  def instructions(self, recursive: bool) -> str:
    """See `Environment`."""
    return f"{super().instructions(recursive)}\n\n{_TAGS}"

  def book(self, task: Task) -> MinecraftWorld:
    return self.world

  def tasks(self, split: str) -> Sequence[Task]:
    """See `Environment`."""
    return storage.read_split(self._builder, split)

  def task_from(self, text: str) -> Task:
    """See `Environment`: `craft 4 of stick, 1 of ladder`."""
    return asked_task(self.world, text)

  def demonstrator(self, name: str, **slips: float) -> Demonstrator:
    """See `Environment`; the one slip is `delegate`, see `minecraft_script.recursive`."""
    return minecraft_script.demonstrator(name, **slips)


make = Minecraft
