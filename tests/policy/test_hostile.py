"""Files of hostile shape: an error that names the file, never a crash, a hang or memory beyond the file's size."""

import collections
import json
import random
import re

import pytest

from rao_jax.policy import from_pretrained
from rao_jax.policy.gguf import open_gguf
from rao_jax.policy.tensor_file import INDEX, SINGLE, read_file, read_folder
from tests.policy.test_gguf import LLAMA, write
from tests.tiny import random_params

HUGE = (0, 2**31, 2**40, 2**63 - 1, 2**64 - 1)


def damaged(raw, rng, first):
  """`raw` with a few of its `first` bytes changed, or cut among them."""
  at, data = rng.randrange(first), bytearray(raw)
  how = rng.choice(("bit", "number", "junk", "cut"))
  if how == "bit":
    data[at] ^= 1 << rng.randrange(8)
  elif how == "number":
    data[at : at + 8] = rng.choice(HUGE).to_bytes(8, "little")
  elif how == "junk":
    data[at : at + 4] = rng.randbytes(4)
  return data[:at] if how == "cut" else data


@pytest.mark.parametrize("files", [60, pytest.param(150, marks=pytest.mark.full)])
def test_a_damaged_gguf_header_is_an_error_of_the_file(files, tmp_path):
  pytest.importorskip("gguf")
  write(tmp_path / "whole.gguf", "llama", LLAMA, random_params(LLAMA))
  raw, rng, seen = (tmp_path / "whole.gguf").read_bytes(), random.Random(0), collections.Counter()
  for i in range(files):
    path = tmp_path / f"{i}.gguf"
    path.write_bytes(damaged(raw, rng, first=2600))  # metadata and the table of tensors
    try:
      from_pretrained(path)
      seen["read"] += 1  # names of unused fields, padding, a number that is still possible
    except ValueError:
      seen["refused"] += 1
    path.unlink()
  assert seen["refused"] > 0.4 * files, seen
  open_gguf.cache_clear()


HEADERS = {
  "its header is no JSON object": [1, 2],
  "its header says 7 of a": {"a": 7},
  "its header says {'dtype': 'F32'} of a": {"a": {"dtype": "F32"}},
  "its header says .* of a": {"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 12]}},
  "has dtype U64": {"a": {"dtype": "U64", "shape": [1], "data_offsets": [0, 8]}},
  "has dtype \\['F32'\\]": {"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}},
  "a has shape \\[-1, -4\\]": {"a": {"dtype": "F32", "shape": [-1, -4], "data_offsets": [0, 16]}},
  "a has shape \\[4\\] at bytes -16 to 0": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}},
  "a has shape \\[4\\] at bytes 0.0 to 16": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0.0, 16]}},
  "a should lie at bytes 0 to": {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
  "a should lie at bytes 16 to 0": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
}


@pytest.mark.parametrize("says", HEADERS)
def test_a_hostile_safetensors_header_is_an_error_of_the_file(tmp_path, says):
  header = json.dumps(HEADERS[says]).encode()
  path = tmp_path / SINGLE
  path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
  with pytest.raises(ValueError, match=says) as e:
    read_file(path)
  assert str(path) in str(e.value)


def test_a_header_nested_without_end_is_no_json(tmp_path):
  header = b"[" * 100_000
  (tmp_path / SINGLE).write_bytes(len(header).to_bytes(8, "little") + header)
  with pytest.raises(ValueError, match="its header is no JSON"):
    read_file(tmp_path / SINGLE)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_an_index_may_not_point_out_of_its_folder(tmp_path, shard):
  (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))
  with pytest.raises(ValueError, match=f"names {re.escape(repr(shard))}, which is not a file of its folder"):
    read_folder(tmp_path)
