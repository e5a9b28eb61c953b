"""Agents side by side: lanes of commands, and the table of what their tests found."""

import sys

import pytest

from rao_jax.compare import Job, Lane, final_table, run_lanes


def test_lane_says_what_failed_and_shows_the_end_of_its_log(tmp_path):
  job = Job("train x", [sys.executable, "-c", "print('step 1/2'); raise SystemExit('no luck')"], tmp_path / "log")
  with pytest.raises(RuntimeError, match=r"train x failed \(exit 1\)(.|\n)*no luck"):
    run_lanes([Lane(None, [job], 0)])


def test_the_table_has_a_row_for_each_agent_and_stage_and_shorter_documents_first():
  stage = {"2x": 0.5, "32x": 0.25, "8x": 0.75, "half": 1.0}
  agent = {
    "warm_start": stage, "trained": stage, "sampled_tokens": 12_345, "warm_start_tokens": 7, "max_depth_solved": 3,
    "intervals": {name: dict.fromkeys(stage, (0.1, 0.9)) for name in ("warm_start", "trained")},
  }  # fmt: skip
  lines = final_table({"recursive": agent, "single": agent}).splitlines()
  assert lines[0].split() == ["agent", "half", "2x", "8x", "32x"]
  assert lines[1].split()[:2] == ["recursive", "warm"] and lines[4].split()[:2] == ["single", "trained"]
  assert lines[4].split()[2:5] == ["1.000", "[0.100,", "0.900]"]
  assert lines[5] == "recursive    warm start 7 tokens, RL 12,345 sampled tokens, deepest tree solved 3"
