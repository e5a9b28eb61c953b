"""What a chat model is told of long documents."""

from rao_jax.envs.documents.questions import KINDS

_WORLD = """\
You answer a question about a part of a long document, which is made of lines; where people speak, each line is a \
speech and begins with the speaker's name. Your part is the variable `context`. {handle}

These functions are there:"""

_HANDLE = "It is a handle of lines: len(context) is their number, and a slice of it is a handle too."
_TEXT = "It is a text: len(context) is its number of characters."

_READ = """\
read(part): shows the lines of a slice, numbered from 0, and returns nothing. What it shows is cut where it is too \
long: read no more lines at a time than are shown in full. read(context[0:20]) shows the first twenty."""

_FINISH = "finish(answer): ends your work with the answer, in the form that the question asks for."

_RECURSIVE = """\
await launch_subagent(goal: str, context) -> answer: a new agent answers a question about a slice of your context and \
returns its answer. The goal is {goals}. launch_subagent("{example}", context[0:40]) asks about the first forty.

A part that is too long to read is best cut into slices, with an agent for each, side by side. Then put their answers \
together."""


def text(plain_text: bool, free_goals: bool, recursive: bool) -> str:
  """See `Documents` for the options."""
  parts = [_WORLD.format(handle=_TEXT if plain_text else _HANDLE)]
  parts += [_FINISH] if plain_text else [_READ, _FINISH]
  if recursive:
    goals = "any question" if free_goals else f"one of these words, with the names it needs: {', '.join(KINDS)}"
    parts.append(_RECURSIVE.format(goals=goals, example="count Ham"))
  return "\n".join(parts)
