"""Long documents as an environment: a context that is cut, handed down and read a piece at a time.

A document is a sequence of lines, a speech each. Code sees the context of its agent as a handle, a `range` of lines: it
can take its length and slices and hand them to `read` or to a sub-agent, but not look inside, or one regular expression
would answer every question at any length. `read` puts lines into the agent's observation and returns None.
"""

import abc
import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import Any

from rao_jax.envs.base import Path, Refusal, Show, Task
from rao_jax.envs.documents import instructions
from rao_jax.envs.documents.questions import KINDS, Answer, Question, compact, gold, parse, sentence
from rao_jax.envs.documents.scoring import score

_HANDLE = re.compile(r"range\((\d+), (\d+)\)")  # how the sandbox hands over a range
_MOST_GOAL = 400  # characters of a goal


@dataclasses.dataclass(frozen=True)
class DocumentGoal:
  """What one agent has to answer, and out of which part of the document.

  Attributes:
    text: the goal as it was posed.
    context: line numbers of the document; in plain-text mode the text itself.
    question: the goal as one of the typed questions; None where it is free text, which only a judge can grade.
  """

  text: str
  context: range | str
  question: Question | None = None


@dataclasses.dataclass(frozen=True)
class Document:
  """What a tree works on.

  Attributes:
    lines: the text.
    speakers: who speaks each line; None where that is not known, and nothing is graded by rule but the root.
  """

  lines: Sequence[str]
  speakers: Sequence[str] | None


class Documents(abc.ABC):
  """Question answering over long documents; `factory.py` adds where the tasks come from.

  Args:
    plain_text: `context` is the text itself and there is no `read`: the easy variant, in which code may parse.
    short: goals and prompts in a few words (`count Ham`, `38 lines`) in place of English.
    free_goals: sub-agents may be given any text as a goal. Without a judge those are graded 0.
    refuse_own_goal: refuse a launch with the question and all of the context of the agent itself or an ancestor.
  """

  def __init__(
    self, plain_text: bool = False, short: bool = True, free_goals: bool = False, refuse_own_goal: bool = True
  ):
    self.plain_text, self.short = plain_text, short
    self.free_goals, self.refuse_own_goal = free_goals, refuse_own_goal
    self.functions = () if plain_text else ("read",)

  def instructions(self, recursive: bool) -> str:
    """See `Environment`."""
    return instructions.text(self.plain_text, self.free_goals, recursive)

  @abc.abstractmethod
  def document(self, task: Task) -> Document:
    """The document of a task."""

  def start(self, task: Task) -> "DocumentEpisode":
    return DocumentEpisode(self, task)

  def root_score(self, task: Task, message: Any) -> float | None:
    """The root's score where a task brings its own gold answer; None where it follows from who speaks."""
    return None


class DocumentEpisode:
  """One tree's work on one document."""

  def __init__(self, rules: Documents, task: Task):
    self.rules, self.task, self.document = rules, task, rules.document(task)
    self._goals: dict[Path, DocumentGoal] = {}
    lines, question = self.document.lines, task.data["question"]
    self._root = DocumentGoal(question, "\n".join(lines) if rules.plain_text else range(len(lines)), parse(question))

  def root_goal(self) -> DocumentGoal:
    return self._root

  def prompt(self, goal: DocumentGoal) -> str:
    n, unit = len(goal.context), "characters" if self.rules.plain_text else "lines"
    if self.rules.short:
      return f"{compact(goal.question) if goal.question else goal.text}\n{n} {unit}"
    question = sentence(goal.question) if goal.question else goal.text
    kind = "a text" if self.rules.plain_text else "a handle: slice it, read(slice) shows its text"
    return f"{question}\n\n`context` is {kind}. It has {n} {unit}."

  def prelude(self, goal: DocumentGoal) -> str:
    context = goal.context
    return f"context={context!r}" if isinstance(context, str) else f"context=range({context.start},{context.stop})"

  def begin(self, path: Path, goal: DocumentGoal) -> None:
    self._goals[path] = goal

  def call(self, path: Path, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    def read(part):
      return part

    try:
      part = inspect.signature(read).bind(*args, **kwargs).args[0]
    except TypeError:
      return "Error: read takes one slice of context"
    lines = self._part(path, part)
    if isinstance(lines, Refusal):
      return str(lines)
    # Numbered as in the agent's own context: what a reader writes down can be told apart where speakers take turns.
    first = self._goals[path].context.start
    return Show("\n".join(f"{i - first} {self.document.lines[i]}" for i in lines))

  def _part(self, path: Path, part: Any) -> range | str | Refusal:
    """The lines that a handle stands for, if the agent at `path` may read them."""
    own = self._goals[path].context
    if isinstance(own, str):
      return part if isinstance(part, str) else Refusal("Error: context has to be a text")
    match = _HANDLE.fullmatch(part) if isinstance(part, str) else None
    if not match:
      return Refusal("Error: context has to be a slice of context, without a step")
    lines = range(int(match[1]), int(match[2]))
    if lines.start < own.start or lines.stop > own.stop:
      return Refusal("Error: not a part of your context")
    return lines

  def subgoal(self, path: Path, args: tuple, kwargs: dict[str, Any]) -> DocumentGoal | Refusal:
    def launch_subagent(goal, context):
      return goal, context

    try:
      text, part = launch_subagent(*args, **kwargs)
    except TypeError:
      return Refusal("Error: launch_subagent takes a goal and a slice of context")
    if not isinstance(text, str) or not text.strip() or len(text) > _MOST_GOAL:
      return Refusal(f"Error: the goal has to be a text of at most {_MOST_GOAL} characters")
    context = self._part(path, part)
    if isinstance(context, Refusal):
      return context
    if not len(context):
      return Refusal("Error: this slice is empty")
    question = parse(text)
    if question is None and not self.rules.free_goals:
      return Refusal(f"Error: ask one of {', '.join(KINDS)}")
    goal = DocumentGoal(text, context, question)
    if self.rules.refuse_own_goal:
      for i in range(len(path) + 1):
        own = self._goals[path[:i]]
        if own.context == context and (own.text == text or (question is not None and own.question == question)):
          return Refusal("Error: own goal")
    return goal

  def render(self, value: Any) -> str:
    return value if isinstance(value, str) else repr(value)

  def end(self, path: Path, message: Any) -> float:
    """The score of the answer against that of the agent's own part of the document, as Oolong-Real scores."""
    if message is None or path not in self._goals:
      return 0.0
    if path == () and (own := self.rules.root_score(self.task, message)) is not None:
      return own
    answer = self.answer(self._goals[path])
    return 0.0 if answer is None else score(message, answer)

  def answer(self, goal: DocumentGoal) -> Answer | None:
    """Gold of a typed goal; None of a free one."""
    if goal.question is None or self.document.speakers is None:
      return None
    if isinstance(goal.context, str):
      speakers = [line.partition(": ")[0] for line in goal.context.split("\n") if ": " in line]
    else:
      speakers = self.document.speakers[goal.context.start : goal.context.stop]
    return gold(goal.question, speakers)
