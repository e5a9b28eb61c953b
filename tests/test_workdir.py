"""workdir.py: one config, one run at a time, and a record of every start."""

import json
import subprocess
import sys

import pytest

from rao_jax.tokenizer import train_sentencepiece
from rao_jax.workdir import STARTS, claim, git_state, refuse_url
from tests.branches import get_config


def test_a_second_run_on_a_workdir_is_refused_until_the_first_has_ended(tmp_path):
  child = (
    "import sys, pathlib; from rao_jax.workdir import claim; from tests.branches import get_config\n"
    "lock = claim(pathlib.Path(sys.argv[1]), get_config()); print('mine', flush=True); sys.stdin.read()"
  )
  words = [sys.executable, "-c", child, str(tmp_path)]
  other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert other.stdout.readline() == "mine\n"
  with pytest.raises(ValueError, match=rf"is in use by process {other.pid} on .*: wait for it, end it, or choose"):
    claim(tmp_path, get_config())
  other.kill()  # SIGKILL: the system gives the lock back
  other.wait()
  claim(tmp_path, get_config()).close()


def test_every_start_is_recorded(tmp_path):
  for seed in (0, 0):
    c = get_config()
    c.seed = seed
    claim(tmp_path, c).close()
  first, second = (json.loads(line) for line in (tmp_path / STARTS).read_text().splitlines())
  assert first["versions"].keys() >= {"python", "rao_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint"}
  assert (first["devices"], first["processes"], first["seed"]) == (
    {"platform": "cpu", "kind": "cpu", "count": 8}, 1, 0
  )  # fmt: skip
  assert second["time"] >= first["time"]


def test_the_state_of_a_repository(tmp_path):
  git = lambda *words: subprocess.run(
    ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True
  )
  assert git_state(tmp_path) is None
  git("init")
  assert git_state(tmp_path) is None  # no commit yet
  (tmp_path / "a").write_text("1")
  git("add", "a")
  git("commit", "-m", "a")
  clean = git_state(tmp_path)
  assert len(clean["commit"]) == 40 and not clean["dirty"]
  (tmp_path / "a").write_text("2")
  assert git_state(tmp_path) == {"commit": clean["commit"], "dirty": True}


def test_a_start_that_came_to_nothing_leaves_neither_its_config_nor_its_tokenizer(tmp_path):
  c = get_config()
  claim(tmp_path, c).close()
  train_sentencepiece([], (), (), 0).save(tmp_path / "tokenizer.model")
  claim(tmp_path, c).close()
  assert (tmp_path / "tokenizer.model").exists()
  c.learn.rate = 0.5
  claim(tmp_path, c).close()
  assert not (tmp_path / "tokenizer.model").exists()
  assert json.loads((tmp_path / "config.json").read_text())["learn"]["rate"] == 0.5

  (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')  # now it has begun
  c.learn.rate, c.steps = 0.25, 9
  for _ in range(2):  # a refusal gives the lock back
    with pytest.raises(ValueError, match=r"config\.learn\.rate: 0\.5 in the workdir, 0\.25 asked for\nuse a fresh"):
      claim(tmp_path, c)
  c.learn.rate = 0.5
  claim(tmp_path, c).close()
  assert json.loads((tmp_path / "config.json").read_text())["steps"] == 9


def test_a_url_is_refused_with_the_way_to_a_bucket():
  with pytest.raises(ValueError, match=r"--workdir=gs://b/runs is a URL: mount the bucket \(gcsfuse"):
    refuse_url("gs://b/runs")
  refuse_url("/gcs/b/runs")
