"""Tasks on disk: the form of a record, and how records are read without TensorFlow. Impure: owns files."""

import fcntl
import json
import operator
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from rao_jax.envs.base import Task


def features() -> tfds.features.FeaturesDict:
  """Of a data set whose records are tasks; the data is JSON."""
  return tfds.features.FeaturesDict({name: tfds.features.Text() for name in ("id", "difficulty", "data")})


def records(tasks: Iterable[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
  """Tasks as a builder's examples, in order."""
  for i, task in enumerate(tasks):
    yield i, {"id": task.id, "difficulty": task.difficulty, "data": json.dumps(task.data)}


def prepare(
  make: Callable[[pathlib.Path], tfds.core.DatasetBuilder], data_dir: str, manual_dir: str = ""
) -> tfds.core.DatasetBuilder:
  """A builder whose files are below `data_dir`; written if they are not, by one process at a time.

  Args:
    make: the builder for `data_dir`, given the folder of files that users fetch themselves.
    data_dir: where data sets live.
    manual_dir: that folder; "" is TFDS's own, `downloads/manual` below `data_dir`.
  """
  home = pathlib.Path(data_dir).expanduser()
  folder = pathlib.Path(manual_dir).expanduser() if manual_dir else home / "downloads" / "manual"
  home.mkdir(parents=True, exist_ok=True)
  tfds.disable_progress_bar()
  with (home / ".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # agents that are trained side by side begin with this at the same moment
    builder = make(folder)  # here, as it looks for its files when it is made
    config = tfds.download.DownloadConfig(manual_dir=str(folder), try_download_gcs=False)
    builder.download_and_prepare(file_format="array_record", download_config=config)
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


def read_split(builder: tfds.core.DatasetBuilder, split: str) -> TaskSource:
  """The tasks of one split of a prepared builder."""
  if split not in builder.info.splits:
    full_name = "/".join(filter(None, (builder.name, builder.builder_config and builder.builder_config.name)))
    raise ValueError(f"split {split!r} of {full_name} is unknown: {', '.join(builder.info.splits)}")
  return TaskSource(builder.as_data_source(split=split))
