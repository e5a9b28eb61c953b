"""The turn format of pretrained chat models: their own turns around cells in tags.

  system: what the world is, how to answer      user: the goal
  assistant: <thought>why</thought> <python>code</python>      user: output      assistant: ...

A turn of the assistant is sampled up to the family's end-of-turn token; everything else is put there by the engine, as
the family's chat template has it. Tokens are appended and never rendered again. The tags are plain text, as in the
benchmark's format, so a reply has to be searched for its cell; turns are held apart by control tokens, which no text
encodes to and the policy may not sample, but for the one that ends its turn.
"""

import dataclasses
import re

from rao_jax.rollout.protocol import cut
from rao_jax.tokenizer import Tokenizer

NO_CODE = "Error: no code to run: write one cell, <python>...</python>"
NO_OUTPUT = "(no output)"

_BOTH = re.compile(r"<thought>.*?</thought>\s*<python>(.*?)(?:</python>|\Z)", re.DOTALL)
_CELL = re.compile(r"<python>(.*?)(?:</python>|\Z)", re.DOTALL)


class Mark(str):
  """A control token, by its name: a text of the same characters is none."""


@dataclasses.dataclass(frozen=True)
class Family:
  """How a family of models marks its turns.

  Attributes:
    begin: in front of all.
    head, end, tail: of a turn: `end` closes it, `tail` follows before the next; `{role}` is the name of the speaker.
    system, user, assistant: names of the speakers; without a name for the system its text precedes the first user's.
  """

  begin: tuple[str, ...]
  head: tuple[str, ...]
  end: Mark
  tail: str
  system: str = "system"
  user: str = "user"
  assistant: str = "assistant"


FAMILIES = {
  "chatml": Family((), (Mark("<|im_start|>"), "{role}\n"), Mark("<|im_end|>"), "\n"),  # Qwen, SmolLM2
  "llama3": Family(
    (Mark("<|begin_of_text|>"),), (Mark("<|start_header_id|>"), "{role}", Mark("<|end_header_id|>"), "\n\n"),
    Mark("<|eot_id|>"), "",
  ),
  "gemma": Family(
    (Mark("<bos>"),), (Mark("<start_of_turn>"), "{role}\n"), Mark("<end_of_turn>"), "\n", system="", assistant="model"
  ),
}  # fmt: skip


def family_of(tokenizer: Tokenizer) -> Family:
  """The family whose end-of-turn token the tokenizer has."""
  for family in FAMILIES.values():
    try:
      tokenizer.control(family.end)
    except KeyError:
      continue
    return family
  ends = ", ".join(family.end for family in FAMILIES.values())
  raise ValueError(f"the tokenizer is of no chat model we know: it has none of the control tokens {ends}")


@dataclasses.dataclass(frozen=True)
class ChatProtocol:
  """Renders prompts and outputs to tokens, and reads sampled replies back. See `CompactProtocol`.

  Attributes:
    tokenizer: of the model; its control tokens tell the family.
    system: the text of the system's turn, see `instructions.py`.
    no_code: what an agent reads whose reply has no cell.
  """

  tokenizer: Tokenizer
  system: str
  no_code: str = NO_CODE

  def __post_init__(self):
    put = lambda name, value: object.__setattr__(self, name, value)
    put("family", family_of(self.tokenizer))
    # An output is this much longer than its text.
    put("frame", sum(len(self._tokens(parts)) for parts in self._around_output()))

  @property
  def prefix(self) -> list[int]:
    """The tokens that every prompt starts with: up to the last control token before the user's text."""
    f = self.family
    parts = [*f.begin, *(self._turn(f.system, self.system) if f.system else ()), *self._head(f.user)]
    last = max(i for i, part in enumerate(parts) if isinstance(part, Mark))
    return self._tokens(parts[: last + 1])

  @property
  def end(self) -> int:
    return self.tokenizer.control(self.family.end)

  def prompt(self, text: str) -> list[int]:
    """The tokens an agent starts with, its first reply opened."""
    f = self.family
    if f.system:
      turns = [*self._turn(f.system, self.system), *self._turn(f.user, text)]
    else:
      turns = self._turn(f.user, f"{self.system}\n\n{text}")
    return self._tokens([*f.begin, *turns, *self._head(f.assistant)])

  def output(self, text: str, cap: int) -> list[int]:
    """The tokens of a cell's output, the next reply opened: `cap` tokens at most, a visible mark where text was cut."""
    head, tail = self._around_output()
    text = text or NO_OUTPUT
    tokens = self._tokens([*head, text, *tail])
    if len(tokens) <= cap:
      return tokens
    return [*self._tokens(head), *cut(self.tokenizer, text, cap - self.frame), *self._tokens(tail)]

  def shown(self, tokens: list[int]) -> str:
    """The text of an `output`, as the agent reads it."""
    text, (head, tail) = self.tokenizer.decode(tokens), self._around_output()
    size = lambda parts: sum(len(part) for part in parts if not isinstance(part, Mark))
    return text[size(head) : len(text) - size(tail)]

  def cell(self, tokens: list[int]) -> str | None:
    """The code of a sampled reply, empty if it has none, or None if it was cut before its end token.

    Of several tags the first counts, a cell behind a thought before any other. A cell that is not closed ends with the
    turn.
    """
    if not tokens or tokens[-1] != self.end:
      return None
    text = self.tokenizer.decode(tokens[:-1])
    match = _BOTH.search(text) or _CELL.search(text)
    return match[1].strip("\n") if match else ""

  def script(self, code: str) -> list[int]:
    """The tokens of a reply written by a script: it tells no thought."""
    return [*self.tokenizer.encode(f"<python>\n{code}\n</python>"), self.end]

  def _head(self, role: str) -> list[str]:
    return [part if isinstance(part, Mark) else part.format(role=role) for part in self.family.head]

  def _turn(self, role: str, text: str) -> list[str]:
    return [*self._head(role), text, self.family.end, self.family.tail]

  def _around_output(self) -> tuple[list[str], list[str]]:
    f = self.family
    return [f.tail, *self._head(f.user)], [f.end, f.tail, *self._head(f.assistant)]

  def _tokens(self, parts: list[str]) -> list[int]:
    """Encodes what stands between control tokens as one text, as the family's own template does."""
    out, text = [], ""
    for part in parts:
      if isinstance(part, Mark):
        out += [*self.tokenizer.encode(text), self.tokenizer.control(part)]
        text = ""
      else:
        text += part
    return out + self.tokenizer.encode(text)
