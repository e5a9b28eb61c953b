"""What a user implements to bring a world of their own: an `Environment` that starts `Episode`s.

An environment is a source of tasks; an episode is the live world of ONE tree of agents. Every agent (node) of the
tree is addressed by its path: the launch indices that lead to it from the root, whose path is `()`.
"""

import dataclasses
import random
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

Path = tuple[int, ...]
Goal = Any  # what one agent is asked to do; opaque to the engine
# (goal, random source) -> a script of one agent: it yields the code of a cell and is sent the output that it showed.
Demonstrator = Callable[[Goal, random.Random], Generator[str, str, None]]


@dataclasses.dataclass(frozen=True)
class Task:
  """One root task.

  Attributes:
    id: unique name, e.g. `textcraft_synth.medium.train.17`.
    difficulty: name of the split of difficulty it belongs to; metrics and reports are broken down by it.
    data: what the environment needs to start it (JSON-serialisable).
  """

  id: str
  difficulty: str
  data: dict[str, Any]


class Refusal(str):
  """The answer to a launch that is not granted: the text the model reads in place of a child's result."""


class Show(str):
  """What a function may return to put a text into the agent's output; the code that called it gets None."""


class Episode(Protocol):
  """The live world of one tree. Calls arrive in path order; nothing here may depend on clocks or on other trees."""

  def root_goal(self) -> Goal:
    """The goal of the root agent."""

  def prompt(self, goal: Goal) -> str:
    """The text an agent sees first."""

  def begin(self, path: Path, goal: Goal) -> None:
    """An agent starts: take what snapshot its success needs."""

  def call(self, path: Path, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What API function `name` answers the agent at `path`: a plain value, a `Show`, an error string for a mistake."""

  def subgoal(self, path: Path, args: tuple, kwargs: dict[str, Any]) -> Goal | Refusal:
    """The goal that a `launch_subagent(*args, **kwargs)` of the agent at `path` asks for, or why it is refused."""

  def render(self, value: Any) -> str:
    """How the value of a cell's last expression is shown to the agent."""

  def end(self, path: Path, message: Any) -> float:
    """An agent ended with the argument of its `finish`, or None if it never finished: its success, in [0, 1]."""

  # May be left out:

  def prelude(self, goal: Goal) -> str:
    """Code that prepares an agent's session before its first cell, e.g. `h = range(480)`; it can call no function."""


class Environment(Protocol):
  """A source of tasks and of live worlds to work them in."""

  functions: tuple[str, ...]  # names callable from a cell, beside `finish` and `launch_subagent`

  def start(self, task: Task) -> Episode:
    """A fresh world for one rollout of `task`."""

  def tasks(self, split: str) -> Sequence[Task]:
    """The tasks of a split, by random access; a ValueError names the splits there are."""

  # May be left out:

  pieces: tuple[str, ...]  # texts worth one token each to a tokenizer made for this environment

  def demonstrator(self, name: str, **slips: float) -> Demonstrator:
    """A scripted agent to clone in a warm start, by name, and how it falls short."""

  def instructions(self, recursive: bool) -> str:
    """What a chat model is told of the world and its functions, `finish` included, and `launch_subagent` if recursive.

    What Python there is and how to answer is told by `rollout/instructions.py`.
    """

  def task_from(self, text: str) -> Task:
    """The task that a user's own words ask for (`python -m rao_jax.solve`); a ValueError says how to ask."""
