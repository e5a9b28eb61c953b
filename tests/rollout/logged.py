"""A world that keeps the order of all that reaches it, and the scripts that the engine's tests work in it."""

from rao_jax.envs.base import Refusal, Task
from rao_jax.rollout.budget import Caps

WIDE = Caps(window=4096, turn_tokens=1024, output_tokens=1024)
TASK = Task("logged.root", "easy", {})
LAUNCH_A = "await launch_subagent('a')"  # 26 characters


class Logged:
  """A world whose goals are plain texts and that keeps the order of all that reaches it.

  An agent's success is 0 without a message or with "failed", the message itself if that is a number, else 1.
  """

  functions = ("note",)

  def start(self, task):
    return LoggedEpisode()


class LoggedEpisode:
  def __init__(self):
    self.log = []

  def root_goal(self):
    return "root"

  def prompt(self, goal):
    return goal

  def begin(self, path, goal):
    self.log.append(("begin", path, goal))

  def call(self, path, name, args, kwargs):
    self.log.append((name, path, *args))
    return args[0]

  def subgoal(self, path, args, kwargs):
    self.log.append(("asks", path, *args))
    if kwargs or len(args) != 1 or not isinstance(args[0], str):
      return Refusal("Error: a goal is one text")
    return Refusal("Error: not that") if args[0].startswith("no") else args[0]

  def render(self, value):
    return str(value)

  def end(self, path, message):
    self.log.append(("end", path, message))
    if isinstance(message, int | float):
      return message
    return float(message not in (None, "failed"))

  def only(self, *kinds):
    return [entry for entry in self.log if entry[0] in kinds]


def agents(scripts):
  return lambda goal, rng: (cell for cell in scripts[goal])


def outputs(node):
  return [turn.output for turn in node.turns]


def by_path(tree):
  return {node.path: node for node in tree.nodes}
