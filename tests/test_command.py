"""command.py: a word or a setting that cannot work is one line, with the spelling that would do."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import app

from experiments import demo
from rao_jax.command import check_setting, load_config, nearest, settings
from rao_jax.plugin import load_function

ROOT = pathlib.Path(__file__).parents[1]

WRONG = {  # word -> the spelling that is offered, "" if none is near
  "--config.learn.ratee=3": "--config.learn.rate=3",
  "--config.lern.rate=3": "--config.learn.rate=3",
  "--config.steq=3": "--config.steps=3",
  "--config.row_lengths": "--config.learn.row_lengths",
  "-config.tasks.train.train_eazy=2": "--config.tasks.train.train_easy=2",
  "--config.quux=1": "",
}


@pytest.mark.parametrize("word", WRONG)
def test_an_unknown_setting_is_named_with_the_nearest(word):
  with pytest.raises(app.UsageError) as e:
    check_setting(demo.get_config("recursive"), word)
  said = f"{word}: there is no setting config.{word.partition('config.')[2].partition('=')[0]}"
  assert str(e.value) == said + (f": did you mean {WRONG[word]}?" if WRONG[word] else "")


@pytest.mark.parametrize("word", ["--config.steps=3", "--noconfig.log.report", "--config=x.py", "--workdir=config.x=1"])
def test_known_settings_and_other_flags_pass(word):
  assert check_setting(demo.get_config("recursive"), word) is None


def test_nearest_prefers_the_same_name_in_another_group():
  assert nearest("loss.rate", ["learn.rate", "loss.ratio_low"]) == "learn.rate"
  assert nearest("loss.ratio_lo", ["learn.rate", "loss.ratio_low"]) == "loss.ratio_low"


EXPERIMENT = "from rao_jax.config import base_config\n\ndef get_config():\n  c = base_config()\n  {}\n  return c\n"


@pytest.mark.parametrize(
  "line, says",
  [
    ("c.learn.ratee = 1", 'line 5: Key "ratee" does not exist .*Did you mean "rate" instead of "ratee"'),
    ("c.caps.update(dict(windo=3))", 'line 5: Key "windo" does not exist .*Did you mean "window"'),
    ("c.steps = 2.5", "line 5: Could not override field 'steps' .*2.5 is of original type .*float.*int"),
    ("c.learn.row_lengths = 128", "line 5: Could not override field 'row_lengths'"),
  ],
)
def test_what_an_experiment_cannot_set_is_told_with_its_line(tmp_path, line, says):
  path = tmp_path / "experiment.py"
  path.write_text(EXPERIMENT.format(line))
  with pytest.raises(app.UsageError, match=rf"experiment\.py, {says}") as e:
    load_config(str(path))
  assert len(str(e.value)) < 300 and "\n" not in str(e.value)


def test_a_bug_of_an_experiment_is_left_as_it_is(tmp_path):
  path = tmp_path / "experiment.py"
  path.write_text(EXPERIMENT.format("int('x')"))
  with pytest.raises(ValueError, match="invalid literal"):
    load_config(str(path))
  with pytest.raises(app.UsageError, match=r"there is no file .*missing\.py"):
    load_config(str(tmp_path / "missing.py:recursive"))


def test_only_errors_that_this_package_or_the_system_raises_are_of_settings():
  with pytest.raises(ValueError) as ours, settings():
    load_function("os:no_such", "config.x='os:no_such'")
  with pytest.raises(ValueError) as theirs, settings():
    int("x")
  with pytest.raises(FileNotFoundError) as missing, settings():
    pathlib.Path("/no/such/file").read_text()
  assert ours.value.is_setting and missing.value.is_setting and not theirs.value.is_setting


@pytest.mark.parametrize(
  "word, says",
  [
    ("config.steps=9", "left over on the command line: config.steps=9; write --config.steps=9"),
    ("quiet=1", "left over on the command line: quiet=1; write --quiet=1"),
    ("--config.steps=many", "flag --config.steps=many: invalid literal for int() with base 10: 'many'"),
    ("--config.rollouts_per_task=1", "config.rollouts_per_task=1 leaves no other tree"),
    ("--resume", "holds no checkpoint to go on from"),
  ],
)
def test_the_command_ends_in_one_line_before_anything_is_made(tmp_path, word, says):
  words = ["-m", "rao_jax.train", "--config=tests/branches.py:", f"--workdir={tmp_path / 'run'}", word]
  env = os.environ | {"JAX_PLATFORMS": "cpu"}
  done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith("error: ") and says in done.stderr and done.stderr.count("\n") == 1
  assert not (tmp_path / "run").exists()
