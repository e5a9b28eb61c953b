"""Replays the published plans: every craft through the real environment, every grade under both rules of success.

  python -m rao_jax.envs.textcraft.replay --source=canonical     both benchmarks
  python -m rao_jax.envs.textcraft.replay --source=generated     TextCraft-Synth tasks of our own

Prints a line for each split; exits with 1 if a plan fails. Nine plans of TextCraft have a step that names `tag:planks`
for an item. The authors' environment refuses it, and so does this one: such plans are counted apart.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from rao_jax.envs.base import Task
from rao_jax.envs.textcraft.crafting import TAG
from rao_jax.envs.textcraft.env import TextCraft
from rao_jax.envs.textcraft.factory import TextCraftSynth
from rao_jax.envs.textcraft.minecraft import Minecraft
from rao_jax.envs.textcraft.tasks import DIFFICULTIES

SYNTH_SPLITS = tuple(f"{split}_{difficulty}" for split in ("train", "val") for difficulty in DIFFICULTIES)


def environments(source: str, data_dir: str, manual_dir: str, success: str) -> list[tuple[TextCraft, Sequence[str]]]:
  """The benchmarks of a source under one rule of success, each with its splits; full texts, as published."""
  rules = dict(success=success, compact=False, refuse_ancestor_goals=False)
  known = [(TextCraftSynth(data_dir, source, manual_dir, **rules), SYNTH_SPLITS)]
  if source == "canonical":
    known.append((Minecraft(data_dir, manual_dir, **rules), ("train", "val")))
  return known


def is_playable(task: Task) -> bool:
  """Whether every step of a task's plan names items."""
  return not any(name.startswith(TAG) for _, _, *given in task.data["gold"] for part in given for name in part)


def replay(environment: TextCraft, task: Task) -> bool:
  """Whether a task's plan goes through without an error and is graded a success."""
  episode = environment.start(task)
  episode.begin((), episode.root_goal())
  for item, units, *given in task.data["gold"]:
    # A plan of our own names no ingredients: they are those of the item's one recipe.
    ingredients = given[0] if given else _ingredients(environment, task, item, units)
    if episode.call((), "craft", (ingredients, (item, units)), {}).startswith("Error"):
      return False
  return episode.end((), "done") == 1.0


def _ingredients(environment: TextCraft, task: Task, item: str, units: int) -> dict[str, int]:
  (recipe,) = environment.book(task).recipes_of(item)
  return {part: quantity * units // recipe.result_count for part, quantity in recipe.ingredients.items()}


def replay_all(source: str, data_dir: str, manual_dir: str, limit: int | None) -> Iterator[tuple[str, int, int, int]]:
  """(data set and split, tasks, plans that succeed under both rules, unplayable plans) of one split after another.

  Args:
    source: a data set of `dataset.py` whose tasks are split by difficulty.
    data_dir, manual_dir: see `TextCraftSynth`.
    limit: tasks of each split, None for all.
  """
  by_rule = [environments(source, data_dir, manual_dir, success) for success in ("produced", "delta")]
  for (produced, splits), (delta, _) in zip(*by_rule):
    name = "textcraft_minecraft" if isinstance(produced, Minecraft) else f"textcraft_synth/{source}"
    for split in splits:
      tasks = produced.tasks(split)[:limit]
      bar = tqdm(tasks, desc=f"{name} {split}", unit="task", leave=False, disable=None)
      succeeded = sum(replay(produced, task) and replay(delta, task) for task in bar)
      yield f"{name} {split}", len(tasks), succeeded, sum(not is_playable(task) for task in tasks)


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog="python -m rao_jax.envs.textcraft.replay", description=__doc__.split("\n")[0])
  parser.add_argument("--source", default="canonical", help="canonical, generated or generated_<seed>")
  parser.add_argument("--data_dir", default="runs/data", help="where the data sets live; made if missing")
  parser.add_argument(
    "--manual_dir", default="", help="folder of the wheel; default: downloads/manual below --data_dir"
  )
  parser.add_argument("--limit", type=int, help="tasks of each split; default: all")
  args = parser.parse_args(argv)
  if args.source != "canonical" and not args.source.startswith("generated"):
    parser.error(f"--source={args.source} is unknown: use canonical, generated or generated_<seed>")
  if args.limit is not None and args.limit < 1:
    parser.error(f"--limit={args.limit} has to be at least 1")
  total = np.zeros(3, int)
  try:
    for name, *numbers in replay_all(args.source, args.data_dir, args.manual_dir, args.limit):
      print(line(name, *numbers), flush=True)
      total += numbers
  except ValueError as error:  # the wheel is missing or not the published one
    sys.exit(str(error))
  print(line("all", *total))
  tasks, succeeded, unplayable = total
  return int(succeeded + unplayable != tasks)


def line(name: str, tasks: int, succeeded: int, unplayable: int) -> str:
  note = f", {unplayable} plans name a tag for an item, which the benchmark refuses too" if unplayable else ""
  return f"{name:40} {tasks:5} tasks, {succeeded:5} succeeded{note}"


if __name__ == "__main__":
  sys.exit(main())
