"""Tasks on disk: a TFDS builder, written as array_record and read without TensorFlow. Impure: owns files.

Splits are `<split>_<difficulty>`. The small profile draws many worlds, and its splits never share one (see
`tasks.WORLD_SEEDS`); the full profile is the benchmark's one world, whose splits share no target.
"""

import dataclasses
import itertools
import json
import operator
from collections.abc import Iterator, Sequence

import tensorflow_datasets as tfds

from rao_jax.envs.base import Task
from rao_jax.envs.textcraft import tasks as task_lib
from rao_jax.envs.textcraft.world import World


@dataclasses.dataclass(kw_only=True)
class TextcraftSynthConfig(tfds.core.BuilderConfig):
  """One profile of the world and how many tasks to draw.

  Attributes:
    profiles: split -> profiles of its worlds in turn.
    items_per_tier: of `World.generate`.
    sizes: split -> tasks of each difficulty.
    difficulties: split -> difficulties it has.
    tasks_per_world: tasks of one difficulty from each world.
    world_seed: of the only world, whose targets are then divided among the splits; None draws a world for every
      `tasks_per_world` tasks.
  """

  profiles: dict[str, tuple[str, ...]]
  items_per_tier: int
  sizes: dict[str, int]
  difficulties: dict[str, tuple[str, ...]]
  tasks_per_world: int = 8
  world_seed: int | None = None


_ALL = tuple(task_lib.DIFFICULTIES)


class TextcraftSynth(tfds.core.GeneratorBasedBuilder):
  """TextCraft-Synth tasks: an item to craft, a finite stock, recipes that have to be looked up."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = [  # noqa: RUF012 (the name and the type are TFDS's)
    TextcraftSynthConfig(
      name="small",
      description="Many worlds of few ingredients; training tasks are easy and medium only.",
      # Every other training world has its names shuffled, so that names of the shape that hard tasks have (m0_i8_8) are
      # met, and copied, in easy and medium tasks: without, the trained agent drops or mixes up their ends.
      profiles={"train": ("small", "small_shuffled"), "dev": ("small",), "test": ("small",)},
      items_per_tier=10,
      sizes={"train": 2000, "dev": 200, "test": 300},
      difficulties={"train": ("easy", "medium"), "dev": _ALL, "test": _ALL},
    ),
    TextcraftSynthConfig(
      name="full",
      description="The benchmark's world: seed 42, 25 items a tier; targets are held out for validation.",
      profiles={"train": ("full",), "val": ("full",)},
      items_per_tier=25,
      sizes={"train": 2000, "val": 300},
      difficulties={"train": _ALL, "val": _ALL},
      world_seed=42,
    ),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    features = {"id": tfds.features.Text(), "difficulty": tfds.features.Text(), "data": tfds.features.Text()}
    return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

  def _split_generators(self, dl_manager):
    config = self.builder_config
    return {
      f"{split}_{difficulty}": self._generate_examples(split, difficulty)
      for split in config.sizes
      for difficulty in config.difficulties[split]
    }

  def _generate_examples(self, split: str, difficulty: str):
    for i, task in enumerate(generate_tasks(self.builder_config, split, difficulty)):
      yield i, {"id": task.id, "difficulty": task.difficulty, "data": json.dumps(task.data)}


def generate_tasks(config: TextcraftSynthConfig, split: str, difficulty: str) -> Iterator[Task]:
  """The tasks of one split and difficulty, in order."""
  size = config.sizes[split]
  if config.world_seed is not None:
    world = World.generate(config.world_seed, config.items_per_tier, config.profiles[split][0])
    targets = task_lib.split_targets(world)[split]
    yield from task_lib.make_tasks(world, split, difficulty, size, targets=targets)
    return
  for seed, profile in zip(task_lib.WORLD_SEEDS[split], itertools.cycle(config.profiles[split])):
    if size <= 0:
      return
    world = World.generate(seed, config.items_per_tier, profile)
    tasks = task_lib.make_tasks(world, split, difficulty, min(size, config.tasks_per_world))
    size -= len(tasks)
    yield from tasks


def build(data_dir: str, config_name: str = "small") -> tfds.core.DatasetBuilder:
  """The builder, with its files written to `data_dir` unless they are there already."""
  builder = TextcraftSynth(data_dir=data_dir, config=config_name)
  tfds.disable_progress_bar()
  builder.download_and_prepare(file_format="array_record")
  return builder


class TaskSource(Sequence):
  """The tasks of one split by index, read from disk when asked for."""

  def __init__(self, rows):
    self._rows = rows

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    index = operator.index(index)
    if not -len(self) <= index < len(self):
      raise IndexError(f"task {index} of {len(self)}")
    row = self._rows[index % len(self)]
    text = {key: bytes(value).decode() for key, value in row.items()}
    return Task(text["id"], text["difficulty"], json.loads(text["data"]))


def load_tasks(data_dir: str, config_name: str, split: str) -> TaskSource:
  """Tasks of one split, `<split>_<difficulty>`; builds the data set first if `data_dir` does not hold it."""
  builder = build(data_dir, config_name)
  if split not in builder.info.splits:
    raise ValueError(f"split {split!r} of textcraft_synth/{config_name} is unknown: {', '.join(builder.info.splits)}")
  return TaskSource(builder.as_data_source(split=split))
