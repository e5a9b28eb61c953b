"""Turn formats: how prompts, cells and outputs stand in an agent's tokens. The compact one; `chat.py` has another.

The compact format has control tokens around cells and outputs, and no other markup:

  <bos> prompt <cell> code <end> <out> output <cell> code <end> ... <cell> code <end>

The policy samples code and <end>; everything else is put there by the engine. No text encodes to a control token, and
the policy may not sample any but <end>, so neither an output nor a cell can forge a turn.
"""

import dataclasses
from typing import Protocol

import numpy as np

from rao_jax.tokenizer import Tokenizer

PAD, BOS, CELL, END, OUT = CONTROLS = ("<pad>", "<bos>", "<cell>", "<end>", "<out>")
CUT_MARK = "[cut]"  # closes an output that was cut at its cap


class TurnProtocol(Protocol):
  """What the engine needs of a turn format.

  Attributes:
    tokenizer: of the policy.
    prefix: tokens that every prompt starts with, whatever its text.
    end: the token with which the policy ends its turn.
    frame: tokens of an output beside its text.
    no_code: what an agent reads whose turn has no code; None runs the empty cell.
  """

  tokenizer: Tokenizer
  prefix: list[int]
  end: int
  frame: int
  no_code: str | None

  def prompt(self, text: str) -> list[int]:
    """The tokens an agent starts with, its first turn opened."""

  def output(self, text: str, cap: int) -> list[int]:
    """The tokens of a cell's output, the next turn opened: `cap` tokens at most, a visible mark where text was cut."""

  def shown(self, tokens: list[int]) -> str:
    """The text of an `output`, as the agent reads it."""

  def cell(self, tokens: list[int]) -> str | None:
    """The code of a sampled turn, or None if it was cut before its end token."""

  def script(self, code: str) -> list[int]:
    """The tokens of a turn written by a script."""


def token_mask(protocol: TurnProtocol, vocab_size: int) -> np.ndarray:
  """bool[V]: the tokens the policy may sample: the end of its turn and whatever stands for text."""
  mask = np.zeros(vocab_size, bool)
  mask[: protocol.tokenizer.vocab_size] = True
  mask[list(protocol.tokenizer.not_text)] = False
  mask[protocol.end] = True
  return mask


def cut(tokenizer: Tokenizer, text: str, room: int) -> list[int]:
  """The tokens of a text, at most `room` of them; where some are left out, the last ones are a visible mark."""
  tokens, mark, room = tokenizer.encode(text), tokenizer.encode(CUT_MARK), max(room, 0)
  return tokens if len(tokens) <= room else [*tokens[: max(room - len(mark), 0)], *mark][:room]


@dataclasses.dataclass(frozen=True)
class CompactProtocol:
  """Renders prompts and outputs to tokens, and reads sampled cells back. See `TurnProtocol`.

  Attributes:
    tokenizer: has the control tokens of `CONTROLS`.
  """

  tokenizer: Tokenizer
  frame = 2
  no_code = None

  def __post_init__(self):
    ids = {name: self.tokenizer.control(name) for name in CONTROLS}
    object.__setattr__(self, "ids", ids)

  @property
  def prefix(self) -> list[int]:
    return [self.ids[BOS]]

  @property
  def end(self) -> int:
    return self.ids[END]

  def prompt(self, text: str) -> list[int]:
    """The tokens an agent starts with, its first cell opened."""
    return [self.ids[BOS], *self.tokenizer.encode(text), self.ids[CELL]]

  def output(self, text: str, cap: int) -> list[int]:
    """The tokens of a cell's output, the next cell opened: `cap` tokens at most, a visible mark where text was cut."""
    return [self.ids[OUT], *cut(self.tokenizer, text, cap - self.frame), self.ids[CELL]]

  def shown(self, tokens: list[int]) -> str:
    """The text of an `output`, as the agent reads it."""
    return self.tokenizer.decode(tokens[1:-1])

  def cell(self, tokens: list[int]) -> str | None:
    """The code of a sampled turn, or None if it was cut before its end token."""
    if not tokens or tokens[-1] != self.end:
      return None
    return self.tokenizer.decode(tokens[:-1])

  def script(self, code: str) -> list[int]:
    """The tokens of a cell written by a script."""
    return [*self.tokenizer.encode(code), self.end]


def join_output(*parts: str | None) -> str:
  """What a cell printed, the value it ended on, its error: one below the other, without the empty ones."""
  return "\n".join(part.rstrip("\n") for part in parts if part)
