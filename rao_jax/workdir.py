"""A workdir belongs to one config and to one run at a time, and tells of every start. Impure: owns its small files."""

import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any, TextIO

import jax
from ml_collections import ConfigDict

from rao_jax import __version__
from rao_jax.checkpoint import DIGESTS
from rao_jax.hf_tokenizer import JSON_FILE, MODEL_FILE
from rao_jax.metrics import read_metrics
from rao_jax.processes import first

LOCK = "lock"
STARTS = "starts.jsonl"
CLONING = "cloning"  # folder of a warm start on its way
FINISHED = "finished.json"  # the summary of a run that has come to its end; gone while a later start goes on
# What may change on the way: how long to go on, how to report and how to reach the judge.
MAY_CHANGE = (
  "steps", "sampled_tokens", "max_seconds", "evaluation", "checkpoint", "log", "compile_cache", "judge.in_flight",
  "judge.unreachable", "judge.endpoint",
)  # fmt: skip
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections", "pydantic-monty")


def claim(workdir: pathlib.Path, config: ConfigDict) -> TextIO | None:
  """Makes the workdir this config's, on process 0; the others look whether it is the same folder and config.

  Returns:
    the lock, on process 0: closing it, or the end of the process, gives the workdir up.
  Raises:
    ValueError: another run is at work there, or it was made with another config.
  """
  path = workdir / "config.json"
  if first():
    workdir.mkdir(parents=True, exist_ok=True)
    lock = take_lock(workdir)
    try:
      if path.exists():
        settle_changes(workdir, ConfigDict(json.loads(path.read_text())), config)
    except ValueError:
      lock.close()
      raise
    path.write_text(json.dumps(config.to_dict(), indent=2))
    with (workdir / STARTS).open("a") as f:
      f.write(json.dumps(start_record(config)) + "\n")
    return lock
  if not path.exists():
    raise FileNotFoundError(f"{path} was written by process 0, but is not here: --workdir must be one shared folder")
  if json.loads(path.read_text()) != json.loads(json.dumps(config.to_dict())):
    raise ValueError(f"{path} was written by process 0 and differs from this process's config: start all alike")
  return None


def has_state(workdir: pathlib.Path) -> bool:
  """Whether an earlier start has left a state to go on from: of its steps, or of its warm start."""
  return any(list(workdir.glob(f"{name}/[0-9]*/{DIGESTS}")) for name in ("checkpoints", "warm_start", CLONING))


def refuse_url(workdir: str) -> None:
  """Runs append to files and rename folders, which object stores do not do: `gs://bucket` would be a folder `gs:`."""
  if "://" in workdir:
    raise ValueError(
      f"--workdir={workdir} is a URL: mount the bucket (gcsfuse BUCKET DIR) and name a folder in DIR, or start by the "
      "scripts of launch/, which do that"
    )


def take_lock(workdir: pathlib.Path) -> TextIO:
  """The workdir's lock, which the system takes back when this process ends, however it ends."""
  lock = (workdir / LOCK).open("a+")
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    lock.seek(0)
    holder = lock.read().strip() or "another process"
    lock.close()
    raise ValueError(f"{workdir} is in use by {holder}: wait for it, end it, or choose another --workdir") from None
  lock.truncate(0)
  lock.write(f"process {os.getpid()} on {platform.node()}")
  lock.flush()
  return lock


def in_use(workdir: pathlib.Path) -> bool:
  """Whether a run is at work there. A run that claims the workdir in this very moment may be refused by the look."""
  try:
    with (workdir / LOCK).open("r+") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except FileNotFoundError:
    return False
  except BlockingIOError:
    return True
  return False


def start_record(config: ConfigDict) -> dict[str, Any]:
  """What a start ran on, so that a run that went on elsewhere can be told from one that did not."""
  device = jax.devices()[0]
  return {
    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "command": sys.argv,
    "seed": config.seed,
    "versions": {
      "python": platform.python_version(),
      "rao_jax": __version__,
      **{name: importlib.metadata.version(name) for name in PACKAGES},
    },
    "devices": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    "processes": jax.process_count(),
    "host": platform.node(),
    "git": git_state(pathlib.Path.cwd()),
  }


def git_state(folder: pathlib.Path) -> dict[str, Any] | None:
  """Commit of the repository that `folder` is in, and whether tracked files differ from it; None outside of one."""

  def ask(*words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

  try:
    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
  except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit
    return None


def settle_changes(workdir: pathlib.Path, old: ConfigDict, new: ConfigDict) -> None:
  """Once a run has begun its workdir belongs to its config: all but MAY_CHANGE is refused.

  With other `steps` the learning rate follows the new schedule from there on: the run is then not the one that would
  have had so many steps from its start.
  """
  free = tuple(f"config.{key}." for key in MAY_CHANGE)

  def flat(prefix, value):
    if isinstance(value, dict):
      for key, inner in value.items():
        yield from flat(f"{prefix}.{key}", inner)
    else:
      yield prefix, list(value) if isinstance(value, tuple) else value

  a, b = (dict(flat("config", c.to_dict())) for c in (old, new))
  changed = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k) and not f"{k}.".startswith(free))
  if not changed:
    return
  if read_metrics(workdir / "metrics.jsonl") or has_state(workdir):
    rows = "\n".join(f"  {k}: {a.get(k)!r} in the workdir, {b.get(k)!r} asked for" for k in changed)
    raise ValueError(f"this workdir was made with another config:\n{rows}\nuse a fresh --workdir, or the old values")
  for name in (JSON_FILE, MODEL_FILE):  # of a start that came to nothing
    (workdir / name).unlink(missing_ok=True)
