"""TextCraft-Synth's tasks as a data set, from three sources. Impure: owns files.

  small      many worlds, none of which two splits share (see `tasks.WORLD_SEEDS`); splits `<split>_<difficulty>`
  practice   the same with recipes of the benchmark's size and large amounts: to learn on before the benchmark's own
  wide       easy tasks with as many ingredients as those of hard ones, for training
  canonical  the benchmark's published tasks, from their authors' wheel
  generated  tasks drawn in the benchmark's world by its rules, of a seed of one's own: `generated_7`

Canonical and generated have the splits `train` and `val`, which share no target, and `train_easy` to `val_extreme`,
their parts.
"""

import dataclasses
import itertools
import pathlib
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow_datasets as tfds

from rao_jax.envs.base import Task
from rao_jax.envs.textcraft import builder, wheel
from rao_jax.envs.textcraft import tasks as task_lib
from rao_jax.envs.textcraft.world import World, cached_world

_ALL = tuple(task_lib.DIFFICULTIES)
# The benchmark asked for so many tasks of each split and so many percent of each difficulty. An item in a count is
# asked for once in a split, so its world runs out of them before.
WANTED = {"train": 10_000, "val": 1_000}
PERCENT = {"easy": 25, "medium": 35, "hard": 25, "extreme": 15}
SEED, ITEMS_PER_TIER = 42, 25  # of the benchmark's world; the seed is that of its tasks too


@dataclasses.dataclass(kw_only=True)
class WorldsConfig(tfds.core.BuilderConfig):
  """How many tasks to draw of many worlds.

  Attributes:
    profiles: split -> profiles of its worlds in turn.
    items_per_tier: of `World.generate`.
    sizes: split -> tasks of each difficulty.
    difficulties: split -> difficulties it has.
    tasks_per_world: tasks of one difficulty from each world.
    most_units: split -> units that a task asks for at most, see `tasks.make_tasks`; a split without asks for few.
  """

  profiles: dict[str, tuple[str, ...]]
  items_per_tier: int
  sizes: dict[str, int]
  difficulties: dict[str, tuple[str, ...]]
  tasks_per_world: int = 8
  most_units: dict[str, int] = dataclasses.field(default_factory=dict)

  def splits(self, folder: pathlib.Path | None) -> dict[str, Iterable[Task]]:
    return {
      f"{split}_{difficulty}": small_tasks(self, split, difficulty)
      for split in self.sizes
      for difficulty in self.difficulties[split]
    }


@dataclasses.dataclass(kw_only=True)
class CanonicalConfig(tfds.core.BuilderConfig):
  """The published tasks."""

  def splits(self, folder: pathlib.Path | None) -> dict[str, Iterable[Task]]:
    records = {split: wheel.read_tasks(folder, f"textcraft_synth_{split}.jsonl") for split in WANTED}
    return with_parts({split: [published_task(record) for record in rows] for split, rows in records.items()})


@dataclasses.dataclass(kw_only=True)
class GeneratedConfig(tfds.core.BuilderConfig):
  """Tasks of one's own in the benchmark's world; `seed` is that of their draws."""

  seed: int

  def splits(self, folder: pathlib.Path | None) -> dict[str, Iterable[Task]]:
    return with_parts({split: generated_tasks(split, self.seed, self.name) for split in WANTED})


def generated_config(name: str, seed: int) -> GeneratedConfig:
  return GeneratedConfig(name=name, description="Tasks drawn in the benchmark's world by its rules.", seed=seed)


