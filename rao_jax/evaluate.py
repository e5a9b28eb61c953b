"""Evaluates a checkpoint, recursive or not, at any depth cap and context window, against single agents. Impure.

  python -m rao_jax.evaluate --workdir=runs/demo/recursive --split=dev_easy,dev_hard:50
  python -m rao_jax.evaluate --workdir=runs/demo/recursive --split=dev --difficulty=hard --k=8 --max_depth=3
  python -m rao_jax.evaluate --workdir=runs/demo/recursive --split=test_hard --single_workdir=runs/demo/single

What recursion brought and cost is told by two comparisons on the same tasks. The same checkpoint with delegation off
(unless --nosingle) shows what the trees do beyond their root; as it was trained to delegate, it says little of what a
single agent could learn. For that, train one with the same budget and name its workdir by --single_workdir.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict
from tqdm import tqdm

from rao_jax import command, processes
from rao_jax.alarms import alarms
from rao_jax.build import Run, make_run
from rao_jax.checkpoint import Checkpointer
from rao_jax.config import base_config, validate
from rao_jax.envs.base import Environment, Task
from rao_jax.evaluation import against, breakdown, evaluate, pareto, without_delegation, zero_variance
from rao_jax.evaluation_tables import tables
from rao_jax.heap import keep_memory
from rao_jax.learn.state import TrainState
from rao_jax.policy.transformer import Params
from rao_jax.processes import end_at_once, first, first_then_others
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.frontier import Frontier
from rao_jax.rollout.summary import tree_line, tree_metrics
from rao_jax.screen import Screen
from rao_jax.train import quieten, use_compile_cache

TASKS = 100  # of a split that is named without a number


def load_config(workdir: pathlib.Path) -> ConfigDict:
  """The config a workdir was trained with; settings that there were not yet have their defaults."""
  path = workdir / "config.json"
  if not path.exists():
    raise FileNotFoundError(f"{path} is missing: --workdir must name the workdir of a training run")
  return ConfigDict(_merged(base_config().to_dict(), json.loads(path.read_text())))


def _merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
  inner = {name: _merged(d, values.get(name, {})) for name, d in defaults.items() if isinstance(d, Mapping)}
  return {**defaults, **values, **inner}


def restore_state(run: Run, workdir: pathlib.Path, which: str) -> tuple[int, TrainState, dict[str, Any]]:
  """The state of a checkpoint under the training rules.

  Args:
    run: of the workdir's config.
    workdir: of a training run.
    which: `last`, `best` or `warm_start`.
  Returns:
    (step, state, the checkpoint's counters).
  """
  folder = workdir / ("warm_start" if which == "warm_start" else "checkpoints")
  if folder.exists():
    with Checkpointer(folder) as checkpointer:
      restored = checkpointer.restore(run.abstract_state(), best=which == "best")
    if restored is not None:
      return restored
  raise FileNotFoundError(f"no {which} checkpoint below {folder}: train first, or name another --checkpoint")


def parse_splits(words: Sequence[str], n: int) -> dict[str, int]:
  """`["dev_easy", "dev_hard:50"]` -> how many tasks of each."""
  out = {}
  for word in words:
    name, _, count = word.partition(":")
    if count and not (count.isdigit() and int(count)):
      raise ValueError(f"--split={word!r}: write split or split:number, e.g. dev_hard:50")
    out[name] = int(count) if count else n
  return out


def choose_tasks(
  environment: Environment, splits: Mapping[str, int], difficulties: Sequence[str] = ()
) -> dict[str, list[Task]]:
  """The first tasks of each split, of the given difficulties alone if there are any.

  A split need not exist as such if the world has one for each of its difficulties: `dev` with `easy` is `dev_easy`.
  """
  chosen, seen = {}, set()
  for split, n in splits.items():
    if not difficulties:
      chosen[split] = list(environment.tasks(split)[:n])
      continue
    try:
      source = environment.tasks(split)
    except ValueError:
      chosen |= {f"{split}_{d}": list(environment.tasks(f"{split}_{d}")[:n]) for d in difficulties}
      continue
    source = [source[i] for i in range(len(source))]
    seen.update(task.difficulty for task in source)
    for d in difficulties:
      name = split if split.endswith(f"_{d}") else f"{split}_{d}"
      chosen[name] = list(itertools.islice((task for task in source if task.difficulty == d), n))
  chosen = {name: tasks for name, tasks in chosen.items() if tasks}
  if not chosen:
    raise ValueError(f"--difficulty={','.join(difficulties)}: no such task in {[*splits]}, whose are {sorted(seen)}")
  return chosen


@dataclasses.dataclass(frozen=True)
class Options:
  """How to evaluate.

  Attributes:
    checkpoint: `last`, `best` or `warm_start`.
    temperature: of sampling; 0 is greedy, None that of evaluations in training for one tree a task, else of training.
    k: trees of a task.
    max_depth, max_nodes, context: caps in place of those the checkpoint was trained or evaluated with; None keeps them.
  """

  checkpoint: str = "last"
  temperature: float | None = None
  k: int = 1
  max_depth: int | None = None
  max_nodes: int | None = None
  context: int | None = None

  def __post_init__(self):
    if self.k < 1:
      raise ValueError(f"--k={self.k} must be at least 1")
    if self.k > 1 and self.temperature == 0:
      raise ValueError(f"--k={self.k} greedy trees of a task are all the same: leave out --greedy, or --k")


@dataclasses.dataclass
class Subject:
  """A checkpoint under evaluation."""

  name: str
  workdir: pathlib.Path
  run: Run
  frontier: Frontier
  params: Params
  step: int
  meta: dict[str, Any]

  def trees(
    self, tasks: Mapping[str, Sequence[Task]], k: int, temperature: float, screen: Screen
  ) -> dict[str, list[Tree]]:
    """split -> its trees, k of each task."""
    out = {}
    for split, some in tasks.items():
      with screen.bar(len(some) * k, f"{self.name}, {split}", unit="tree") as bar:
        on_tick = functools.partial(_show_ended, bar)
        out[split] = evaluate(self.run, self.frontier, self.params, some, temperature, k, on_tick)
    return out

  def __str__(self) -> str:
    caps = self.run.evaluation_caps
    return (
      f"{self.workdir}, step {self.step}, depth cap {caps.max_depth}, node cap {caps.max_nodes}, window {caps.window}"
    )

  def about(self) -> dict[str, Any]:
    caps = self.run.evaluation_caps
    return {
      "name": self.name,
      "workdir": str(self.workdir),
      "step": self.step,
      "sampled_tokens": self.meta.get("sampled", 0),
      "warm_start_tokens": self.meta["warm_start_tokens"],
      "max_depth": caps.max_depth,
      "max_nodes": caps.max_nodes,
      "window": caps.window,
    }


def _show_ended(bar: tqdm, still_open: Sequence[Tree]) -> None:
  bar.update(bar.total - len(still_open) - bar.n)


def load(workdir: pathlib.Path, options: Options, name: str = "") -> Subject:
  """A checkpoint as the options want it; by its name, or as what its depth cap makes it."""
  config = load_config(workdir)
  if options.max_depth is not None:
    config.caps.max_depth, config.evaluation.max_depth = options.max_depth, 0
  if options.max_nodes is not None:
    config.caps.max_nodes, config.evaluation.max_nodes = options.max_nodes, 0
  if (window := options.context) is not None:
    config.caps.window = window
    shorter = [n for n in config.rollout.cache_ladder if n < window]
    config.rollout.cache_ladder = (*shorter, window + config.rollout.steps)
    config.learn.row_lengths = (max(window, *config.learn.row_lengths),)
    config.learn.tokens_per_microbatch = max(*config.learn.row_lengths, config.learn.tokens_per_microbatch)
  if not config.judge.roots:
    config.judge.kind = "rule"  # nodes below the roots are not judged here
  validate(config)
  use_compile_cache(config)
  run = first_then_others(lambda: make_run(config, workdir))
  step, state, meta = restore_state(run, workdir, options.checkpoint)
  name = name or ("recursive" if run.evaluation_caps.max_depth else "single")
  return Subject(name, workdir, run, run.frontier(), run.rollout_params(state.params), step, meta)


def check_same_world(ours: ConfigDict, theirs: ConfigDict, workdir: pathlib.Path) -> None:
  """Refuses to compare agents of different worlds."""
  facts = lambda c: {"name": c.environment.name} | {k: v for k, v in c.environment.options.items() if k != "data_dir"}
  a, b = facts(ours), facts(theirs)
  if a != b:
    differ = [
      f"config.environment {key}: {a.get(key)!r} and {b.get(key)!r}" for key in a | b if a.get(key) != b.get(key)
    ]
    raise ValueError(f"--single_workdir={workdir} is of another world: {'; '.join(differ)}")


def evaluate_workdir(
  workdir: pathlib.Path, options: Options, splits: Mapping[str, int] | None = None, difficulties: Sequence[str] = (),
  single: bool = True, single_workdir: pathlib.Path | None = None, trees_file: pathlib.Path | None = None,
  earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
  """Evaluates, prints tables, and returns what the JSON file holds.

  Args:
    splits: split -> tasks; None takes config.tasks.dev.
    single: compare with the same checkpoint with delegation off, if it may delegate.
    single_workdir: compare with its checkpoint, of the same kind, its delegation off.
    trees_file: gets the trees of the first subject, a line each, as a report reads them.
    earlier: what this function returned before: the answer, if it was of this checkpoint, tasks and options alone.
  """
  with command.settings():
    ours = load(workdir, options)
    config = ours.run.config
    if single_workdir:
      check_same_world(config, load_config(single_workdir), single_workdir)
    tasks = choose_tasks(ours.run.environment, splits or config.tasks.dev.to_dict(), difficulties)
  temperature = options.temperature
  if temperature is None:
    temperature = config.rollout.temperature if options.k > 1 else config.evaluation.temperature
  screen = Screen(quiet=False, silent=not first())
  screen.line(
    f"{options.checkpoint} checkpoint, {options.k} tree(s) a task, "
    + (f"temperature {temperature}" if temperature else "greedy")
  )
  screen.line(f"{ours.name}: {ours}")
  head = {
    **ours.about(),
    "checkpoint": options.checkpoint,
    "temperature": temperature,
    "k": options.k,
    "trees": str(trees_file) if trees_file else None,
  }
  compared = single_workdir or (single and ours.run.evaluation_caps.max_depth)
  if earlier and not compared and _is_of(earlier, head, tasks):
    ours.run.close()
    screen.line("evaluated before:")
    screen.line(tables(earlier))
    return dict(earlier)
  work = lambda subject: subject.trees(tasks, options.k, temperature, screen)
  found = {ours.name: work(ours)}
  others = []
  if single and ours.run.evaluation_caps.max_depth:
    others.append(dataclasses.replace(ours, name="delegation off", run=without_delegation(ours.run)))
    found[others[-1].name] = work(others[-1])
  if single_workdir:
    with command.settings():
      other = load(single_workdir, dataclasses.replace(options, max_depth=0), f"single ({single_workdir.name})")
    screen.line(f"{other.name}: {other}")
    others.append(other)
    found[other.name] = work(other)
    other.run.close()
  ours.run.close()
  if trees_file and first():
    lines = [tree_line(tree, ours.step, i) for some in found[ours.name].values() for i, tree in enumerate(some)]
    trees_file.parent.mkdir(parents=True, exist_ok=True)
    trees_file.write_text("".join(json.dumps(line) + "\n" for line in lines))

  parts = {name: breakdown(trees) for name, trees in found.items()}
  everything = [tree for some in found[ours.name].values() for tree in some]
  metrics = tree_metrics(everything, "eval") | zero_variance(everything)
  result = {
    **head,
    **parts[ours.name],
    "single": [
      subject.about() | parts[subject.name] | {"against": against(found[ours.name], found[subject.name])}
      for subject in others
    ],
    "pareto": {
      split: pareto({name: part["splits"][split] for name, part in parts.items() if split in part["splits"]})
      for split in parts[ours.name]["splits"]
    },
    "metrics": metrics,
    "alarms": [dataclasses.asdict(alarm) for alarm in alarms(metrics, "eval")],
  }
  screen.line(tables(result))
  return result


def _is_of(result: Mapping[str, Any], head: Mapping[str, Any], tasks: Mapping[str, Sequence[Task]]) -> bool:
  """Whether a result begins like this, is of as many tasks of each split, and was not compared with others."""
  if any(result.get(key) != value for key, value in head.items()) or result["single"]:
    return False
  kept = head["trees"] is None or pathlib.Path(head["trees"]).exists()
  counts = {split: r["tasks"] for split, r in result["splits"].items() if "/" not in split}
  return kept and counts == {split: len(some) for split, some in tasks.items()}


def read_earlier(file: pathlib.Path) -> dict[str, Any] | None:
  """What an evaluation left in a file; None if there is none, or something else."""
  try:
    result = json.loads(file.read_text())
  except (FileNotFoundError, ValueError):
    return None
  return result if isinstance(result, dict) else None


def default_file(workdir: pathlib.Path, result: Mapping[str, Any]) -> pathlib.Path:
  """Where the JSON goes unless told: another file for other options, the same for the same."""
  sampling = f"k{result['k']}_t{result['temperature']:g}"
  splits = "+".join(f"{split}_{r['tasks']}" for split, r in result["splits"].items() if "/" not in split)[:120]
  caps = f"depth{result['max_depth']}_nodes{result['max_nodes']}_window{result['window']}"
  name = f"{result['checkpoint']}_{caps}_{sampling}_{splits}.json"
  return workdir / "evaluations" / name


def main(f: flags.FlagValues) -> None:
  quieten()
  processes.start(f)
  keep_memory()
  workdir = pathlib.Path(f.workdir)
  path = lambda name: pathlib.Path(name) if name else None
  with end_at_once():
    with command.settings():
      if f.greedy and f.temperature is not None:
        raise app.UsageError("--greedy and --temperature both say how to sample: leave one out")
      splits = parse_splits(f.split, f.n or TASKS) if f.split else None
      if splits is None and f.n:
        splits = dict.fromkeys(load_config(workdir).tasks.dev, f.n)
      options = Options(f.checkpoint, 0.0 if f.greedy else f.temperature, f.k, f.max_depth, f.max_nodes, f.context)
      if f.reuse and (not f.json or f.single or f.single_workdir):
        raise app.UsageError("--reuse needs --json and --nosingle, and no --single_workdir: add them or leave it out")
      file = path(f.json)
      earlier = read_earlier(file) if f.reuse else None
    result = evaluate_workdir(
      workdir, options, splits, f.difficulty, f.single, path(f.single_workdir), path(f.trees), earlier
    )  # fmt: skip
  if first():
    file = file or default_file(workdir, result)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(file.name + ".new")
    new.write_text(json.dumps(result, indent=2))
    new.replace(file)  # whole or not at all
    print(file)


if __name__ == "__main__":
  processes.define_flags()
  flags.DEFINE_string("workdir", None, "Workdir of a training run.", required=True)
  flags.DEFINE_list("split", None, "Splits to evaluate on, each with :tasks if not --n; default config.tasks.dev.")
  flags.DEFINE_list("difficulty", [], "Only tasks of these difficulties.")
  flags.DEFINE_integer("n", None, f"Tasks of each split; default {TASKS}, or as in config.tasks.dev.", lower_bound=1)
  flags.DEFINE_integer("k", 1, "Trees of each task: success of the best of 2, 4, ... k as well.", lower_bound=1)
  flags.DEFINE_integer("max_depth", None, "Depth cap; default as evaluated in training. 0 removes launch_subagent.")
  flags.DEFINE_integer("max_nodes", None, "Node cap of a tree; default as evaluated in training.", lower_bound=1)
  flags.DEFINE_integer("context", None, "Context window in tokens; default as trained.", lower_bound=1)
  flags.DEFINE_bool("greedy", False, "Greedy: as --temperature=0.")
  flags.DEFINE_float("temperature", None, "Of sampling; default as evaluated in training, or as trained with --k.")
  flags.DEFINE_enum("checkpoint", "last", ["last", "best", "warm_start"], "Which parameters.")
  flags.DEFINE_bool("single", True, "Compare with the same checkpoint, delegation off, on the same tasks.")
  flags.DEFINE_string("single_workdir", None, "Compare with the checkpoint of this run of a single agent as well.")
  flags.DEFINE_string("json", None, "Where the figures go; default a file named by the options in WORKDIR/evaluations.")
  flags.DEFINE_bool("reuse", False, "With --nosingle: answer from the file of --json if it holds this very evaluation.")
  flags.DEFINE_string("trees", None, "Also write the trees here, a line each, as a report reads them.")
  command.run(main)
