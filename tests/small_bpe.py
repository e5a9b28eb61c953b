"""A byte-level tokenizer.json small enough to count tokens by eye: one a byte, but for a few merges."""

import json

from rao_jax.hf_tokenizer import HFTokenizer, byte_symbols

CONTROLS = {
  "chatml": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
  "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
  "gemma": ("<pad>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
}


def spec(controls=CONTROLS["chatml"], merges=("h e", "l l"), text_tokens=(), **changes) -> dict:
  """Controls first, then bytes, merges, and tokens that are added as text; `changes` replace parts of the result."""
  pairs = [merge.split(" ") for merge in merges]
  vocab = {token: i for i, token in enumerate([*controls, *byte_symbols(), *("".join(pair) for pair in pairs)])}
  added = [(i, name, True) for i, name in enumerate(controls)]
  added += [(len(vocab) + i, name, False) for i, name in enumerate(text_tokens)]
  flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
  byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [{"id": i, "content": name, "special": special} | flags for i, name, special in added],
    "normalizer": None,
    "pre_tokenizer": byte_level,
    "post_processor": None,
    "decoder": byte_level,
    "model": {"type": "BPE", "vocab": vocab, "merges": pairs},
  } | changes


def make(**options) -> HFTokenizer:
  return HFTokenizer(json.dumps(spec(**options)))
