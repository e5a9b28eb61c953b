"""Evaluates a checkpoint: greedy success by split, at any depth cap and window. Impure.

  python -m rao_jax.evaluate --workdir=runs/demo/recursive --splits=dev_easy,dev_hard --n=100 --max_depth=0
"""

import json
import pathlib
from collections.abc import Sequence

import jax
from absl import app, flags
from ml_collections import ConfigDict

from rao_jax.build import Run, make_run
from rao_jax.checkpoint import Checkpointer
from rao_jax.config import validate
from rao_jax.evaluation import evaluate, summarise
from rao_jax.policy.transformer import Params, param_shardings

def load_config(workdir: pathlib.Path) -> ConfigDict:
  path = workdir / "config.json"
  if not path.exists():
    raise FileNotFoundError(f"{path} is missing: --workdir must name the workdir of a training run")
  return ConfigDict(json.loads(path.read_text()))


def restore_params(run: Run, folder: pathlib.Path, best: bool = False) -> tuple[int, Params]:
  """(step, parameters) of the newest good checkpoint below `folder`, on this run's rollout sharding."""
  learner_state = run.abstract_state()
  with Checkpointer(folder) as checkpointer:
    restored = checkpointer.restore(learner_state, best=best)
  if restored is None:
    raise FileNotFoundError(f"no checkpoint below {folder}: train first, or name another --workdir")
  step, state, _ = restored
  return step, jax.device_put(state.params, param_shardings(run.policy, run.rollout_rules))


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"left over on the command line: {argv[1:]}; flags begin with --")
  workdir = pathlib.Path(_WORKDIR.value)
  config = load_config(workdir)
  if _MAX_DEPTH.value is not None:
    config.caps.max_depth = _MAX_DEPTH.value
  if _WINDOW.value is not None:
    config.caps.window = _WINDOW.value
    lengths = [n for n in config.rollout.cache_ladder if n < _WINDOW.value]
    config.rollout.cache_ladder = (*lengths, _WINDOW.value + config.rollout.steps)
    config.learn.row_lengths = (max(_WINDOW.value, max(config.learn.row_lengths)),)
  validate(config)
  run = make_run(config, workdir)
  folder = workdir / ("warm_start" if _CHECKPOINT.value == "warm_start" else "checkpoints")
  step, params = restore_params(run, folder, best=_CHECKPOINT.value == "best")
  frontier = run.frontier()
  results = {}
  print(f"{workdir}, {_CHECKPOINT.value} checkpoint of step {step}, temperature {_TEMPERATURE.value}")
  print(f"{'split':20} {'tasks':>6} {'success':>8} {'95% interval':>14} {'nodes':>7} {'deepest':>8} {'tokens':>8}")
  for split in _SPLITS.value or list(config.tasks.dev):
    tasks = run.environment.tasks(split)[: _N.value]
    r = results[split] = summarise(evaluate(run, frontier, params, tasks, _TEMPERATURE.value))
    low, high = r["interval"]
    print(
      f"{split:20} {r['tasks']:6d} {r['success']:8.3f} {low:6.3f}..{high:5.3f} {r['nodes_per_tree']:8.1f} "
      f"{r['deepest_solved']:8d} {r['sampled_tokens_per_tree']:8.0f}"
    )
  print(json.dumps({"workdir": str(workdir), "step": step, "splits": results}))
  run.close()


if __name__ == "__main__":
  _WORKDIR = flags.DEFINE_string("workdir", None, "Workdir of a training run.")
  _SPLITS = flags.DEFINE_list("splits", None, "Splits to evaluate on; default: those of config.tasks.dev.")
  _N = flags.DEFINE_integer("n", 100, "Tasks of each split.")
  _MAX_DEPTH = flags.DEFINE_integer("max_depth", None, "Depth cap; default: as trained. 0 removes launch_subagent.")
  _WINDOW = flags.DEFINE_integer("window", None, "Context window in tokens; default: as trained.")
  _TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "Sampling temperature; 0 is greedy.")
  _CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best", "warm_start"], "Which parameters.")
  flags.mark_flag_as_required("workdir")
  app.run(main)
