"""Scripted agents for documents: demonstrators to clone. They know their goal and what they have read, nothing else.

Each yields the code of a cell and is sent the output that it showed. A reader writes down who spoke, line by line, and
lets code do the rest; an agent with more lines than it can read cuts its context and asks one sub-agent for each part.
"""

import dataclasses
import json
import random
import string
from collections.abc import Generator, Sequence

from rao_jax.envs.documents.env import DocumentGoal
from rao_jax.envs.documents.questions import KINDS, LESS, MORE, NAMES, NEITHER, SAME, Question, compact
from rao_jax.rollout.protocol import CUT_MARK

Agent = Generator[str, str, None]

# Kind of question -> the answer, as an expression over `s`, the speakers line by line.
READ = {
  "count": "s.count({0})",
  "tally": "{{x:s.count(x)for x in s}}",
  "most": "max(s,key=lambda x:s.count(x))",
  "least": "min(s,key=lambda x:s.count(x))",
  "first": "s[0]",
  "last": "s[-1]",
  "list": "list(set(s))",
  "compare": "g(s.count({0}),s.count({1}))",
  "follows": "sum(x==({0},{1})for x in zip(s,s[1:]))",
  "order": f'[*[x for x in s if x in({{0}},{{1}})],"{NEITHER}"][0]',
}

_COMPARED = f'"{MORE}"if a>b else"{LESS}"if a<b else"{SAME}"'


@dataclasses.dataclass(frozen=True)
class Habits:
  """How a demonstrator works, and falls short.

  Attributes:
    lines: it reads at a time.
    reads: it makes at most; what it has to itself beyond `lines * reads` lines stays unread.
    parts: sub-agents of one cut.
    delegate: probability to cut and ask when its context is longer than it reads; else it answers from the lines it
      has read.
    missed: of a line to be left out when it writes down who spoke.
  """

  lines: int = 5
  reads: int = 3
  parts: int = 4
  delegate: float = 1.0
  missed: float = 0.0


def recursive(goal: DocumentGoal, rng: random.Random, habits: Habits = Habits()) -> Agent:
  """Reads what is short, cuts what is long."""
  n = len(goal.context)
  if n > habits.lines * habits.reads and rng.random() < habits.delegate:
    yield from _cut(goal.question, habits.parts)
  else:
    yield from _read(goal.question, n, rng, habits)


def inline(goal: DocumentGoal, rng: random.Random, habits: Habits = Habits()) -> Agent:
  """Reads as much as it can and answers; never launches."""
  yield from recursive(goal, rng, dataclasses.replace(habits, delegate=0.0))


def search(goal: DocumentGoal, rng: random.Random, habits: Habits = Habits()) -> Agent:
  """For plain-text mode: a line of code that finds who speaks."""
  yield f'{_answer(goal.question)}\nfinish(f([x.split(": ")[0]for x in context.split("\\n")]))'


def _quoted(names: Sequence[str]) -> list[str]:
  return [f'"{name}"' for name in names]


def _answer(question: Question) -> str:
  """Code that says, before anything is read, how the answer follows from the speakers."""
  value = READ[question.kind].format(*_quoted(question.names))
  return (f"g=lambda a,b:{_COMPARED}\n" if question.kind == "compare" else "") + f"f=lambda s:{value}"


def _read(question: Question, n: int, rng: random.Random, habits: Habits) -> Agent:
  """Reads `lines` lines at a time, and fewer where an output was cut: the next read begins where this one ended."""
  at, written = 0, f"{_answer(question)}\ns=[]"
  for _ in range(habits.reads):
    part = "context" if not at and n <= habits.lines else f"context[{at or ''}:{min(at + habits.lines, n)}]"
    shown = yield f"{written}\nread({part})"
    lines = shown.split("\n")
    if shown.endswith(CUT_MARK) and len(lines) > 1:
      lines = lines[:-1]
    at += len(lines)
    speakers = [line.partition(": ")[0] for line in lines]  # each behind its number
    written = f"s+={json.dumps([name for name in speakers if not rng.random() < habits.missed], separators=(',', ':'))}"
    if at >= n:
      break
  yield f'{written}\nfinish(f([x.split(" ",1)[1]for x in s]))'


def _cut(question: Question, parts: int) -> Agent:
  kind, names = question.kind, _quoted(question.names)

  def ask(part: Question, piece: str = "context[i:i+k]") -> str:
    return f'await asyncio.gather(*[launch_subagent("{compact(part)}",{piece})for i in range(0,len(context),k)])'

  size = f"k=-(-len(context)//{parts})\n"
  if kind == "count":
    yield size + f"finish(sum({ask(question)}))"
  elif kind == "follows":  # parts overlap by a line, so that no pair is cut
    yield size + f"finish(sum({ask(question, 'context[i:i+k+1]')}))"
  elif kind == "list":
    yield size + f"finish(list(set(sum({ask(question)},[]))))"
  elif kind in ("first", "last"):
    yield size + f'finish(await launch_subagent("{kind}",context[{":k" if kind == "first" else "-k:"}]))'
  elif kind == "order":
    yield size + f'finish([*[x for x in {ask(question)} if x!="{NEITHER}"],"{NEITHER}"][0])'
  else:  # from how often everyone speaks
    yield (
      size
      + f"t={ask(Question('tally'))}\nc={{x:sum(p.get(x,0)for p in t)for p in t for x in p}}\n"
      + {
        "tally": "finish(c)",
        "most": "finish(max(c,key=lambda x:c[x]))",
        "least": "finish(min(c,key=lambda x:c[x]))",
        "compare": "a,b={}\n".format(",".join(f"c.get({name},0)" for name in names)) + f"finish({_COMPARED})",
      }[kind]
    )


def pieces() -> tuple[str, ...]:
  """Texts worth one token each: what is fixed in prompts, outputs and the demonstrators' cells, in small parts."""
  prompt = (*KINDS, *(f"{kind} " for kind in NAMES), ", ", "\n", " lines", " characters", ": ", "...", CUT_MARK)
  read = (
    "s=[]\n",
    "read(context)",
    "read(context[",
    ":",
    "])",
    's+=["',
    '","',
    '"]\n',
    '"',
    "f=lambda s:",
    "finish(f([",
  )
  read += ('x.split(" ",1)[1]for x in s', 'x.split(": ")[0]for x in context.split("\\n")', "]))", "g=lambda a,b:", "g(")
  # A token for each line number and capital letter, so that names have the same tokens, behind the same, where they are
  # read and where they are written down.
  read += (*(f"{i} " for i in range(20)), *string.ascii_uppercase)
  cut = (
    "k=-(-len(context)//", "await ", "asyncio.gather(*[", 'launch_subagent("', '",context[', "i:i+k", "i:i+k+1", ":k",
    "-k:", "for i in range(0,len(context),k)]", "t=", "c=", "{x:sum(p.get(x,0)for p in t)for p in t for x in p}",
  )  # fmt: skip
  answer = (
    "finish(", ")", "(", "sum(", "max(", "min(", "list(set(", ",[])", "s.count(", "c.get(", ",0)", "a,b=",
    "s,key=lambda x:s.count(x)", "c,key=lambda x:c[x]", "s[0]", "s[-1]", "{x:s.count(x)for x in s}", "x==(",
    "for x in zip(s,s[1:])", "[*[x for x in ", "s if x in(", ' if x!="', "][0]", "if a>b else", "if a<b else",
    f'"{NEITHER}"', f'"{MORE}"', f'"{LESS}"', f'"{SAME}"',
  )  # fmt: skip
  return tuple(dict.fromkeys([*prompt, *read, *cut, *answer]))
