"""The policy as its own judge: a verdict is one more tree, of one agent with one turn, worked with all the others.

Its prompt is the record of the judged agent, the argument of its `finish` the score. Verdicts are drawn at the
temperature of the rollout, with keys of their own, and are never trained on. A policy that has never met such a prompt,
as one cloned from demonstrations of a world, scores nearly everything 0: watch `judge/unreadable`. The judge changes as
the policy learns, and an agent may learn what its judge likes to read: watch `judge/agreement`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rao_jax.envs.base import Task
from rao_jax.judge.prompt import as_score, record_line, record_of
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Node, Tree, Turn
from rao_jax.rollout.interpreter import Interpreter
from rao_jax.rollout.keys import fold_keys
from rao_jax.rollout.protocol import CompactProtocol

ANSWER = "Call finish(x), x from 0 (not at all) to 1 (fully)."
BRANCH = (1 << 32) - 1  # folded into the judged node's key; launch indices do not come this far


class PolicyJudge:
  """Starts verdicts as trees for the frontier.

  Args:
    caps, protocol, interpreter: of the judged trees.
    instruction: what makes a good agent.
    max_chars: characters of a record, at most; the window binds as well.
    verdict_tokens: tokens that a verdict may sample.
  Raises:
    ValueError: the window has no room for a record.
  """

  def __init__(
    self, caps: Caps, protocol: CompactProtocol, interpreter: Interpreter, instruction: str, max_chars: int,
    verdict_tokens: int,
  ):  # fmt: skip
    self._caps = dataclasses.replace(
      caps, max_depth=0, max_nodes=1, budget="per_agent", max_turns=1, turn_tokens=verdict_tokens
    )
    self._protocol, self._interpreter = protocol, interpreter
    self._instruction, self._max_chars = instruction, max_chars
    self._most = caps.window - max(verdict_tokens, caps.min_turn)
    bare = Node((), None, None, "...", [], turns=[Turn("")] * caps.max_turns, message="...")
    if not self._fits(record_line(bare, 0, 0)):
      raise ValueError(
        f"a window of {caps.window} tokens has no room for a verdict: raise config.caps.window, or lower "
        f"config.judge.verdict_tokens={verdict_tokens} or the length of config.judge.instruction"
      )

  def __call__(self, nodes: Sequence[Node]) -> tuple[list["PolicyVerdict"], list[Tree]]:
    keys = fold_keys(np.stack([node.key for node in nodes]), [BRANCH] * len(nodes)) if nodes else []
    trees = [self._tree(node, key) for node, key in zip(nodes, keys)]
    return [PolicyVerdict(tree) for tree in trees], trees

  def _tree(self, node: Node, key: np.ndarray) -> Tree:
    task = Task("verdict", "verdict", {"prompt": self._prompt(record_of(node, self._fits))})
    return Tree(VerdictWorld(), task, self._caps, self._protocol, self._interpreter, key)

  def _prompt(self, record: str) -> str:
    return f"{self._instruction}\n{record}\n{ANSWER}\n"

  def _fits(self, record: str) -> bool:
    return len(record) <= self._max_chars and len(self._protocol.prompt(self._prompt(record))) <= self._most


@dataclasses.dataclass(frozen=True)
class PolicyVerdict:
  """A verdict that cannot be read is the policy's own doing: score 0."""

  tree: Tree

  def done(self) -> bool:
    return self.tree.done

  def result(self) -> float:
    if self.tree.fault:
      raise RuntimeError(f"the tree of a verdict failed: {self.tree.fault}")
    return self.tree.root.success


class VerdictWorld:
  """The world of a verdict: no functions, and a finish message that is the score."""

  functions = ()

  def start(self, task: Task) -> "VerdictEpisode":
    return VerdictEpisode(task.data["prompt"])


@dataclasses.dataclass
class VerdictEpisode:
  text: str
  readable: bool = False

  def root_goal(self) -> str:
    return self.text

  def prompt(self, goal: str) -> str:
    return goal

  def begin(self, path: tuple, goal: str) -> None:
    pass

  def render(self, value: Any) -> str:
    return ""  # nobody reads it: there is no second turn

  def end(self, path: tuple, message: Any) -> float:
    score = as_score(message)
    self.readable = score is not None
    return score or 0.0
