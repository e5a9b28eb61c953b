"""What a model that judges is shown, and how its answer is read.

The record of an agent is one line of JSON: its goal, its cells and outputs, its final message. Inside a JSON text a
quote, a backslash and a line break are escaped, so whatever an agent wrote stays within its own text: it cannot end
the record, add a field or speak outside of it. An answer is read from the judge's reply alone, never from the record.
That does not protect against persuasion: an agent can still write, inside its texts, that it deserves a 1, and a weak
judge may believe it. Watch `judge/agreement` where the environment has a grade.
"""

import json
from collections.abc import Callable
from typing import Any

from rao_jax.rollout.engine import Node
from rao_jax.rollout.protocol import CUT_MARK

SHORT = 32  # characters of a text, below which rather whole turns are left out


def record_of(node: Node, fits: Callable[[str], bool]) -> str:
  """The record of an agent: the longest that `fits`, of those that cut all texts alike and leave out early turns last.

  Texts are cut in the middle, to halves and halves again; when that makes them short, turns are left out, the first
  ones first; at last the texts themselves.

  Raises:
    ValueError: not even the bare record fits.
  """
  texts = [node.goal_text, _message(node), *(text for turn in node.turns for text in (turn.cell, turn.output))]
  longest = max(map(len, texts))
  lengths = [longest, *(1 << k for k in range(longest.bit_length() - 1, SHORT.bit_length() - 2, -1))]
  turns = len(node.turns)
  tries = [(length, turns) for length in lengths] + [(SHORT, n) for n in range(turns - 1, -1, -1)] + [(0, 0)]
  for length, kept in tries:
    line = record_line(node, length, kept)
    if fits(line):
      return line
  raise ValueError("a judge's prompt has no room for the record of an agent")


def record_line(node: Node, length: int, kept: int) -> str:
  """The record with texts of `length` characters and the last `kept` turns."""
  left_out = len(node.turns) - kept
  record = {
    "goal": cut(node.goal_text, length),
    **({"turns_left_out": left_out} if left_out else {}),
    "turns": [{"cell": cut(turn.cell, length), "output": cut(turn.output, length)} for turn in node.turns[left_out:]],
    "message": cut(_message(node), length),
  }
  return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _message(node: Node) -> str:
  return node.message if isinstance(node.message, str) else repr(node.message)


def cut(text: str, length: int) -> str:
  """The text, or its two ends of `length` characters together with a mark between them."""
  if len(text) <= length:
    return text
  return text[: length - length // 2] + CUT_MARK + text[len(text) - length // 2 :]


def as_score(value: Any) -> float | None:
  """A score in [0, 1] from a number, from {"score": number}, or from a text of either; None if it is none of these."""
  if isinstance(value, str):
    return _read(value)
  if isinstance(value, dict):
    value = value.get("score")
  return float(value) if isinstance(value, bool | int | float) and 0 <= value <= 1 else None


def _read(text: str) -> float | None:
  """The whole text or else its last line, code fences left out."""
  lines = [line for line in text.splitlines() if line.strip() and not line.startswith("```")]
  for part in ("\n".join(lines), *lines[-1:]):
    try:
      value = json.loads(part)
    except (ValueError, RecursionError):
      continue
    if not isinstance(value, str):
      return as_score(value)
  return None
