"""Records of Oolong (arXiv 2511.02817), Real and Synth, as tasks, from files that someone has. Impure: reads them.

The files are JSON lines or parquet, with the fields that the benchmark publishes. Nothing is fetched.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

from rao_jax.envs.base import Task
from rao_jax.envs.documents.scoring import parse_answer, score, score_synth

Source = Literal["real", "synth"]
FIELDS = ("id", "context_window_id", "context_window_text", "question", "answer")  # of both
SYNTH_FIELD = "answer_type"  # Synth has it too, and by it a record is known as one of Synth
KEPT = ("context_len", "task_group", "dataset", "question_type", "campaign")  # taken along where they are

_ENDINGS = (".jsonl", ".parquet")


def read(path: str, source: Source | None = None) -> Iterator[Task]:
  """The records of a file, or of all files of a folder in the order of their names, one at a time.

  Args:
    path: a `.jsonl` or `.parquet` file, or a folder with such files.
    source: which of the two benchmarks; None tells by the field `answer_type`, which only Synth has.
  Yields:
    Tasks with `data`: text, question, answer (as published), answer_type ("" in Real), source, context_window_id, and
    those of `KEPT` that are there. Their difficulty is the length of the text: `context_len` tokens, or without that
    field the power of two at or below its characters.
  """
  folder = pathlib.Path(path).expanduser()
  files = sorted(file for file in folder.iterdir() if file.suffix in _ENDINGS) if folder.is_dir() else [folder]
  if not files:
    raise ValueError(f"{folder} holds no file that ends in {' or '.join(_ENDINGS)}")
  for file in files:
    for number, record in enumerate(_records(file)):
      yield _task(record, f"{file}, record {number}", source)


def credit(prediction: Any, data: dict[str, Any]) -> float:
  """Credit in [0, 1] of what was answered to a task of `read`, by the rules of its benchmark."""
  if data["source"] == "synth":
    return score_synth(prediction, data["answer"], data["answer_type"])
  return score(prediction, parse_answer(data["answer"]))


def _records(file: pathlib.Path) -> Iterator[dict[str, Any]]:
  if file.suffix == ".parquet":
    import pyarrow.parquet  # slow to import

    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=16):  # a text may have megabytes
      yield from batch.to_pylist()
  elif file.suffix == ".jsonl":
    with file.open(encoding="utf-8") as lines:
      for number, line in enumerate(lines, start=1):
        if line.strip():
          try:
            yield json.loads(line)
          except ValueError as error:
            raise ValueError(f"{file}, line {number} is no JSON: {error}") from None
  else:
    raise ValueError(f"{file}: Oolong is read from files that end in {' or '.join(_ENDINGS)}")


def _task(record: dict[str, Any], where: str, source: Source | None) -> Task:
  source = source or ("synth" if record.get(SYNTH_FIELD) is not None else "real")
  needed = (*FIELDS, SYNTH_FIELD) if source == "synth" else FIELDS
  missing = [field for field in needed if record.get(field) is None]
  if missing:
    raise ValueError(f"{where} has no field {', '.join(missing)}: a record of Oolong-{source.title()} needs {needed}")
  text = record["context_window_text"]
  data = {
    "text": text,
    "question": record["question"],
    "answer": str(record["answer"]),
    "answer_type": record[SYNTH_FIELD] if source == "synth" else "",
    "source": source,
    "context_window_id": record["context_window_id"],
  }
  data |= {field: record[field] for field in KEPT if record.get(field) is not None}
  try:
    credit("", data)
  except ValueError as error:
    raise ValueError(f"{where}, field answer: {error}") from None
  chars = (1 << len(text).bit_length()) // 2
  length = f"{data['context_len']}_tokens" if "context_len" in data else f"{chars}_chars"
  return Task(f"oolong.{source}.{record['id']}", length, data)
