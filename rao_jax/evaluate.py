"""Evaluates a checkpoint: greedy success by split, at any depth cap and window. Impure.

python -m rao_jax.evaluate --workdir=runs/demo/recursive --splits=dev_easy,dev_hard:50 --max_depth=0
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from rao_jax import command, processes
from rao_jax.build import Run, make_run
from rao_jax.checkpoint import Checkpointer
from rao_jax.config import validate
from rao_jax.evaluation import evaluate, summarise
from rao_jax.learn.state import TrainState
from rao_jax.processes import end_at_once, first, first_then_others
from rao_jax.rollout.summary import tree_line
from rao_jax.screen import Screen
from rao_jax.train import quieten, use_compile_cache


def load_config(workdir: pathlib.Path) -> ConfigDict:
  """The config a workdir was trained with."""
  path = workdir / "config.json"
  if not path.exists():
    raise FileNotFoundError(f"{path} is missing: --workdir must name the workdir of a training run")
  return ConfigDict(json.loads(path.read_text()))


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
    if count and not count.isdigit():
      raise ValueError(f"--splits={word!r}: write split or split:number, e.g. dev_hard:50")
    out[name] = int(count) if count else n
  return out


def evaluate_workdir(
  workdir: pathlib.Path, checkpoint: str, splits: dict[str, int], temperature: float, max_depth: int | None,
  window: int | None, trees_file: pathlib.Path | None,
) -> dict[str, Any]:  # fmt: skip
  """Evaluates and prints a table; returns what --json writes."""
  with command.settings():
    config = load_config(workdir)
    if max_depth is not None:
      config.caps.max_depth, config.evaluation.max_depth = max_depth, 0
    if window is not None:
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
    screen = Screen(quiet=True, silent=not first())
    splits = splits or config.tasks.dev.to_dict()
    tasks = {split: run.environment.tasks(split)[:n] for split, n in splits.items()}
    step, state, meta = restore_state(run, workdir, checkpoint)
    params = run.rollout_params(state.params)
    frontier = run.frontier()
  results, lines = {}, []
  screen.line(f"{workdir}, {checkpoint} checkpoint of step {step}, temperature {temperature}")
  screen.line(
    f"{'split':20} {'tasks':>6} {'success':>8} {'95% interval':>14} {'nodes':>7} {'deepest':>8} {'tokens':>8}"
  )
  for split, some in tasks.items():
    trees = evaluate(run, frontier, params, some, temperature)
    lines += [tree_line(tree, step, i) for i, tree in enumerate(trees)]
    r = results[split] = summarise(trees)
    low, high = r["interval"]
    screen.line(
      f"{split:20} {r['tasks']:6d} {r['success']:8.3f} {low:6.3f}..{high:5.3f} {r['nodes_per_tree']:8.1f} "
      f"{r['deepest_solved']:8d} {r['sampled_tokens_per_tree']:8.0f}"
    )
  run.close()
  if trees_file and first():
    trees_file.parent.mkdir(parents=True, exist_ok=True)
    trees_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return {
    "step": step,
    "sampled_tokens": meta.get("sampled", 0),
    "warm_start_tokens": meta["warm_start_tokens"],
    "temperature": temperature,
    "max_depth": run.evaluation_caps.max_depth,
    "window": config.caps.window,
    "splits": results,
  }


def main(f: flags.FlagValues) -> None:
  quieten()
  processes.start(f)
  with end_at_once():
    with command.settings():
      splits = parse_splits(f.splits or [], f.n)
    result = evaluate_workdir(
      pathlib.Path(f.workdir), f.checkpoint, splits, f.temperature, f.max_depth, f.window,
      pathlib.Path(f.trees) if f.trees else None,
    )  # fmt: skip
  if f.json and first():
    pathlib.Path(f.json).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
  processes.define_flags()
  flags.DEFINE_string("workdir", None, "Workdir of a training run.", required=True)
  flags.DEFINE_list("splits", None, "Splits to evaluate on, each with :tasks if not --n; default config.tasks.dev.")
  flags.DEFINE_integer("n", 100, "Tasks of each split.")
  flags.DEFINE_integer("max_depth", None, "Depth cap; default as trained. 0 removes launch_subagent.")
  flags.DEFINE_integer("window", None, "Context window in tokens; default as trained.")
  flags.DEFINE_float("temperature", 0.0, "Sampling temperature; 0 is greedy.")
  flags.DEFINE_enum("checkpoint", "last", ["last", "best", "warm_start"], "Which parameters.")
  flags.DEFINE_string("json", None, "Also write the figures here.")
  flags.DEFINE_string("trees", None, "Also write the trees here, a line each, as a report reads them.")
  command.run(main)
