"""Records trees of the demo's tasks, worked by its demonstrator: benchmarks/data/*.json.gz.

  python -m benchmarks.record_trees --data_dir=runs/data            a minute, plus the drawing of the worlds

Three recordings of 128 trees. Of the training tasks, 8 rollouts of 16 tasks each, a quarter of them easy: `warm`, with
the slips that the warm start clones (the agent of the first steps, which delegates less than half of the time), and
`delegating`, where every node that can delegates (what it becomes). Of the development tasks, easy, medium and hard
ones as 1 : 2 : 2, one rollout each, under the caps of evaluations: `evaluation`, delegating too.
"""

import argparse
import pathlib
import tempfile

from benchmarks.recorded import Recorder, save, trace_of
from experiments.demo import get_config
from rao_jax.build import demonstrator, make_run, task_indices
from rao_jax.rollout.scripted import play

TRAINING = {"train_easy": 4, "train_medium": 12}
EVALUATION = {"dev_easy": 26, "dev_medium": 51, "dev_hard": 51}
TREES = 128


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--data_dir", default="runs/data")
  config = get_config("recursive")
  config.environment.options.data_dir = parser.parse_args().data_dir
  slips = config.warm_start.slips
  warm = slips.to_dict()
  with tempfile.TemporaryDirectory() as folder:
    run = make_run(config, pathlib.Path(folder))

  for name, splits, caps, habits in (
    ("warm", TRAINING, run.caps, warm),
    ("delegating", TRAINING, run.caps, {"delegate": 1.0}),
    ("evaluation", EVALUATION, run.evaluation_caps, {"delegate": 1.0}),
  ):
    tasks = []
    for split, n in splits.items():
      source = run.environment.tasks(split)
      tasks += [source[int(i)] for i in task_indices(config.seed, 0, n, len(source))]
    slips.update(dict.fromkeys(warm, 0.0) | habits)
    script, trees, rollouts = demonstrator(config, run.environment), [], TREES // len(tasks)
    for number in range(TREES):
      tree = Recorder(run.environment, tasks[number // rollouts], caps, run.protocol, run.interpreter)
      trees.append(trace_of(play(tree, script, run.protocol, (1, number))))
    save(name, trees)
    nodes = [node for tree in trees for node in tree]
    print(
      f"{name}: {len(trees)} trees, {len(nodes) / len(trees):.1f} nodes a tree, "
      f"{sum(node.length for node in nodes) / len(nodes):.1f} tokens a node"
    )
  run.close()


if __name__ == "__main__":
  main()