class TextcraftSynth(builder.TaskBuilder):
  """TextCraft-Synth tasks: an item to craft, a finite stock, recipes that have to be looked up."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = [  # noqa: RUF012 (the name and the type are TFDS's)
    WorldsConfig(
      name="small",
      description="Many worlds of few ingredients; training tasks are easy and medium only.",
      # Every other training world has its names shuffled, so that names of the shape that hard tasks have (m0_i8_8) are
      # met, and copied, in easy and medium tasks: without, the trained agent drops or mixes up their ends.
      profiles={"train": ("small", "small_shuffled"), "dev": ("small",), "test": ("small",)},
      items_per_tier=10,
      sizes={"train": 2000, "dev": 200, "test": 300},
      difficulties={"train": ("easy", "medium"), "dev": _ALL, "test": _ALL},
    ),
    WorldsConfig(
      name="practice",
      description="Many worlds like the benchmark's; training tasks are easy and medium only, in any amount.",
      # Amounts: a hard task of few units asks its sub-agents for hundreds, an extreme one for thousands.
      profiles={"train": ("full", "full_shuffled"), "dev": ("full",)},
      items_per_tier=ITEMS_PER_TIER,
      sizes={"train": 1200, "dev": 100},
      difficulties={"train": ("easy", "medium"), "dev": _ALL},
      most_units={"train": 2000},
    ),
    WorldsConfig(
      name="wide",
      version=tfds.core.Version("1.1.0"),  # 1.0.0 had none of the worlds with names alike
      description="Many worlds whose easy tasks have as many ingredients as the benchmark's hard ones, for training.",
      profiles={"train": ("wide_shuffled", "wide_alike")},
      items_per_tier=ITEMS_PER_TIER,
      sizes={"train": 1200},
      difficulties={"train": ("easy",)},
      most_units={"train": 2000},
    ),
    CanonicalConfig(name="canonical", description="The benchmark's published tasks."),
    generated_config("generated", SEED),
  ]

  @property
  def needs_wheel(self) -> bool:
    return isinstance(self.builder_config, CanonicalConfig)

  def splits(self, folder: pathlib.Path | None) -> dict[str, Iterable[Task]]:
    return self.builder_config.splits(folder)


def with_parts(splits: dict[str, list[Task]]) -> dict[str, list[Task]]:
  """The splits, and the part of each that is of one difficulty."""
  parts = {
    f"{split}_{difficulty}": [task for task in tasks if task.difficulty == difficulty]
    for split, tasks in splits.items()
    for difficulty in _ALL
  }
  return splits | parts


def small_tasks(config: WorldsConfig, split: str, difficulty: str) -> Iterator[Task]:
  """The tasks of one split and difficulty of many worlds, in order."""
  size = config.sizes[split]
  for seed, profile in zip(task_lib.WORLD_SEEDS[split], itertools.cycle(config.profiles[split])):
    if size <= 0:
      return
    world = World.generate(seed, config.items_per_tier, profile)
    most_units = config.most_units.get(split, 0)
    tasks = task_lib.make_tasks(world, split, difficulty, min(size, config.tasks_per_world), most_units=most_units)
    size -= len(tasks)
    yield from tasks


def published_task(record: dict[str, Any]) -> Task:
  """A record of a published task file as a task; of its plan's steps, the units made and those given for them."""
  facts = record["misc"]
  data = {
    **task_lib.world_key(cached_world(SEED, ITEMS_PER_TIER, "full")),
    "targets": facts["target_items"],
    "inventory": facts["initial_inventory"],
    "gold": published_plan(facts),
    "max_depth": facts["max_depth"],
  }
  return Task(record["id"], facts["difficulty"], data)


def published_plan(facts: dict[str, Any]) -> list[list]:
  """[item, units made, ingredients] of each step; the files count executions beside the item."""
  return [[step["target"][0], step["result_count"], step["ingredients"]] for step in facts["gold_trajectory"]]


def generated_tasks(split: str, seed: int, name: str) -> list[Task]:
  """One split drawn by the benchmark's rules, shuffled and numbered."""
  world = cached_world(SEED, ITEMS_PER_TIER, "full")
  targets = task_lib.split_targets(world)[split]
  tasks = []
  for difficulty, percent in PERCENT.items():
    tasks += task_lib.make_tasks(world, split, difficulty, WANTED[split] * percent // 100, seed, targets)
  random.Random(seed + 1).shuffle(tasks)
  return [dataclasses.replace(task, id=f"textcraft_synth.{name}.{split}.{i}") for i, task in enumerate(tasks)]


def build(data_dir: str, config_name: str = "small", manual_dir: str = "") -> TextcraftSynth:
  """The builder, with its files written to `data_dir` unless they are there already; see `storage.prepare`."""
  own_seed = re.fullmatch(r"generated_(\d+)", config_name)
  known = [config.name for config in TextcraftSynth.BUILDER_CONFIGS]
  if not own_seed and config_name not in known:
    raise ValueError(f"data set textcraft_synth/{config_name} is unknown: use one of {known}, or generated_<seed>")
  config = generated_config(config_name, int(own_seed[1])) if own_seed else config_name
  return builder.prepare(lambda: TextcraftSynth(data_dir=data_dir, config=config), data_dir, manual_dir)
