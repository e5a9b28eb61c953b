"""Questions on who speaks, with the right answer for any slice of a document.

Every answer depends only on the order of the speakers' names in the slice. So the gold answer of a question that one
agent puts to another about a part of its own text is exact too, and no judge is needed.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Literal, get_args

Kind = Literal["count", "tally", "most", "least", "first", "last", "list", "compare", "follows", "order"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES = {"count": 1, "compare": 2, "follows": 2, "order": 2}  # how many names a question of a kind has; else none
MORE, LESS, SAME = "more often", "less often", "same frequency"  # answers of `compare`
NONE, NEITHER = "none", "neither"  # of a slice in which nobody speaks; in which neither of two speaks

# A sentence: what is asked, with a slot for each name, and the form that the answer has to take.
_SENTENCES: dict[str, tuple[str, str]] = {
  "count": ("How many times does {} speak?", "a number"),
  "tally": ("How many times does each speaker speak?", "a dict of speaker to number"),
  "most": ("Who speaks most often?", "the name of the speaker; of several, any one"),
  "least": ("Who speaks least often, among those who speak?", "the name of the speaker; of several, any one"),
  "first": ("Who speaks first?", "the name of the speaker"),
  "last": ("Who speaks last?", "the name of the speaker"),
  "list": ("Which speakers speak?", "a list of names, separated by commas"),
  "compare": ("Does {} speak more often, less often or as often as {}?", f"'{MORE}', '{LESS}' or '{SAME}'"),
  "follows": ("How many times does {1} speak directly after {0}?", "a number"),
  "order": ("Who speaks first, {} or {}?", f"one of the two names, or '{NEITHER}'"),
}


@dataclasses.dataclass(frozen=True)
class Question:
  """One question about a slice of a document.

  Attributes:
    kind: one of `KINDS`.
    names: `count A`: how often does A speak. `compare A, B`: A more often, less often or as often as B.
      `follows A, B`: how often does B speak directly after A. `order A, B`: which of the two speaks first. Other kinds
      have no name.
  """

  kind: Kind
  names: tuple[str, ...] = ()

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f"no kind of question {self.kind!r}: {', '.join(KINDS)}")
    if len(self.names) != NAMES.get(self.kind, 0):
      raise ValueError(f"a question {self.kind!r} has {NAMES.get(self.kind, 0)} names, got {list(self.names)}")
    if any(not name or name != " ".join(name.split()) or "," in name for name in self.names):
      raise ValueError(f"names are one line without commas and outer spaces, got {list(self.names)}")


@dataclasses.dataclass(frozen=True)
class Answer:
  """A gold answer.

  Attributes:
    value: int, str, sorted tuple of names, or dict of name to count.
    others: of a str: further answers that are as right (speakers who are tied).
  """

  value: int | str | tuple[str, ...] | dict[str, int]
  others: tuple[str, ...] = ()


def compact(question: Question) -> str:
  """The short form: `count Ham`, `compare Ham, Hor`, `tally`."""
  return f"{question.kind} {', '.join(question.names)}".strip()


def sentence(question: Question) -> str:
  """The question in English, with the form that its answer has to take."""
  asked, form = _SENTENCES[question.kind]
  return f"{asked.format(*question.names)} Answer with {form}."


def parse(text: str) -> Question | None:
  """The question of a compact form or of a sentence (with or without the part on the answer's form); None if neither.

  Names are taken as written: a name that nobody has is a question too, with its own gold answer.
  """
  text = " ".join(text.split())
  kind, _, rest = text.partition(" ")
  kind = kind.lower()
  if kind in KINDS:
    names = tuple(name.strip() for name in rest.split(",")) if rest else ()
    if len(names) == NAMES.get(kind, 0) and all(names):
      return Question(kind, names)
  for kind, pattern in _PATTERNS.items():
    if match := pattern.fullmatch(text):
      return Question(kind, tuple(match[f"name{i}"] for i in range(NAMES.get(kind, 0))))
  return None


def gold(question: Question, speakers: Sequence[str]) -> Answer:
  """The right answer for the slice in which `speakers` speak, in this order, one name a speech; it may be empty."""
  names = question.names
  counts = collections.Counter(speakers)
  match question.kind:
    case "count":
      return Answer(counts[names[0]])
    case "tally":
      return Answer(dict(sorted(counts.items())))
    case "list":
      return Answer(tuple(sorted(counts)))
    case "most" | "least":
      extreme = (max if question.kind == "most" else min)(counts.values(), default=0)
      tied = sorted(name for name, count in counts.items() if count == extreme)
      return Answer(tied[0], tuple(tied[1:])) if tied else Answer(NONE)
    case "first":
      return Answer(speakers[0] if speakers else NONE)
    case "last":
      return Answer(speakers[-1] if speakers else NONE)
    case "compare":
      difference = counts[names[0]] - counts[names[1]]
      return Answer(MORE if difference > 0 else LESS if difference < 0 else SAME)
    case "follows":
      return Answer(sum(pair == names for pair in itertools.pairwise(speakers)))
    case "order":
      return Answer(next((speaker for speaker in speakers if speaker in names), NEITHER))
  raise AssertionError(question.kind)


def _pattern(asked: str) -> re.Pattern[str]:
  """The sentence as a pattern: case is free, the full stop and the part on the form may be missing."""
  slots = iter(range(2))
  parts = re.split(r"(\{\d?\})", asked)
  for i, part in enumerate(parts):
    if part.startswith("{"):
      slot = part[1:-1] or next(slots)
      parts[i] = f"(?P<name{slot}>[^,?]+?)"
    else:
      parts[i] = re.escape(part)
  return re.compile("".join(parts) + r"(?: Answer with .*)?", re.IGNORECASE)


# Sentences without a name first: "each speaker" is no name.
_PATTERNS = {kind: _pattern(_SENTENCES[kind][0]) for kind in sorted(KINDS, key=lambda kind: NAMES.get(kind, 0))}
