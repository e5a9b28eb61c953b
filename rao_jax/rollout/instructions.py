"""What a chat model is told in the system's turn: the world, the Python it has, how to answer."""

from rao_jax.envs.base import Environment
from rao_jax.rollout.budget import STEPS, Caps

REPLY = """\
How to answer: think first, one to three sentences in <thought></thought>. Then write one cell of Python in \
<python></python>:
<thought>
I need to look this up first.
</thought>
<python>
x = 1 + 1
print(x)
</python>
The cell is run as in a notebook, and you are shown what it prints, the value on its last line, or its error. \
Variables stay from cell to cell. Write one cell at a time and wait for its output."""

PYTHON = """\
The Python of a cell is small: statements, functions, simple classes, comprehensions, f-strings, and asyncio, \
collections, datetime, functools, itertools, json, math, random, re. There are no files, no network, no other modules, \
no yield, no inheritance, no async with."""

LAUNCHES = """\
A launch has to be awaited in the cell that makes it: answer = await launch_subagent(...). Several run side by side \
with asyncio.gather: a, b = await asyncio.gather(launch_subagent(...), launch_subagent(...)). Only gather and run are \
there of asyncio. A launch that is refused, or fails, returns a text that begins with Error."""

SHARED = f"""\
Turns are shared: your goal says how many you have, each cell takes one, and a launch hands some of yours down: \
launch_subagent(..., {STEPS}=n)."""


def system_text(environment: Environment, caps: Caps) -> str:
  """The text of the system's turn for agents in `environment`."""
  recursive = caps.max_depth > 0
  own = getattr(environment, "instructions", None)
  parts = [own(recursive) if own else _of_names(environment, recursive), PYTHON]
  if recursive:
    parts += [LAUNCHES] + [SHARED] * (caps.budget == "shared")
  return "\n\n".join([*parts, REPLY])


def _of_names(environment: Environment, recursive: bool) -> str:
  """For an environment without instructions of its own."""
  functions = [f"{name}(...)" for name in environment.functions]
  functions += ["finish(message): ends your work with your answer"]
  if recursive:
    functions += ["await launch_subagent(...): a new agent works on a part of your goal; returns its answer"]
  return "\n".join(["You work towards a goal by writing Python. These functions are there:", *functions])
