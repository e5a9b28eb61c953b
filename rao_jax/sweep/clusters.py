"""The points of a sweep as jobs: a SLURM array, or one xpk job each. Impure: submits them, asks the queue.

A job is the training that `launch/slurm.sbatch` and `launch/gke.sh` run for a single one, restarts included. Here it is
only decided which points to submit.
"""

import hashlib
import pathlib
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence

from rao_jax.sweep.local import command_of
from rao_jax.sweep.points import Point

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


def array_name(folder: pathlib.Path) -> str:
  """What the names of this sweep's arrays begin with: the queue tells by it what is waiting there."""
  return f"rao-{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]}"


def queued(folder: pathlib.Path, listed: str) -> set[str]:
  """Names of the points that the queue holds.

  Args:
    folder: of the sweep; has the lines of its arrays.
    listed: lines of `squeue --noheader --array --format='%j %K'`: name of a job, index in its array.
  """
  found = set()
  for line in listed.splitlines():
    match = re.fullmatch(rf"{array_name(folder)}-(\d+) (\d+)", line.strip())
    if match and (file := folder / f"array_{match[1]}.txt").exists():
      workdir = next(w for w in shlex.split(file.read_text().splitlines()[int(match[2])]) if w.startswith("--workdir="))
      found.add(pathlib.Path(workdir).name)
  return found


def ask_queue() -> str:
  """The user's jobs as `queued` reads them."""
  try:
    words = ["squeue", "--me", "--noheader", "--array", "--format=%j %K"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
  except FileNotFoundError:
    raise ValueError("--backend=slurm: there is no squeue here: run it on a login node of the cluster") from None
  except subprocess.CalledProcessError as e:
    raise ValueError(f"--backend=slurm: squeue answers {e.stderr.strip()!r}: is this a login node?") from None


def slurm_command(
  experiment: str, points: Sequence[Point], folder: pathlib.Path, slots: int, options: Sequence[str]
) -> tuple[list[str], pathlib.Path, str]:
  """(the sbatch command of an array of the points, the file that it reads, the lines of that file)."""
  number = 1 + max([0, *(int(path.stem.partition("_")[2]) for path in folder.glob("array_*.txt"))])
  file = folder.absolute() / f"array_{number}.txt"
  lines = [shlex.join(command_of(experiment, point, str(folder.absolute() / point.name))) for point in points]
  command = [
    "sbatch", f"--job-name={array_name(folder)}-{number}", f"--array=0-{len(points) - 1}%{slots}",
    f"--output={folder.absolute()}/slurm_%A_%a.log", *options, str(LAUNCH / "slurm.sbatch"), f"--points={file}",
  ]  # fmt: skip
  return command, file, "".join(line + "\n" for line in lines)


def xpk_commands(
  experiment: str, points: Sequence[Point], workdir: str, name: str, options: Sequence[str], dry_run: bool
) -> list[list[str]]:
  """A command of `launch/gke.sh` for each point; its job is named by the sweep's name and the point's."""
  if not re.fullmatch("[a-z]([-a-z0-9]{0,25}[a-z0-9])?", name):
    raise ValueError(f"--name={name}: xpk wants small letters, digits and '-', at most 27, beginning with a letter")
  return [
    [
      str(LAUNCH / "gke.sh"), *(["--dry_run"] if dry_run else []), f"--name={name}-{point.name}", *options, "--",
      *command_of(experiment, point, f"{workdir}/{point.name}"),
    ]
    for point in points
  ]  # fmt: skip


def submit(commands: Sequence[Sequence[str]], say: Callable[[str], None]) -> list[Sequence[str]]:
  """Runs the commands one after another; returns those that failed, as one whose job exists already."""
  failed = []
  for command in commands:
    say("+ " + shlex.join(command))
    if subprocess.run(command).returncode:
      failed.append(command)
  return failed
