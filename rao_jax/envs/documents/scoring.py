"""How right an answer is, in [0, 1]: the rules of Oolong-Real and of Oolong-Synth (arXiv 2511.02817).

A prediction is what an agent handed to `finish`: a text, an int, a list or a dict.
"""

import ast
import datetime
import re
from typing import Any

from rao_jax.envs.documents.questions import Answer

_BASE = 0.75  # credit for a number is _BASE ** |difference|
_BOXED = re.compile(r"\\boxed\{+(?:\\text\{)?([^{}]*)\}")
_EMPTY = ("", "none", "[]")  # texts that stand for a list without elements
_COMPARISONS = ("more common", "less common", "same frequency")
_SHORT = 20  # characters: Oolong-Synth takes shorter answers whole
# Written dates that are read. The benchmark's own scorer guesses with dateutil, which reads rarer spellings too.
_DATES = (
  "%Y-%m-%d",
  "%Y/%m/%d",
  "%m/%d/%Y",
  "%m-%d-%Y",
  "%B %d, %Y",
  "%b %d, %Y",
  "%B %d %Y",
  "%b %d %Y",
  "%d %B %Y",
  "%d %b %Y",
)


def parse_answer(text: str) -> Answer:
  """An answer in the notation of Oolong-Real: a number, a comma list, or else a string."""
  try:
    return Answer(int(text))
  except ValueError:
    pass
  return Answer(_items(text) if "," in text else text)


def score(prediction: Any, answer: Answer) -> float:
  """Credit of `prediction` by the rules of Oolong-Real.

  Number: 0.75 ** |difference|. String: equal but for case and outer spaces. List: |prediction & gold| / |gold|, names
  as written; extras are not penalised. Another type than gold's: 0. A text is read as its `\\boxed{...}` says, and
  without a box as a whole, as a number, a comma list or a string (Oolong leaves a text without a box a string, but
  answers here are arguments of `finish`). One name without a comma is a list only if gold has one element.

  Ours: a gold list without elements is matched only by an empty prediction. Dict of counts (`tally`): the mean over all
  names of the two of 0.75 ** |difference|, 0 for a name that only one of them has; predicted zeros are left out.
  """
  gold = answer.value
  if isinstance(prediction, str):
    prediction = _read(prediction, gold)
  if isinstance(gold, dict):
    return _tally(prediction, gold) if isinstance(prediction, dict) else 0.0
  if isinstance(gold, tuple):
    if not isinstance(prediction, list | tuple | set | frozenset):
      return 0.0
    named = {name for name in prediction if isinstance(name, str)}
    return len(named & set(gold)) / len(gold) if gold else float(not prediction)
  if isinstance(gold, int):
    return _closeness(prediction, gold)
  right = {name.strip().lower() for name in (gold, *answer.others)}
  return float(isinstance(prediction, str) and prediction.strip().lower() in right)


def score_synth(prediction: Any, answer: str, answer_type: str) -> float:
  """Credit of `prediction` by the rules of Oolong-Synth.

  Args:
    prediction: read as text; what is scored is the part after its last colon, without `*` and brackets. Without a
      colon: the whole of a short text, the last word of a long one.
    answer: of the record: a literal list, whose first element is gold, or `[datetime.date(2023, 1, 5)]`.
    answer_type: of the record; `ANSWER_TYPE.NUMERIC` gives 0.75 ** |difference|, `ANSWER_TYPE.DATE` compares dates, all
      others want the text itself. Comparisons are matched by phrase.
  """
  gold = _synth_gold(answer)
  said = _synth_candidate(str(prediction))
  if said == str(gold):
    return 1.0
  if said in _COMPARISONS:
    return float(said in str(gold))
  kind = answer_type.removeprefix("ANSWER_TYPE.")
  if kind == "NUMERIC":
    try:
      return _closeness(int(said), int(gold))
    except ValueError:
      return 0.0
  if kind == "DATE":
    return float(_date(said) == gold)
  return 0.0


def _closeness(prediction: Any, gold: int) -> float:
  if not isinstance(prediction, int) or isinstance(prediction, bool):
    return 0.0
  return _BASE ** min(abs(prediction - gold), 1000)  # more would overflow, and is 0 anyway


def _items(text: str) -> tuple[str, ...]:
  return tuple(item.strip() for item in text.split(",") if item.strip())


def _read(text: str, gold: Any) -> Any:
  """A predicted text as the kind of value that it is; `gold` tells only between a string, a list of one and a dict."""
  if match := _BOXED.search(text):
    text = match[1]
  text = text.strip()
  if isinstance(gold, dict):
    return _counts(text)
  if isinstance(gold, tuple):
    if text.lower() in _EMPTY:
      return ()
    return _items(text) if "," in text or len(gold) == 1 else text
  return parse_answer(text).value


def _counts(text: str) -> dict[str, int] | None:
  """`Ham: 3, Hor: 1`, also with braces and quotes, as a dict; None if it is something else."""
  counts = {}
  for item in _items(text.strip("{}")) if text.lower() not in _EMPTY else ():
    name, _, count = item.rpartition(":")
    try:
      counts[name.strip().strip("'\"")] = int(count)
    except ValueError:
      return None
  return counts


def _tally(prediction: dict[Any, Any], gold: dict[str, int]) -> float:
  prediction = {name: count for name, count in prediction.items() if count != 0}
  names = prediction.keys() | gold.keys()
  if not names:
    return 1.0
  return sum(_closeness(prediction[name], gold[name]) for name in prediction.keys() & gold.keys()) / len(names)


def _synth_gold(answer: str) -> Any:
  """The gold of a record of Oolong-Synth: a date, or the first element of a literal list."""
  if match := re.fullmatch(r"\s*\[datetime\.date\((\d+), (\d+), (\d+)\)\]\s*", answer):
    return datetime.date(*map(int, match.groups()))
  try:
    return ast.literal_eval(answer)[0]
  except (ValueError, SyntaxError, TypeError, LookupError):
    raise ValueError(f"an answer of Oolong-Synth is a list of one literal or date, got {answer!r}") from None


def _synth_candidate(text: str) -> str:
  if ":" not in text:
    return text if len(text) < _SHORT else (text.split() or [""])[-1]
  said = re.sub(r"[*\[\]]", "", text.rpartition(":")[2].strip())
  if len(said) >= _SHORT:
    return next((phrase for phrase in _COMPARISONS if phrase in said), said)
  return said


def _date(text: str) -> datetime.date | None:
  for form in _DATES:
    try:
      return datetime.datetime.strptime(text.strip(), form).date()
    except ValueError:
      pass
  return None
