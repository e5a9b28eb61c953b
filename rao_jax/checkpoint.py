"""Checkpoints that notice damage: a thin wrapper over Orbax's `CheckpointManager`. Impure: owns `checkpoints/`.

Orbax writes in the background and makes a step visible by one rename, but a flipped bit restores silently. So once a
step is final, a `digests.json` with the SHA-256 of each of its files is written into it, and checked before it is
trusted. A step whose digests are missing was killed before it was sealed and counts as unfinished.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from rao_jax.metrics import WriteFailed

DIGESTS = "digests.json"
_NONE, _DAMAGED = -1, -2  # answers of process 0 that are not steps


class Checkpointer:
  """The last `max_to_keep` states of a run below `directory`, and the best ones below `directory/best`.

  A state is a pytree of arrays; `meta` is a JSON dict that belongs to it (counters, seeds, scores).
  """

  def __init__(self, directory: str | os.PathLike, *, max_to_keep: int = 3):
    if max_to_keep < 2:
      raise ValueError(
        f"max_to_keep={max_to_keep} leaves nothing to go back to if the newest is damaged: set 2 or more"
      )
    self.directory = pathlib.Path(directory).absolute()
    self._managers = {
      name: ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True))
      # Two of the best: the older one goes only after a newer save, when the newer is sealed.
      for name, folder, keep in [("last", self.directory, max_to_keep), ("best", self.directory / "best", 2)]
    }
    self._sealer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint_digests")
    self._sealing: concurrent.futures.Future | None = None

  @functools.cached_property
  def best_score(self) -> float | None:
    """Score of the best state saved here, None if there is none."""
    step = self._newest_good("best")
    if step is None:
      return None
    return self._managers["best"].restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta["score"]

  def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Saves in the background; returns as soon as the arrays are copied to the host."""
    self._save("last", step, state, meta)

  def save_best(self, step: int, state: Any, meta: dict[str, Any], score: float) -> bool:
    """Saves if `score` is above that of every state saved here before; returns whether it did."""
    if self.best_score is not None and score <= self.best_score:
      return False
    self.best_score = float(score)
    self._save("best", step, state, meta | {"score": self.best_score})
    return True

  def restore(self, target: Any, *, best: bool = False) -> tuple[int, Any, dict[str, Any]] | None:
    """The newest undamaged state, or None if nothing was ever saved.

    Args:
      target: pytree of arrays or `jax.ShapeDtypeStruct`s whose shardings say where the state goes, on any mesh.
      best: take the best state rather than the last.
    """
    self.wait()
    name = "best" if best else "last"
    step = self._newest_good(name)
    if step is None:
      return None
    args = ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore())
    restored = self._managers[name].restore(step, args=args)
    return step, restored.state, restored.meta

  def truncate_after(self, step: int) -> None:
    """Deletes the last states past `step`: a run that resumes there will write them again. The best stay."""
    self.wait()
    for later in [s for s in self._managers["last"].all_steps() if s > step]:
      self._managers["last"].delete(later)

  def wait(self) -> None:
    """Blocks until everything is on disk and sealed; raises what went wrong in the background."""
    if self._sealing is not None:
      sealing, self._sealing = self._sealing, None
      with self._writing():
        sealing.result()

  def close(self) -> None:
    try:
      self.wait()
    finally:
      self._sealer.shutdown()
      for manager in self._managers.values():
        with self._writing():
          manager.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def _save(self, name: str, step: int, state: Any, meta: dict[str, Any]) -> None:
    self.wait()  # at most one step is unsealed, and an older one is deleted only after a newer one is sealed
    manager = self._managers[name]
    if step in manager.all_steps():  # damaged, or met again after going back
      manager.delete(step)
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
    with self._writing():
      manager.save(step, args=args, force=True)
    self._sealing = self._sealer.submit(self._seal, name, step)

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as e:  # of many types, by what Orbax was doing; it raises some of them again
      what = re.split(r"\n| \[tensorstore_spec", str(e))[0] or repr(e)
      raise WriteFailed(f"a checkpoint below {self.directory} was not written: {what}") from e

  def _seal(self, name: str, step: int) -> None:
    self._managers[name].wait_until_finished()
    if jax.process_index() == 0:
      write_digests(self._folder(name) / str(step))

  def _folder(self, name: str) -> pathlib.Path:
    return self.directory if name == "last" else self.directory / "best"

  def _newest_good(self, name: str) -> int | None:
    """The newest step that passes, None if none was ever finished. Process 0 looks, all processes learn the answer."""
    steps = sorted(self._managers[name].all_steps(), reverse=True)
    answer, problems = _NONE, []
    if jax.process_index() == 0:
      for step in steps:
        problem = find_damage(self._folder(name) / str(step))
        if not problem:
          answer = step
          break
        problems.append(f"step {step}: {problem}")
        logging.warning("checkpoint in %s is not usable, going back: %s", self._folder(name), problems[-1])
      # A single step without digests is a first save that was killed. Anything more is damage, and to start anew
      # without a word would hide it.
      first_save = len(steps) == 1 and not (self._folder(name) / str(steps[0]) / DIGESTS).exists()
      if problems and answer == _NONE and not first_save:
        answer = _DAMAGED
    if jax.process_count() > 1:
      answer = int(multihost_utils.broadcast_one_to_all(np.int64(answer)))
    if answer == _DAMAGED:
      raise ValueError(f"no usable checkpoint in {self._folder(name)} ({'; '.join(problems)}): remove it to start anew")
    return None if answer == _NONE else answer


def write_digests(folder: pathlib.Path) -> None:
  """Seals a finished step: one rename puts the digests of all its files in place."""
  new = folder / (DIGESTS + ".new")
  new.write_text(json.dumps(_digests(folder), indent=1))
  new.replace(folder / DIGESTS)


def find_damage(folder: pathlib.Path) -> str:
  """What is wrong with a saved step, in words; empty if all files are as they were written."""
  try:
    expected = json.loads((folder / DIGESTS).read_text())
  except FileNotFoundError:
    return f"no {DIGESTS}: the save was killed before it was sealed"
  except ValueError:
    return f"{DIGESTS} is damaged"
  found = _digests(folder)
  missing = [name for name in expected if name not in found]
  changed = [name for name in expected if name in found and found[name] != expected[name]]
  damage = [("missing", missing), ("changed", changed)]
  return "; ".join(f"{len(names)} file(s) {what}, such as {names[0]}" for what, names in damage if names)


def _digests(folder: pathlib.Path) -> dict[str, str]:
  files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(DIGESTS))

  def digest(path: pathlib.Path) -> str:
    with path.open("rb") as f:
      return hashlib.file_digest(f, "sha256").hexdigest()

  with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing leaves the interpreter lock
    return dict(zip([str(p.relative_to(folder)) for p in files], pool.map(digest, files)))
