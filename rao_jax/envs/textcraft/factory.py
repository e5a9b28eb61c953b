"""TextCraft-Synth as a run names it in `config.environment.factory`: the world, its data set, its demonstrators."""

import functools
from collections.abc import Sequence

from rao_jax.envs.base import Demonstrator, Task
from rao_jax.envs.textcraft import dataset, script
from rao_jax.envs.textcraft.env import TextCraft

DEMONSTRATORS = {"recursive": script.recursive, "inline": script.inline}


class TextCraftSynth(TextCraft):
  """TextCraft with tasks from disk.

  Args:
    data_dir: where the TFDS data set lives; it is made there if missing.
    dataset: builder config, `small` or `full`.
    rules: options of `TextCraft`.
  """

  def __init__(self, data_dir: str, dataset: str = "small", **rules):
    super().__init__(**rules)
    self._data_dir, self._dataset = data_dir, dataset
    self.tasks = functools.cache(self.tasks)

  def tasks(self, split: str) -> Sequence[Task]:
    """See `Environment`."""
    return dataset.load_tasks(self._data_dir, self._dataset, split)

  def demonstrator(self, name: str, **slips: float) -> Demonstrator:
    """See `Environment`; `slips` are the fields of `script.Slips`."""
    if name not in DEMONSTRATORS:
      raise ValueError(f"config.warm_start.demonstrator={name!r}: choose one of {sorted(DEMONSTRATORS)}")
    return functools.partial(DEMONSTRATORS[name], slips=script.Slips(**slips))


make = TextCraftSynth
