"""The time that recursion takes and saves: a recursive agent against a single one, on parallel and on chained tasks.

  python -m benchmarks.wall_clock --recursive=runs/demo/recursive --single=runs/demo/single_4x [--split=dev_medium]

Of the split, the tasks whose recipes are widest (`parallel`) and those whose are nearest to a chain (`chained`): items
to craft over the longest chain of them. One tree at a time, sampled as evaluated in training, the sides in turns;
medians over the tasks that both solve. Tokens are those sampled, steps the decode steps that ran one after the other.
"""

import argparse
import pathlib
import statistics
import time

from benchmarks.sides import Summary, print_table
from rao_jax.envs.base import Task
from rao_jax.envs.textcraft.crafting import RecipeBook
from rao_jax.evaluate import Options, Subject, load
from rao_jax.evaluation import evaluate
from rao_jax.rollout.summary import critical_path

MEASURED = ("seconds", "steps", "tokens", "critical path")


def width(world: RecipeBook, task: Task) -> float:
  """Items to craft over the longest chain of them, by the first recipe of each."""
  chains: dict[str, int] = {}  # item -> the longest chain down from it, itself included

  def chain(item: str) -> int:
    if (recipes := world.recipes_of(item)) and item not in chains:
      chains[item] = 1 + max(map(chain, recipes[0].ingredients))
    return chains.get(item, 0)

  longest = max(map(chain, task.data["targets"]))
  return len(chains) / longest


def measure(subject: Subject, task: Task) -> tuple[bool, tuple[float, ...]]:
  """(whether the task was solved, the figures in the order of MEASURED) of one tree worked alone."""
  before, began = subject.frontier.decode_steps, time.perf_counter()
  [tree] = evaluate(subject.run, subject.frontier, subject.params, [task], subject.run.config.evaluation.temperature)
  seconds = time.perf_counter() - began
  steps = subject.frontier.decode_steps - before
  return tree.root.success >= 1, (seconds, steps, tree.ledger.sampled, critical_path(tree.nodes))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--recursive", type=pathlib.Path, required=True)
  parser.add_argument("--single", type=pathlib.Path, required=True)
  parser.add_argument("--split", default="dev_medium")
  parser.add_argument("--tasks", type=int, default=60, help="of each kind")
  o = parser.parse_args()
  sides = {name: load(path, Options(), name) for name, path in (("recursive", o.recursive), ("single", o.single))}
  environment = sides["recursive"].run.environment
  source = environment.tasks(o.split)
  widths = {task.id: width(environment.book(task), task) for task in (source[i] for i in range(len(source)))}
  tasks = sorted((source[i] for i in range(len(source))), key=lambda task: widths[task.id])
  if len(tasks) < 2 * o.tasks:
    raise SystemExit(f"--tasks={o.tasks}: split {o.split} has {len(tasks)} tasks, twice as many are needed")
  summary, rows = Summary(), []
  for side in sides.values():  # compiles
    measure(side, tasks[0])
  for kind, some in {"parallel": tasks[-o.tasks :], "chained": tasks[: o.tasks]}.items():
    runs = [{name: measure(side, task) for name, side in sides.items()} for task in some]
    both = [run for run in runs if all(solved for solved, _ in run.values())]
    if not both:
      raise SystemExit(f"the agents solve no {kind} task both: nothing to compare")
    found = {name: dict(zip(MEASURED, map(statistics.median, zip(*(run[name][1] for run in both))))) for name in sides}
    wide = statistics.fmean(widths[task.id] for task in some)
    for name, figures in found.items():
      solved = statistics.fmean(run[name][0] for run in runs)
      rows.append([f"{kind}, {wide:.1f} wide, {len(both)} solved by both, {name}", solved, *figures.values()])
      summary.medians |= {f"{kind} {name} {key}": value for key, value in figures.items()}
      summary.medians |= {f"{kind} {name} success": solved}
    for key in MEASURED:
      summary.ratio(f"{kind} {key}", found["single"][key] / found["recursive"][key])
    summary.medians |= {f"{kind} tasks": len(both)}
  print_table(["tasks, agent", "success", *MEASURED], rows)
  summary.print()


if __name__ == "__main__":
  main()
