"""TextCraft-Synth as a run gets it by name: the world, its data set, its demonstrators."""

import functools
import re
from collections.abc import Sequence

from rao_jax.envs import storage
from rao_jax.envs.base import Demonstrator, Task
from rao_jax.envs.textcraft import compact as compact_texts
from rao_jax.envs.textcraft import dataset, script
from rao_jax.envs.textcraft.env import TextCraft
from rao_jax.envs.textcraft.tasks import WORLD_SEEDS, asked_task
from rao_jax.envs.textcraft.world import cached_world

DEMONSTRATORS = {"recursive": script.recursive, "inline": script.inline}


class TextCraftSynth(TextCraft):
  """TextCraft with tasks from disk.

  Args:
    data_dir: where the TFDS data set lives; it is made there if missing.
    dataset: `small`, `practice`, `wide`, `canonical`, `generated` or `generated_<seed>`; see `dataset.py`.
    manual_dir: folder of the wheel, needed to make `canonical`; "" is TFDS's own, `downloads/manual` below `data_dir`.
    success, compact, refuse_ancestor_goals: see `TextCraft`.
  """

  def __init__(
    self,
    data_dir: str,
    dataset: str = "small",
    manual_dir: str = "",
    success: str = "produced",
    compact: bool = True,
    refuse_ancestor_goals: bool = True,
  ):
    super().__init__(success, compact, refuse_ancestor_goals)
    if dataset != "small":  # ten items a tier have few names that end in a number
      self.pieces = compact_texts.pieces((*compact_texts.SYNTH_NAMES, *compact_texts.PAIRED_NAMES))
    self._data_dir, self._dataset, self._manual_dir = data_dir, dataset, manual_dir
    self.tasks = functools.cache(self.tasks)

  @functools.cached_property
  def _builder(self) -> dataset.TextcraftSynth:
    return dataset.build(self._data_dir, self._dataset, self._manual_dir)

  def tasks(self, split: str) -> Sequence[Task]:
    """See `Environment`; a split of another data set is `practice__train_easy`."""
    other, mark, part = split.rpartition("__")
    builder = dataset.build(self._data_dir, other, self._manual_dir) if mark else self._builder
    return storage.read_split(builder, part)

  def task_from(self, text: str) -> Task:
    """See `Environment`: `craft 2 of m0_i4, 1 of c1_i2 in world 7`.

    The world that is not named is the benchmark's, or with the data set `small` that of its first dev tasks.
    """
    config = self._builder.builder_config
    named = re.search(r"\bin world (\d+)\b", text)
    if isinstance(config, dataset.WorldsConfig):
      seed = WORLD_SEEDS["dev"][0]
      key = (config.items_per_tier, config.profiles["dev"][0])
    else:
      seed, key = dataset.SEED, (dataset.ITEMS_PER_TIER, "full")
    return asked_task(cached_world(int(named[1]) if named else seed, *key), text)

  def demonstrator(self, name: str, **slips: float) -> Demonstrator:
    """See `Environment`; `slips` are the fields of `script.Slips`."""
    if name not in DEMONSTRATORS:
      raise ValueError(f"config.warm_start.demonstrator={name!r}: choose one of {sorted(DEMONSTRATORS)}")
    return functools.partial(DEMONSTRATORS[name], slips=script.Slips(**slips))


make = TextCraftSynth
