"""How the cost of a batch of trees grows: with nodes a tree, depth, context, and trees; rollout and update.

  make bench-scaling        or: python -m benchmarks.scaling [--plot=docs/scaling.svg] [--rounds=5]

Made-up trees of the demo's policy, whose agents read 16 and sample 48 tokens in two turns, but on the axis of context,
where a single agent works until its context is full. For each axis the seconds of a rollout (`collect`) and of an
update (packing included), and the exponent p of seconds ~ size^p, fitted over the upper half of the sizes, where fixed
costs count least. Linear growth is 1. A chain of depth d takes d + 1 times the steps of one agent on any machine:
nothing in it can be done at once. A picture needs matplotlib, which .venv-bench has. About 6 minutes on two cores.
"""

import argparse
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from benchmarks.recorded import NodeTrace, RecordedTree, TreeTrace
from benchmarks.sides import Summary, alternate, medians, print_table
from experiments.demo import get_config
from rao_jax.config import policy_config
from rao_jax.learn.losses import LossOptions
from rao_jax.learn.packing import microbatches
from rao_jax.learn.state import init_state, make_optimizer, make_schedule
from rao_jax.learn.step import Learner
from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES, Rules, make_mesh
from rao_jax.policy.transformer import init_params
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import record
from rao_jax.rollout.frontier import Frontier
from rao_jax.tree.buffer import build

VOCABULARY = 512
LONGEST = 1024
TURNS = [(8, 24), (8, 24)]


def fan(nodes: int) -> TreeTrace:
  """A root that launches all others at once."""
  children = list(range(1, nodes))
  return [NodeTrace(TURNS, [[children] if children else [], []])] + [NodeTrace(TURNS, [[], []])] * (nodes - 1)


def chain(depth: int) -> TreeTrace:
  """Every agent but the last launches one."""
  return [NodeTrace(TURNS, [[[at + 1]] if at < depth else [], []]) for at in range(depth + 1)]


def loner(context: int) -> TreeTrace:
  """One agent whose turns fill its context."""
  turns = [(8, 24)] * (context // 32)
  return [NodeTrace(turns, [[]] * len(turns))]


# Axis: sizes, and the batch of a size.
AXES: dict[str, tuple[Sequence[int], Callable[[int], list[TreeTrace]]]] = {
  "nodes a tree": ((1, 4, 16, 64), lambda n: [fan(n)] * 8),
  "depth": ((1, 2, 4, 8), lambda d: [chain(d)] * 8),
  "context": ((128, 256, 512, 1024), lambda length: [loner(length)] * 16),
  "trees": ((4, 16, 64, 256), lambda trees: [fan(1)] * trees),
}


class Costs:
  """The demo's policy, its rollout and its update."""

  def __init__(self):
    config = get_config("recursive")
    policy, mesh = policy_config(config, VOCABULARY), make_mesh(devices=jax.devices()[:1])
    rollout, train = Rules.of(mesh, ROLLOUT_RULES), Rules.of(mesh, TRAIN_RULES)
    mask = np.arange(VOCABULARY) < VOCABULARY - 1
    schedule = make_schedule(1e-4, 0, 1000, 1.0)
    optimizer = make_optimizer(schedule, 1.0, 0.9, 0.999, 1e-8, 0.0)
    self._frontier = Frontier(
      policy, rollout, mask, VOCABULARY - 1, (4, 16, 64), (128, 384, LONGEST + 16), 8, 64, slots=1024
    )
    self._learner = Learner(policy, train, optimizer, schedule, LossOptions(), mask, 1.0, (128, LONGEST), LONGEST)
    self._params = jax.jit(functools.partial(init_params, policy))(jax.random.key(0))
    self._state = init_state(policy, optimizer, train, jax.random.key(0))

  def rollout(self, traces: list[TreeTrace]) -> list[RecordedTree]:
    trees = [RecordedTree(trace, VOCABULARY - 1, i) for i, trace in enumerate(traces)]
    collect(self._params, trees, self._frontier, 1.0)
    return trees

  def update(self, trees: list[RecordedTree]) -> None:
    buffer = build([record(tree) for tree in trees])
    nodes = np.flatnonzero(buffer.exists)
    ones = np.ones(len(buffer.length), np.float32)
    parts = microbatches(buffer, nodes, ones, ones, self._learner.row_lengths, LONGEST)
    self._state, _ = self._learner.update(self._state, parts, (1 / len(nodes), 1.0))


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
  upper = len(sizes) // 2
  return float(np.polyfit(np.log(sizes[upper:]), np.log(seconds[upper:]), 1)[0])


def plot(path: str, found: dict[str, dict[str, list[float]]]) -> None:
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(1, len(AXES), figsize=(3 * len(AXES), 3), sharey=True, layout="constrained")
  for axis, (name, costs) in zip(axes, found.items()):
    for kind, marker in (("rollout", "o"), ("update", "s")):
      axis.loglog(
        AXES[name][0], costs[kind], marker=marker, label=f"{kind}, p = {exponent(AXES[name][0], costs[kind]):.2f}"
      )
    axis.set(xlabel=name, xticks=AXES[name][0], xticklabels=AXES[name][0])
    axis.minorticks_off()
    axis.legend(fontsize=8)
  axes[0].set_ylabel("seconds")
  figure.savefig(path)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--plot", help="file to draw the picture to, .svg or .png")
  parser.add_argument("--rounds", type=int, default=5)
  o = parser.parse_args()
  summary, costs, rows, found = Summary(), Costs(), [], {}
  for name, (sizes, make) in AXES.items():
    sides = {}
    for size in sizes:
      traces = make(size)
      grown = costs.rollout(traces)
      sides["rollout", size] = functools.partial(costs.rollout, traces)
      sides["update", size] = functools.partial(costs.update, grown)
    seconds = medians(alternate(sides, o.rounds))
    found[name] = {kind: [seconds[kind, size] for size in sizes] for kind in ("rollout", "update")}
    rows += [[name, size, seconds["rollout", size], seconds["update", size]] for size in sizes]
    for kind, values in found[name].items():
      key = f"{kind}_{name.replace(' ', '_')}"
      summary.medians |= {f"{key}_{size}": value for size, value in zip(sizes, values)}
      summary.ratio(f"exponent_{key}", exponent(sizes, values))
    rows.append([name, "exponent", *(exponent(sizes, found[name][kind]) for kind in ("rollout", "update"))])
  print_table(["axis", "size", "rollout, s", "update, s"], rows)
  if o.plot:
    plot(o.plot, found)
  summary.print()


if __name__ == "__main__":
  main()
