"""Runs the points of a sweep that are not done yet, and shows what was found.

python launch/sweep.py --experiment=experiments/textcraft_cpu.py --slots=2
python launch/sweep.py --experiment=experiments/textcraft_synth.py --backend=slurm --slots=4 \
  --option=--partition=gpu --option=--time=24:00:00
CLUSTER=c ZONE=z python launch/sweep.py --experiment=experiments/qwen3_4b.py --backend=xpk --workdir=gs://BUCKET/sweep \
  --option=--tpu-type=v6e-16

The experiment file has `sweep(add)` beside `get_config`: see rao_jax/sweep/__init__.py. Each point has a workdir below
--workdir, named by a hash of its settings. Killed at any moment, the same command goes on: points that are done are not
run again, those that are running are waited for, those that have stopped half-way go on from their last checkpoint.
WORKDIR/sweep.html and sweep.json hold the results. Leaves with 0 if all points are done or submitted, else with 1.
"""

import collections
import functools
import pathlib
import shlex
import sys

from absl import flags

from rao_jax import command
from rao_jax.sweep.clusters import ask_queue, queued, slurm_command, submit, xpk_commands
from rao_jax.sweep.local import LocalSweep, command_of
from rao_jax.sweep.points import Point, read_points
from rao_jax.sweep.results import text_table, write
from rao_jax.sweep.state import State, row_of, state_of
from rao_jax.workdir import refuse_url, take_lock

say = functools.partial(print, flush=True)


def main(f: flags.FlagValues) -> None:
  with command.settings():
    points = read_points(f.experiment)
    file, _, argument = f.experiment.partition(":")
    workdir = f.workdir or f"runs/sweeps/{pathlib.Path(file).stem}" + f"_{argument}" * bool(argument)
    if f.backend != "xpk":
      refuse_url(workdir)
    if f.backend == "local" and f.option:
      raise ValueError(f"--option={f.option[0]} is for --backend=slurm or xpk: leave it out")
    folder = seen(workdir)
    lock = None
    if folder and not f.dry_run:
      folder.mkdir(parents=True, exist_ok=True)
      lock = take_lock(folder)  # two drivers would start the same points
    states = {point.name: state_of(point, folder) if folder else State.NEW for point in points}
    if f.backend == "slurm" and not f.results and (folder / "array_1.txt").exists():
      states |= {n: State.QUEUED for n in queued(folder, ask_queue()) if states.get(n) in (State.NEW, State.BEGUN)}
  todo = [point for point in points if states[point.name] in (State.NEW, State.BEGUN)]
  counts = collections.Counter(states.values())
  say(f"{len(points)} points below {workdir}: {', '.join(f'{n} {state}' for state, n in counts.items())}")
  left = []
  if not f.results:
    run = run_local if f.backend == "local" else run_cluster
    left = run(f, points, todo, workdir, folder)
  if folder and folder.exists() and not f.dry_run:
    show(f, points, folder, states)
    lock.close()
  sys.exit(1 if left else 0)


def seen(workdir: str) -> pathlib.Path | None:
  """The folder of the workdir as this machine sees it: a bucket is looked for below /gcs, as in launch/gke.sh."""
  if not workdir.startswith("gs://"):
    return pathlib.Path(workdir)
  folder = pathlib.Path(workdir.replace("gs://", "/gcs/", 1))
  if pathlib.Path(*folder.parts[:3]).exists():
    return folder
  say(f"{workdir} is not mounted at {folder}: which points are done cannot be seen, xpk refuses jobs that exist")
  return None


def run_local(
  f: flags.FlagValues, points: list[Point], todo: list[Point], workdir: str, folder: pathlib.Path
) -> list[Point]:
  """Returns the points that did not come to their end."""
  if f.dry_run:
    for point in todo:
      say(
        "+ "
        + shlex.join(["python", "-m", "rao_jax.train", *command_of(f.experiment, point, f"{workdir}/{point.name}")])
      )
    return []
  refresh = lambda: write(folder, f.experiment, [row_of(p, state_of(p, folder), folder) for p in points], f.metric)
  with command.settings():
    sweep = LocalSweep(f.experiment, points, folder, f.slots, say, refresh)
  sweep.run()
  return [*sweep.failed, *sweep.unfinished]


def run_cluster(
  f: flags.FlagValues, points: list[Point], todo: list[Point], workdir: str, folder: pathlib.Path | None
) -> list:
  """Submits what is to do; returns the commands that failed."""
  if not todo:
    return []
  if f.backend == "slurm":
    words, file, lines = slurm_command(f.experiment, todo, folder, f.slots, f.option)
    if f.dry_run:
      say(f"+ {shlex.join(words)}\n{file} would hold:\n{lines}", end="")
      return []
    file.write_text(lines)
    return submit([words], say)
  with command.settings():
    words = xpk_commands(f.experiment, todo, workdir, f.name, f.option, f.dry_run)
  return submit(words, say)


def show(f: flags.FlagValues, points: list[Point], folder: pathlib.Path, before: dict[str, State]) -> None:
  rows = []
  for point in points:
    state = state_of(point, folder)
    if before[point.name] is State.QUEUED and state in (State.NEW, State.BEGUN):
      state = State.QUEUED
    rows.append(row_of(point, state, folder))
  write(folder, f.experiment, rows, f.metric)
  say(f"\n{text_table(rows, f.metric)}\n\n{folder / 'sweep.html'}")


if __name__ == "__main__":
  flags.DEFINE_string("experiment", None, "FILE or FILE:ARGUMENT, with get_config and sweep(add).", required=True)
  flags.DEFINE_string("workdir", None, "Where the points' workdirs are; default runs/sweeps/EXPERIMENT.")
  flags.DEFINE_enum("backend", "local", ["local", "slurm", "xpk"], "This machine, a SLURM array, or an xpk job each.")
  flags.DEFINE_integer("slots", 1, "Points that run side by side, locally or of an array.", lower_bound=1)
  flags.DEFINE_multi_string("option", [], "A word for sbatch or launch/gke.sh, e.g. --option=--partition=gpu.")
  flags.DEFINE_string("name", "rao", "What the names of xpk jobs begin with; a job that exists needs another.")
  flags.DEFINE_string("metric", "eval/success", "What the points are compared by: its last value.")
  flags.DEFINE_bool("results", False, "Run nothing, show the results so far.")
  flags.DEFINE_bool("dry_run", False, "Print the commands, run nothing.")
  command.run(main)
