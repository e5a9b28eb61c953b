"""Text to token ids and back, behind one small protocol; sentencepiece models are read, and trained, here."""

import io
import os
from collections.abc import Iterable, Sequence
from typing import Protocol

import sentencepiece

SPACE_MARK = "\u2581"  # stands for a space inside sentencepiece, so a real one must go by its bytes


class Tokenizer(Protocol):
  """What the turn protocol needs of a tokenizer."""

  vocab_size: int
  not_text: frozenset[int]  # control and unknown tokens, which no text encodes to

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, never a control token; `decode` gives the text back."""

  def decode(self, tokens: Sequence[int]) -> str:
    """The text of tokens; bytes that are not UTF-8 become U+FFFD."""

  def control(self, name: str) -> int:
    """The id of a control token; KeyError names those there are."""


class SentencePieceTokenizer:
  """A sentencepiece model with control symbols."""

  def __init__(self, model: bytes):
    self.model = model
    self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    self.vocab_size = self._sp.get_piece_size()
    ids = range(self.vocab_size)
    self._controls = {self._sp.id_to_piece(i): i for i in ids if self._sp.is_control(i)}
    self.not_text = frozenset(self._controls.values()) | {self._sp.unk_id()}
    self._space_mark = [self._sp.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]

  @classmethod
  def load(cls, path: str | os.PathLike) -> "SentencePieceTokenizer":
    with open(path, "rb") as f:
      return cls(f.read())

  def save(self, path: str | os.PathLike) -> None:
    with open(path, "wb") as f:
      f.write(self.model)

  def encode(self, text: str) -> list[int]:
    first, *rest = text.split(SPACE_MARK)
    tokens = self._sp.encode(first)
    for part in rest:
      tokens += self._space_mark + self._sp.encode(part)
    return tokens

  def decode(self, tokens: Sequence[int]) -> str:
    return self._sp.decode(list(tokens))

  def control(self, name: str) -> int:
    if name not in self._controls:
      raise KeyError(f"this tokenizer has no control token {name!r}; it has {sorted(self._controls)}")
    return self._controls[name]


def train_sentencepiece(
  texts: Iterable[str], controls: Sequence[str], pieces: Sequence[str], learned: int = 32, prose: bool = False
) -> SentencePieceTokenizer:
  """Trains a lossless tokenizer: no normalisation, no added spaces, digits apart, bytes for what is left.

  Args:
    texts: the text it will meet.
    controls: names of control tokens; ids from 0 on, in this order (the first is padding).
    pieces: texts that are always one token, the longest match first.
    learned: how many pieces are learned from `texts` beyond single characters, at most.
    prose: learned pieces may hold a space, which saves a third of the tokens of English; otherwise a space is a token.
  """
  texts = list(texts)
  chars = {c for text in texts for c in text} | {" ", "\n"}
  pieces = list(dict.fromkeys([*pieces, "\n"] if prose else [*pieces, " ", "\n"]))
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    # A sentence may not be empty nor hold a line break; line breaks are a piece of their own.
    sentence_iterator=iter([line for text in texts for line in text.split("\n") if line] or ["a"]),
    model_writer=out,
    model_type="bpe",
    vocab_size=len(controls) + 1 + 256 + len(pieces) + len(chars) + learned,
    hard_vocab_limit=False,
    normalization_rule_name="identity",
    add_dummy_prefix=False,
    remove_extra_whitespaces=False,
    split_digits=True,
    byte_fallback=True,
    pad_id=-1,
    bos_id=-1,
    eos_id=-1,
    unk_id=len(controls),
    control_symbols=list(controls),
    user_defined_symbols=[piece.replace(" ", SPACE_MARK) for piece in pieces],
    character_coverage=1.0,
    max_sentence_length=1 << 20,
    num_threads=1,
    minloglevel=2,
  )
  return SentencePieceTokenizer(out.getvalue())
