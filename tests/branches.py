"""An experiment in a world where a policy learns in seconds to sample whole cells at random, so that its trees branch.

`get_config("tensor=2,fsdp=2")` sets the mesh. With the environment variable BRANCHES_FAIL=n the judge of process 1
fails when it is asked for the n-th time.
"""

import itertools
import os

import jax

from rao_jax.config import base_config
from rao_jax.envs.base import Task
from tests.simple import Simple

CELLS = (
  "print(await launch_subagent(0))", "print(await launch_subagent(1), await launch_subagent(2))", "print(1234567)",
  "finish(0)", "finish(1)",
)  # fmt: skip


class Branches(Simple):
  pieces = (*CELLS, "root", "child ")

  def tasks(self, split):
    return [Task(f"branches.{i}", "easy", {}) for i in range(8)]

  def demonstrator(self, name):
    return lambda goal, rng: (rng.choice(CELLS) for _ in range(3))

  def subgoal(self, path, args, kwargs):
    return f"child {args[0]}"

  def end(self, path, message):
    return float(message == 1)


def make():
  return Branches()


asked = itertools.count(1)


def judge(node):
  """Half of what the world gives."""
  if jax.process_index() == 1 and next(asked) == int(os.environ.get("BRANCHES_FAIL", 0)):
    raise ConnectionError("gone")
  return 0.5 * float(node.message == 1)


def get_config(mesh=""):
  c = base_config()
  c.environment.name = "tests.branches:make"
  c.tasks.train = dict(all=4)
  c.tasks.dev = dict(all=5)
  c.rollouts_per_task = 4
  c.steps = 2
  for word in filter(None, mesh.split(",")):
    name, size = word.split("=")
    c.mesh[name] = int(size)
  c.policy.update(dict(layers=1, width=32, heads=4, kv_heads=2, head_size=8, mlp=64))
  c.caps.update(
    dict(max_depth=2, max_nodes=8, max_turns=3, turn_tokens=4, output_tokens=16, window=96, result_tokens=4)
  )
  c.rollout.update(dict(row_ladder=(8,), cache_ladder=(100,), steps=4, chunk=16, slots=16))
  c.learn.update(dict(warmup=0, row_lengths=(96,), tokens_per_microbatch=768))
  c.warm_start.tasks = dict(all=8)
  c.warm_start.update(dict(tokens=8000, tokens_per_update=768, warmup=2, rate=3e-2))
  c.loss.entropy_coefficient = 0.01
  c.evaluation.update(dict(every=2, temperature=1.0))
  c.checkpoint.every = 1
  c.log.update(dict(trees_every=1, trees=16, report=False, tensorboard=False))
  c.judge.kind = "tests.branches:judge"
  return c
