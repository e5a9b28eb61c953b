"""A run whose judge goes away ends with a checkpoint, and goes on from it when the judge is back."""

import pathlib
import subprocess
import sys

import pytest

from rao_jax.metrics import read_metrics
from rao_jax.train import train
from tests.judge.pair import get_config
from tests.judge.server import fail, say

ROOT = pathlib.Path(__file__).parents[2]


def judged(workdir):
  return [row for row in read_metrics(workdir / "metrics.jsonl") if "judge/nodes" in row]


@pytest.mark.full
def test_a_judge_that_goes_away_stops_the_run_which_goes_on_when_it_is_back(server, tmp_path, capsys):
  good = 12  # a step asks about eight nodes
  server.answer = lambda handler, number: (say(0.5) if number < good else fail(500))(handler, number)
  words = ["rao_jax.train", f"--config=tests/judge/pair.py:{server.url}", f"--workdir={tmp_path}", "--quiet"]
  ended = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
  steps = len(judged(tmp_path))
  assert ended.returncode == 1 and 1 <= steps < 4, ended.stderr
  assert f"stopped: the judge gives no verdict: m at {server.url}: InternalServerError" in ended.stderr
  assert f"the state of step {steps} is saved below {tmp_path}: the same command goes on from there" in ended.stderr
  assert "Traceback" not in ended.stderr and (tmp_path / "checkpoints" / str(steps)).exists()

  server.answer = say(0.5)
  assert train(get_config(server.url), tmp_path, quiet=True)["steps"] == 4
  assert f"going on from the checkpoint of step {steps}" in capsys.readouterr().out
  rows = judged(tmp_path)
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  assert all(row["judge/nodes"] >= 4 and row["judge/score"] == 0.5 for row in rows)
  # Children that finish have half of what this world gives them.
  assert all(0 < row["train/node_success/depth_1"] <= 0.5 for row in rows)
