"""An experiment in a world so simple that a policy learns it in seconds: the root hands down, the child finishes."""

from rao_jax.config import base_config
from rao_jax.envs.base import Task
from tests.simple import Simple

HAND_DOWN, FINISH = "finish(await launch_subagent(1))", "finish(1)"


class Pair(Simple):
  pieces = (HAND_DOWN, FINISH, "root", "child")

  def tasks(self, split):
    return [Task(f"pair.{i}", "easy", {}) for i in range(4)]

  def demonstrator(self, name):
    return lambda goal, rng: iter([HAND_DOWN if goal == "root" else FINISH])

  def subgoal(self, path, args, kwargs):
    return "child"

  def end(self, path, message):
    return float(message is not None)


def make():
  return Pair()


def get_config(url):
  """Eight trees a step, their children judged by the endpoint at `url`."""
  c = base_config()
  c.environment.name = "tests.judge.pair:make"
  c.tasks.train = dict(all=2)
  c.rollouts_per_task = 4
  c.steps = 4
  c.mesh.data = 8
  c.policy.update(dict(layers=1, width=32, heads=2, kv_heads=1, head_size=16, mlp=32))
  c.caps.update(
    dict(max_depth=1, max_nodes=4, max_turns=2, turn_tokens=4, output_tokens=16, window=64, result_tokens=4)
  )
  c.rollout.update(dict(row_ladder=(8,), cache_ladder=(72,), steps=4, chunk=80, slots=64))
  c.learn.update(dict(warmup=0, row_lengths=(64,), tokens_per_microbatch=512))
  c.warm_start.tasks = dict(all=4)
  c.warm_start.update(dict(tokens=1000, tokens_per_update=64, warmup=2, rate=1e-2))
  c.loss.report_entropy = False
  c.evaluation.every = 0
  c.checkpoint.every = 10
  c.log.update(dict(trees_every=0, report=False, tensorboard=False))
  c.judge.update(dict(kind="endpoint", model="m"))
  c.judge.endpoint.update(dict(base_url=url, api_key_variable="", max_retries=0))
  return c
