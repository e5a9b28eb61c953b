"""Safetensors files: read lazily, written tensor by tensor. Reads and writes files.

A file is the length of a header (u64), the header (JSON: name -> dtype, shape, byte range) and the bytes. Reading maps
the file into memory, so a slice of a tensor costs the host that slice; writing holds one tensor at a time. The library
`safetensors` reads or writes whole files of numpy arrays at once, and its lazy slices cannot be reshaped.
"""

import json
import math
import pathlib
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

DTYPES = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of one file, by name, as read-only views of the mapped file."""
  size = path.stat().st_size
  damaged = f"{path} is not a whole safetensors file"
  with path.open("rb") as f:
    length = int.from_bytes(f.read(8), "little")
    if size < 8 or length > size - 8:
      raise ValueError(f"{damaged}: its header does not fit into its {size} bytes")
    try:
      header = json.loads(f.read(length))
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{damaged}: its header is no JSON") from error
  if not isinstance(header, dict):
    raise ValueError(f"{damaged}: its header is no JSON object")
  header.pop("__metadata__", None)
  out, data = {}, np.memmap(path, np.uint8, "r", 8 + length) if size > 8 + length else np.zeros(0, np.uint8)
  for name, entry in header.items():
    try:
      code, shape, (start, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
      raise ValueError(f"{damaged}: its header says {entry!r:.80} of {name}") from None
    if code not in DTYPES:
      raise ValueError(f"{path}: {name} has dtype {code}, which is none of {tuple(DTYPES)}: convert it")
    dtype = DTYPES[code]
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
      raise ValueError(f"{damaged}: {name} has shape {list(shape)} at bytes {start!r} to {end!r}")
    if end > len(data) or end - start != dtype.itemsize * math.prod(shape):
      raise ValueError(f"{damaged}: {name} should lie at bytes {start} to {end} of {len(data)}: download it again")
    out[name] = data[start:end].view(dtype).reshape(shape)
  return out


def read_folder(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a folder: the shards that its index names, or its one file."""
  index, shards = path / INDEX, [SINGLE]
  if index.exists():
    shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
  if outside := [shard for shard in shards if pathlib.PurePath(shard).name != shard]:
    raise ValueError(f"{path / INDEX} names {outside[0]!r}, which is not a file of its folder")
  missing = [shard for shard in shards if not (path / shard).exists()]
  if missing:
    raise FileNotFoundError(f"{path} lacks {', '.join(missing)}: a model folder holds {SINGLE}, or {INDEX} and shards")
  return {name: tensor for shard in shards for name, tensor in read_file(path / shard).items()}


def write_file(
  path: pathlib.Path, tensors: Sequence[tuple[str, np.dtype, tuple[int, ...]]], read: Callable[[str], np.ndarray]
) -> None:
  """Writes (name, dtype, shape) tensors in that order, asking for one after the other."""
  header, at = {"__metadata__": {"format": "pt"}}, 0
  for name, dtype, shape in tensors:
    end = at + dtype.itemsize * math.prod(shape)
    header[name] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": (at, end)}
    at = end
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # so that tensors are aligned
  with path.open("wb") as f:
    f.write(len(text).to_bytes(8, "little") + text)
    for name, dtype, shape in tensors:
      tensor = read(name)
      assert tensor.dtype == dtype and tensor.shape == shape, (name, tensor.dtype, tensor.shape)
      f.write(np.ascontiguousarray(tensor).view(np.uint8).data)


def write_folder(
  path: pathlib.Path,
  tensors: Sequence[tuple[str, np.dtype, tuple[int, ...]]],
  read: Callable[[str], np.ndarray],
  max_shard_size: int,
) -> None:
  """Writes tensors into files of at most `max_shard_size` bytes (more if one tensor is), with an index if several."""
  shards, used, total = [[]], 0, 0
  for tensor in tensors:
    size = tensor[1].itemsize * math.prod(tensor[2])
    if shards[-1] and used + size > max_shard_size:
      shards, used = [*shards, []], 0
    shards[-1].append(tensor)
    used, total = used + size, total + size
  if len(shards) == 1:
    write_file(path / SINGLE, shards[0], read)
    return
  names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
  for name, shard in zip(names, shards):
    write_file(path / name, shard, read)
  weight_map = {tensor[0]: name for name, shard in zip(names, shards) for tensor in shard}
  (path / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n")
