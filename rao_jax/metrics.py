"""Metrics of a run: JSONL always, TensorBoard, Weights & Biases if asked. Impure: owns the files of a workdir.

A row of `metrics.jsonl` is `{"step": 12, "train/success/medium": 0.75, "time/step_seconds": 1.9}`. There may be several
rows per step, and all kinds of rows share one step axis. Numbers that are not finite are written as `null`, so that the
file stays JSON for every reader.
"""

import collections
import importlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import tensorboardX


class WriteFailed(OSError):
  """A file of a run could not be written: a full disk, most of the time."""


class Means:
  """Means over parts of unequal size: sums and counts are kept apart until the end."""

  def __init__(self):
    self._sums: dict[str, float] = collections.defaultdict(float)
    self._counts: dict[str, float] = collections.defaultdict(float)

  def add(self, key: str, total: float, count: float = 1) -> None:
    """Adds a part whose values sum to `total`; `count` of them."""
    self._sums[key] += float(total)
    self._counts[key] += float(count)

  def result(self) -> dict[str, float]:
    """Mean per key; keys that counted nothing are left out."""
    return {key: self._sums[key] / count for key, count in self._counts.items() if count}


class MetricWriter:
  """Appends metric rows; does nothing on processes other than 0.

  Args:
    workdir: directory of the run; gets `metrics.jsonl` and, if asked, `tensorboard/`.
    tensorboard: also write TensorBoard scalars.
    wandb_project: also log to this Weights & Biases project; empty means no.
    config: plain dict shown beside the run in Weights & Biases.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    tensorboard: bool = True,
    wandb_project: str = "",
    config: Mapping[str, Any] | None = None,
  ):
    self.rows = 0  # of the file, as far as this writer knows: those it kept and those it wrote
    self._active = jax.process_index() == 0
    if not self._active:
      return
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / "metrics.jsonl"
    self._wandb = _start_wandb(wandb_project, workdir, config) if wandb_project else None
    self._tensorboard_dir = str(workdir / "tensorboard") if tensorboard else None
    self._tensorboard = None  # opened by the first row, when it is known which steps to purge
    self._purge_step = None
    if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):  # cut by a kill
      _replace(self._path, read_metrics(self._path))
    self._file = self._path.open("ab", buffering=0)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends one row. One unbuffered write, so a kill can cut only the last line."""
    self.rows += 1
    if not self._active:
      return
    step, values = int(step), {key: float(value) for key, value in values.items()}
    line = _line({"step": step, **values})
    try:
      written = self._file.write(line)
    except OSError as e:
      raise WriteFailed(f"the row of step {step} was not written to {self._path}: {e.strerror}") from e
    if written < len(line):
      raise WriteFailed(f"the row of step {step} was not written to {self._path}: no room for all of it")
    if self._tensorboard_dir is not None:
      if self._tensorboard is None:
        self._tensorboard = tensorboardX.SummaryWriter(self._tensorboard_dir, purge_step=self._purge_step)
      for key, value in values.items():
        self._tensorboard.add_scalar(key, value, step)
      self._tensorboard.flush()
    if self._wandb is not None:
      self._wandb.log(values, step=step)

  def truncate_after(self, step: int, number: int | None = None) -> int:
    """Drops the rows that a run resumed at `step` writes again. Returns how many were dropped.

    Args:
      step: rows of later steps go.
      number: of rows that are kept at most; None keeps all of the steps so far.
    """
    self.rows = number or 0
    if not self._active:
      return 0
    rows = read_metrics(self._path)
    kept = [row for row in rows[:number] if row["step"] <= step]
    self.rows = len(kept)
    self._file.close()
    if len(kept) < len(rows):
      _replace(self._path, kept)
    self._file = self._path.open("ab", buffering=0)
    if self._tensorboard is not None:
      self._tensorboard.close()
      self._tensorboard = None
    self._purge_step = step + 1
    return len(rows) - len(kept)

  def close(self) -> None:
    if not self._active:
      return
    self._file.close()
    if self._tensorboard is not None:
      self._tensorboard.close()
    if self._wandb is not None:
      self._wandb.finish()


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Rows of a `metrics.jsonl`, in file order; a last line cut by a kill is left out, a missing file is empty."""
  path = pathlib.Path(path)
  if not path.exists():
    return []
  rows, lines = [], path.read_bytes().splitlines()
  for i, line in enumerate(lines):
    try:
      rows.append(json.loads(line))
    except ValueError as error:
      if i < len(lines) - 1:
        raise ValueError(f"{path}:{i + 1} is not JSON ({error}): repair or delete that line") from error
  return rows


def _line(row: Mapping[str, Any]) -> bytes:
  clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
  return json.dumps(clean, allow_nan=False).encode() + b"\n"


def _replace(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Rewrites the file in one rename, so that a kill leaves the old file or the new one."""
  new = path.with_name(path.name + ".new")
  with new.open("wb") as f:
    f.writelines(_line(row) for row in rows)
    f.flush()
    os.fsync(f.fileno())
  new.replace(path)


def _start_wandb(project: str, workdir: pathlib.Path, config: Mapping[str, Any] | None):
  try:
    wandb = importlib.import_module("wandb")
  except ImportError as error:
    raise ImportError(
      f"logging to the Weights & Biases project {project!r} was asked, but the package wandb is not installed: "
      "`pip install wandb`, or leave the project empty"
    ) from error
  id_file = workdir / "wandb_id"  # a resumed run goes on in the same W&B run
  if not id_file.exists():
    id_file.write_text(wandb.util.generate_id())
  return wandb.init(
    project=project, id=id_file.read_text(), dir=str(workdir), resume="allow", config=dict(config or {})
  )
