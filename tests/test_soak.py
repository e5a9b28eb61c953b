"""The soak, in small: two minutes of training with faults, after which nothing has grown. See docs/reliability.md."""

import json
import os
import subprocess
import sys

import pytest

from tests.test_processes import ROOT


@pytest.mark.full
def test_two_minutes_of_training_with_random_faults_leave_nothing_behind(tmp_path):
  command = [sys.executable, "-m", "tests.soak", f"--workdir={tmp_path / 'run'}", "--minutes=2", "--quiet"]
  env = os.environ | {"XLA_FLAGS": ""}  # one device, not the eight of these tests
  done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1200)
  path = tmp_path / "run" / "soak.json"
  assert path.exists(), done.stdout[-3000:] + done.stderr[-3000:]
  result = json.loads(path.read_text())
  assert result["faults"]["hostile_cells"] > 5 and result["faults"]["sandbox_killed"] > 0 and result["steps"] > 3
  assert result["grown"].keys() <= {"rss_mb"}  # which takes longer than this to settle
