"""What the TFDS builders of both benchmarks share: they may need the published files. Impure: owns files."""

import pathlib
from collections.abc import Iterable

import tensorflow_datasets as tfds

from rao_jax.envs import storage
from rao_jax.envs.base import Task
from rao_jax.envs.textcraft import wheel


class TaskBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of tasks. A subclass gives `splits`, and says in `needs_wheel` whether they are the published ones."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = wheel.command("MANUAL_DIR")

  @property
  def needs_wheel(self) -> bool:
    raise NotImplementedError

  def splits(self, folder: pathlib.Path | None) -> dict[str, Iterable[Task]]:
    """Split -> its tasks; `folder` holds the wheel where it is needed."""
    raise NotImplementedError

  def _info(self, **more) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(features=storage.features(), disable_shuffling=True, **more)

  def _split_generators(self, dl_manager):
    folder = pathlib.Path(dl_manager.manual_dir) if self.needs_wheel else None
    return {name: storage.records(tasks) for name, tasks in self.splits(folder).items()}

  def _generate_examples(self, tasks: Iterable[Task]):
    return storage.records(tasks)


def prepare(builder: TaskBuilder, data_dir: str, manual_dir: str = "") -> TaskBuilder:
  """Writes a builder's files below `data_dir` unless they are there already.

  Args:
    builder: made for `data_dir`.
    data_dir: where data sets live.
    manual_dir: folder of the wheel; "" is TFDS's own, `downloads/manual` below `data_dir`.
  """
  folder = pathlib.Path(manual_dir or pathlib.Path(data_dir) / "downloads" / "manual").expanduser()
  if builder.needs_wheel and not builder.data_path.exists():
    wheel.find(folder)  # its error names the command; TFDS would raise one of its own
  tfds.disable_progress_bar()
  config = tfds.download.DownloadConfig(manual_dir=str(folder))
  builder.download_and_prepare(file_format="array_record", download_config=config)
  return builder
