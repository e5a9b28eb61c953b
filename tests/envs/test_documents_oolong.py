"""Oolong's published records as tasks, from tiny files with the published field names."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from rao_jax.envs.documents import factory, oolong
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.scripted import play

REAL = {
  "id": "r1",
  "context_window_id": "w1",
  "context_window_text": "Matt: Roll.\nLaura: 17.",
  "question": "How many rolls?",
  "answer": "84",
  "question_type": "singledoc_rolls",
}
SYNTH = {
  "id": 10,
  "context_window_id": 3,
  "context_window_text": "Date: Jan 5, 2023 || User: 1 || Instance: x",
  "question": "Which label is most common?",
  "answer": "['spam']",
  "answer_type": "ANSWER_TYPE.LABEL",
  "task_group": "counting",
  "context_len": 1024,
  "dataset": "spam",
}


def write(path, records):
  if path.suffix == ".parquet":
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
  else:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
  return str(path)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_records_become_tasks(tmp_path, ending):
  (real,) = oolong.read(write(tmp_path / f"real.{ending}", [REAL]))
  assert real.id == "oolong.real.r1" and real.difficulty == "16_chars"  # 22 characters
  assert real.data == {
    "text": REAL["context_window_text"],
    "question": "How many rolls?",
    "answer": "84",
    "answer_type": "",
    "source": "real",
    "context_window_id": "w1",
    "question_type": "singledoc_rolls",
  }
  (synth,) = oolong.read(write(tmp_path / f"synth.{ending}", [SYNTH]))
  assert synth.id == "oolong.synth.10" and synth.difficulty == "1024_tokens"
  assert synth.data["source"] == "synth" and synth.data["answer_type"] == "ANSWER_TYPE.LABEL"
  assert synth.data["task_group"] == "counting" and synth.data["dataset"] == "spam"
  json.dumps(synth.data)


def test_each_benchmark_is_scored_by_its_own_rules(tmp_path):
  write(tmp_path / "a.jsonl", [REAL, REAL | {"answer": "Sam, Liam"}, REAL | {"answer": 3}])
  write(tmp_path / "b.parquet", [SYNTH])
  (tmp_path / "notes.txt").write_text("no records")
  rolls, names, number, label = oolong.read(str(tmp_path))
  assert oolong.credit(r"\boxed{83}", rolls.data) == 0.75
  assert oolong.credit(["Sam", "Matt"], names.data) == 0.5
  assert oolong.credit(3, number.data) == 1
  assert oolong.credit("Label: spam", label.data) == 1 and oolong.credit("Label: ham", label.data) == 0


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("field", oolong.FIELDS)
def test_a_missing_field_is_named_with_its_file(tmp_path, ending, field):
  path = write(tmp_path / f"x.{ending}", [SYNTH, {key: value for key, value in SYNTH.items() if key != field}])
  with pytest.raises(ValueError, match=rf"x.{ending}, record 1 has no field {field}: a record of Oolong-Synth needs"):
    list(oolong.read(path))


def test_synth_needs_the_type_of_its_answers(tmp_path):
  path = write(tmp_path / "x.jsonl", [REAL])
  with pytest.raises(ValueError, match="record 0 has no field answer_type: a record of Oolong-Synth"):
    list(oolong.read(path, source="synth"))


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("x.jsonl", json.dumps(REAL) + "\n{", "x.jsonl, line 2 is no JSON"),
    ("x.jsonl", json.dumps(SYNTH | {"answer": "spam"}), "x.jsonl, record 0, field answer: an answer of Oolong-Synth"),
    ("x.csv", "", "x.csv: Oolong is read from files that end in .jsonl or .parquet"),
  ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
  (tmp_path / name).write_text(content)
  with pytest.raises(ValueError, match=message):
    list(oolong.read(str(tmp_path / name)))


def test_a_folder_without_records_is_an_error(tmp_path):
  with pytest.raises(ValueError, match=r"holds no file that ends in \.jsonl or \.parquet"):
    list(oolong.read(str(tmp_path)))


def test_records_are_worked_like_any_document_and_roots_graded_as_the_benchmark_does(
  tmp_path, interpreter, byte_protocol
):
  environment = factory.make(oolong=write(tmp_path / "real.jsonl", [REAL]))
  with pytest.raises(ValueError, match=r"split 'test_2x' is not in .*: 16_chars"):
    environment.tasks("test_2x")

  def script(goal, rng):
    if goal.text == REAL["question"]:
      yield "read(context[1:])"
      yield 'finish(await launch_subagent("how many rolls does Laura make?",context[1:]))'
    yield "finish(83)"

  tree = Tree(environment, environment.tasks("16_chars")[0], Caps(), byte_protocol, interpreter)
  play(tree, script, byte_protocol, 0)
  assert tree.root.turns[0].output == "1 Laura: 17."
  assert tree.root.success == 0.75  # 84 is right
  assert tree.nodes[1].goal_text.startswith("how many rolls does Laura make?") and tree.nodes[1].success == 0.0
