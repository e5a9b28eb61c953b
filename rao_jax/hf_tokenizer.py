"""Tokenizers of published models, by the library `tokenizers`: a tokenizer.json, or the vocabulary inside a GGUF file.

Ids are those of the model's own tokenizer, with one exception made on purpose: a text never becomes a control token,
whatever it spells. Where a vocabulary lacks a byte (SmolLM2's lacks eight that UTF-8 uses, of rare control characters
and of unassigned planes), `tokenizers` would drop the character without a word; here it becomes U+FFFD, for all to see.
A normaliser stays what it is: with Qwen3's, text comes back in Unicode's composed form (NFC).
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rao_jax.tokenizer import SentencePieceTokenizer, Tokenizer

JSON_FILE, MODEL_FILE = "tokenizer.json", "tokenizer.model"
REPLACEMENT = "\ufffd"
_PROBE = "  two\n\n\tlines 12 "
_CONTROL_TYPE = 3  # of a token in a GGUF file


class HFTokenizer:
  """A byte-level or byte-fallback BPE tokenizer.

  Args:
    spec: the content of a tokenizer.json.
  Raises:
    ValueError: text would not come back as it was, or a text could spell a control token.
  """

  def __init__(self, spec: str):
    try:
      import tokenizers
    except ImportError:
      raise ImportError("this tokenizer needs the package tokenizers: pip install 'rao-jax[models]'") from None
    data = json.loads(spec)
    if data["model"].get("type", "BPE") != "BPE":
      raise ValueError(f"the tokenizer's model is {data['model']['type']}, only BPE is supported")
    data["truncation"] = data["padding"] = None
    for token in data["added_tokens"]:
      # Qwen3 has control tokens that are not marked as such, as <|fim_prefix|>. Others, as <think>, are text to it.
      token["special"] = token["special"] or bool(re.fullmatch(r"<\|.*\|>", token["content"]))
    self._controls = {token["content"]: token["id"] for token in data["added_tokens"] if token["special"]}
    self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
    self._tokenizer.encode_special_tokens = True  # as the text they are
    for name, i in self._controls.items():
      if self._tokenizer.token_to_id(name) != i:
        raise ValueError(f"the tokenizer's added token {name!r} has id {i} and {self._tokenizer.token_to_id(name)}")
    vocab = self._tokenizer.get_vocab(with_added_tokens=True)
    self.vocab_size = max(vocab.values()) + 1
    unknown = {vocab[name] for name in (data["model"].get("unk_token"),) if name in vocab}
    self.not_text = frozenset(self._controls.values()) | unknown
    self._missing = _missing_bytes(data, vocab)
    for name in self._controls:
      if not self.not_text.isdisjoint(self.encode(name)):
        raise ValueError(f"the text {name!r} becomes a control token in this tokenizer: it cannot be used")
    if self.decode(self.encode(_PROBE)) != _PROBE:
      raise ValueError(f"this tokenizer turns {_PROBE!r} into {self.decode(self.encode(_PROBE))!r}: it cannot be used")

  @classmethod
  def load(cls, path: str | os.PathLike) -> "HFTokenizer":
    """Of a tokenizer.json."""
    return cls(pathlib.Path(path).read_text(encoding="utf-8"))

  @classmethod
  def from_gguf(cls, path: str | os.PathLike) -> "HFTokenizer":
    """Of the vocabulary and merges inside a GGUF file."""
    from rao_jax.policy.gguf import open_gguf

    return cls(json.dumps(gguf_spec(open_gguf(path).metadata, path)))

  def save(self, path: str | os.PathLike) -> None:
    """As a tokenizer.json."""
    self._tokenizer.save(os.fspath(path))

  def encode(self, text: str) -> list[int]:
    if not self._missing.isdisjoint(text.encode()):
      text = "".join(c if self._missing.isdisjoint(c.encode()) else REPLACEMENT for c in text)
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, tokens: Sequence[int]) -> str:
    text = [token for token in tokens if token not in self.not_text]
    return self._tokenizer.decode(text, skip_special_tokens=False)

  def control(self, name: str) -> int:
    if name not in self._controls:
      raise KeyError(f"this tokenizer has no control token {name!r}; it has {sorted(self._controls)}")
    return self._controls[name]


def _missing_bytes(data: dict[str, Any], vocab: Mapping[str, int]) -> frozenset[int]:
  """The bytes that stand for themselves in no token."""
  if data["model"].get("byte_fallback"):
    return frozenset(byte for byte in range(256) if f"<0x{byte:02X}>" not in vocab)
  return frozenset(byte for byte, symbol in enumerate(byte_symbols()) if symbol not in vocab)


def byte_symbols() -> list[str]:
  """What stands for each byte in a byte-level vocabulary: its own character if that prints, else one from U+0100 on."""
  printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
  others = iter(range(0x100, 0x200))
  return [chr(byte) if byte in printing else chr(next(others)) for byte in range(256)]


def gguf_spec(metadata: Mapping[str, Any], path: str | os.PathLike) -> dict[str, Any]:
  """The tokenizer.json that a GGUF file's metadata stands for."""
  field = lambda name: metadata.get(f"tokenizer.ggml.{name}")
  if (field("model"), field("pre")) != ("gpt2", "smollm"):
    raise ValueError(
      f"{path}: its tokenizer is of kind {field('model')}/{field('pre')}, from a GGUF file only gpt2/smollm is read: "
      "set config.tokenizer.path to the model's tokenizer.json or tokenizer.model"
    )
  tokens = field("tokens")
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
      {"id": i, "content": tokens[i], "special": True}
      | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
      for i, kind in enumerate(field("token_type"))
      if kind == _CONTROL_TYPE
    ],
    "normalizer": None,
    "pre_tokenizer": {
      "type": "Sequence",
      "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
      ],
    },
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {
      "type": "BPE",
      "vocab": {token: i for i, token in enumerate(tokens)},
      "merges": [merge.split(" ") for merge in field("merges")],
    },
  }


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
  """The tokenizer of a model: a folder with a tokenizer.json or tokenizer.model, such a file, or a GGUF file."""
  path = pathlib.Path(path)
  if path.is_dir():
    found = [path / name for name in (JSON_FILE, MODEL_FILE) if (path / name).exists()]
    if not found:
      raise FileNotFoundError(f"{path} holds neither {JSON_FILE} nor {MODEL_FILE}")
    path = found[0]
  if not path.exists():
    raise FileNotFoundError(f"there is no tokenizer {path}")
  kinds = {".json": HFTokenizer.load, ".gguf": HFTokenizer.from_gguf}
  return kinds.get(path.suffix, SentencePieceTokenizer.load)(path)
