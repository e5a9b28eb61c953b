"""Documents as a run names them in `config.environment.name`: plays from the data set, or files of Oolong."""

import functools
from collections.abc import Sequence
from typing import Any

from rao_jax.envs.base import Demonstrator, Task
from rao_jax.envs.documents import dataset, oolong, script
from rao_jax.envs.documents.env import Document, Documents
from rao_jax.envs.documents.questions import KINDS, NAMES, compact, parse

DEMONSTRATORS = {"recursive": script.recursive, "inline": script.inline, "search": script.search}


class PlayDocuments(Documents):
  """Questions on plays, in the splits of `dataset.PlayQuestions`.

  Args:
    data_dir: where the TFDS data set lives; it is made there if missing.
    dataset: builder config, which says for what context window the documents are.
    rules: options of `Documents`.
  """

  pieces = script.pieces()

  def __init__(self, data_dir: str, dataset: str, **rules):
    super().__init__(**rules)
    self._data_dir, self._dataset = data_dir, dataset
    self.tasks = functools.cache(self.tasks)

  def tasks(self, split: str) -> Sequence[Task]:
    """See `Environment`."""
    return dataset.load_tasks(self._data_dir, self._dataset, split)

  def task_from(self, text: str) -> Task:
    """See `Environment`: `most @ dev_8x/3` asks the fourth document of dev_8x; `most` alone the first of dev_2x."""
    asked, _, place = text.partition("@")
    split, _, number = (place.strip() or "dev_2x/0").rpartition("/")
    if not number.isdecimal():
      raise ValueError(f"{text!r}: a document is named by its split and number, as 'most @ dev_8x/3'")
    source = self.tasks(split)
    if int(number) >= len(source):
      raise ValueError(f"{text!r}: split {split} has {len(source)} documents, the last is {split}/{len(source) - 1}")
    question = parse(asked)
    if question is None and not self.free_goals:
      forms = [" ".join([kind, ", ".join(["NAME"] * NAMES.get(kind, 0))]).strip() for kind in KINDS]
      raise ValueError(f"{asked.strip()!r} is no question that has an answer: ask one of {'; '.join(forms)}")
    task, words = source[int(number)], compact(question) if question else asked.strip()
    return Task(f"{task.id}: {words}", task.difficulty, task.data | {"question": words})

  def document(self, task: Task) -> Document:
    """See `Documents`."""
    speeches = dataset.document(self._data_dir, self._dataset, task)
    return Document([str(speech) for speech in speeches], [speech.speaker for speech in speeches])

  def demonstrator(self, name: str, **habits: float) -> Demonstrator:
    """See `Environment`; `habits` are the fields of `script.Habits`."""
    if name not in DEMONSTRATORS:
      raise ValueError(f"config.warm_start.demonstrator={name!r}: choose one of {sorted(DEMONSTRATORS)}")
    return functools.partial(DEMONSTRATORS[name], habits=script.Habits(**habits))


class OolongDocuments(Documents):
  """Records of Oolong: a line of their text is a line of the document, roots are graded as the benchmark grades.

  Sub-agents are given goals in free text, which only a judge can grade (config.judge). The splits are the names of the
  lengths that the records have.

  Args:
    files: a `.jsonl` or `.parquet` file with the published fields, or a folder of such.
    rules: options of `Documents`.
  """

  def __init__(self, files: str, **rules):
    super().__init__(**{"short": False, "free_goals": True, **rules})
    self._files = files

  @functools.cached_property
  def _tasks(self) -> dict[str, list[Task]]:
    splits: dict[str, list[Task]] = {}
    for task in oolong.read(self._files):
      splits.setdefault(task.difficulty, []).append(task)
    return splits

  def tasks(self, split: str) -> Sequence[Task]:
    """See `Environment`."""
    if split not in self._tasks:
      raise ValueError(f"split {split!r} is not in {self._files}: {', '.join(self._tasks)}")
    return self._tasks[split]

  def document(self, task: Task) -> Document:
    """See `Documents`."""
    return Document(task.data["text"].splitlines(), None)

  def root_score(self, task: Task, message: Any) -> float:
    """See `Documents`."""
    return oolong.credit(message, task.data)


def make(
  data_dir: str = "runs/data", dataset: str = "w512", oolong: str = "", plain_text: bool = False,
  short: bool | None = None, free_goals: bool | None = None, refuse_own_goal: bool = True,
) -> Documents:  # fmt: skip
  """`OolongDocuments` of the files that `oolong` names, else `PlayDocuments`; see there and `Documents`."""
  given = {"short": short, "free_goals": free_goals}
  rules = {"plain_text": plain_text, "refuse_own_goal": refuse_own_goal}
  rules |= {name: value for name, value in given.items() if value is not None}
  return OolongDocuments(oolong, **rules) if oolong else PlayDocuments(data_dir, dataset, **rules)
