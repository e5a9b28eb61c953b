"""How the cost of a rollout grows with the depth and branching of its trees, and with the number of processes.

python -m benchmarks.scaling_mesh                        eight virtual CPU devices in one process
python -m benchmarks.scaling_mesh --processes=2          the same devices in 2 processes, or in 4

Trees of a given shape are worked by a script in place of the policy: the device programs run as they would, what they
sample is replaced by the script's tokens. So the counts are exact; the seconds are of a tiny policy on this CPU.
"""

import argparse
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from rao_jax.envs.base import Task

TREES = 32
# (depth, branching): one node, chains, fans, bushes. Of the last, every other tree is one node: as trees are dealt out
# to the parts of the mesh in turn, half of the parts are soon without work.
SHAPES = (((0, 0),), ((1, 1),), ((3, 1),), ((7, 1),), ((1, 3),), ((1, 7),), ((2, 2),), ((3, 2),), ((0, 0), (3, 2)))


class World:
  """The goal of an agent is the shape of its tree from there on: it launches its children at once, then finishes."""

  functions = ()

  def __init__(self, shape=(0, 0)):
    self.shape = shape

  def start(self, task):
    return World(task.data["shape"])

  def root_goal(self):
    return self.shape

  def prompt(self, goal):
    return f"{goal[0]} deep, {goal[1]} wide"

  def begin(self, path, goal):
    pass

  def subgoal(self, path, args, kwargs):
    return args

  def render(self, value):
    return ""

  def end(self, path, message):
    return 1.0


def code_of(goal: tuple[int, int], turn: int) -> str:
  depth, width = goal
  if not depth or turn:
    return "finish(1)"
  return f"await asyncio.gather({','.join([f'launch_subagent({depth - 1},{width})'] * width)})"


def measure() -> None:
  """Prints a table, from the first process."""
  import jax

  from rao_jax.build import make_run
  from rao_jax.config import base_config
  from rao_jax.policy.params import param_shardings
  from rao_jax.policy.transformer import init_params
  from rao_jax.rollout.collect import collect
  from rao_jax.rollout.engine import Tree

  class Scripted(Tree):
    """What is sampled is replaced by the tokens of the script."""

    def sample(self, node, tokens, logps):
      done = len(node.tokens) - node.turn_start
      part = list(self._protocol.script(code_of(node.goal, len(node.turns)))[done : done + len(tokens)])
      super().sample(node, part, [0.0] * len(part))
      node.fed = min(node.fed, len(node.tokens) - 1)

  config = base_config()
  config.environment.name = "benchmarks.scaling_mesh:World"
  config.mesh.data = 8
  config.policy.update(dict(layers=2, width=64, heads=4, kv_heads=2, head_size=16, mlp=128))
  config.caps.update(dict(max_depth=7, max_nodes=64, max_turns=4, turn_tokens=256, output_tokens=64, window=640))
  config.rollout.update(dict(row_ladder=(8, 32, 128), cache_ladder=(656,), slots=256, steps=16, chunk=64))
  with tempfile.TemporaryDirectory() as folder:
    run = make_run(config, pathlib.Path(folder))
  frontier = run.frontier()
  layout = param_shardings(run.policy, run.rollout_rules)
  params = jax.jit(lambda key: init_params(run.policy, key), out_shardings=layout)(jax.random.key(0))
  key = jax.device_get(jax.random.key_data(run.root_key))

  def rollout(shapes):
    """(trees, slices, seconds, counts) of one batch."""
    tasks = [Task(str(i), "all", {"shape": shapes[i % len(shapes)]}) for i in range(TREES)]
    trees = [Scripted(run.environment, task, run.caps, run.protocol, run.interpreter, key) for task in tasks]
    slices, before, began = [], frontier.counts.copy(), time.monotonic()
    collect(params, trees, frontier, 1.0, on_tick=slices.append)
    return trees, len(slices) - 1, time.monotonic() - began, frontier.counts - before

  lines = [
    f"{jax.process_count()} process(es), {TREES} trees",
    "| trees (deep x wide) | nodes a tree | slices | row steps a node | without a node | evictions | seconds |",
    "|---|--:|--:|--:|--:|--:|--:|",
  ]
  for shapes in SHAPES:
    rollout(shapes)
    trees, slices, seconds, c = rollout(shapes)
    nodes, name = sum(len(tree.nodes) for tree in trees), " and ".join(f"{d} x {w}" for d, w in shapes)
    empty = c["empty_steps"] / c["row_steps"]
    lines.append(
      f"| {name} | {nodes / TREES:g} | {slices} | {c['row_steps'] / nodes:.0f} | {empty:.0%} | {c['evictions']} "
      f"| {seconds:.2f} |"
    )
  run.close()
  if jax.process_index() == 0:
    print("\n".join(lines))


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--processes", type=int, default=1, choices=(1, 2, 4))
  parser.add_argument("--place", help="host:port,number: of one of several processes, which this script starts itself")
  words = parser.parse_args()
  if words.processes > 1 and not words.place:
    with socket.socket() as s:
      s.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{s.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.scaling_mesh", f"--processes={words.processes}"]
    running = [subprocess.Popen([*command, f"--place={address},{i}"]) for i in range(words.processes)]
    sys.exit(max(process.wait() for process in running))
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={8 // words.processes}"
  if words.place:
    import jax

    address, number = words.place.split(",")
    jax.distributed.initialize(address, words.processes, int(number))
  measure()


if __name__ == "__main__":
  main()
