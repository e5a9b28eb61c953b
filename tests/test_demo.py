"""The demo's own arithmetic; the demo as a whole runs in `make test-full`, with everything made small."""

import json
import os
import subprocess
import sys

import pytest

from rao_jax import demo
from rao_jax.envs.textcraft.script import oracle_single
from rao_jax.envs.textcraft.windows import window_needed
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Outcome, Tree
from rao_jax.rollout.scripted import play


def test_window_needed_is_the_smallest_in_which_a_node_comes_out_the_same(
  interpreter, textcraft, textcraft_tasks, textcraft_protocol
):
  def solve(window):
    caps = Caps(max_depth=0, window=window, turn_tokens=64, output_tokens=64)
    tree = Tree(textcraft, textcraft_tasks[5], caps, textcraft_protocol, interpreter)
    return play(tree, lambda goal, _: oracle_single(goal, 64), textcraft_protocol, 0).root

  wide = solve(4096)
  needed = window_needed(wide, min_turn=Caps.min_turn)
  fits, short = solve(needed), solve(needed - 1)
  assert wide.success == fits.success == 1.0 and fits.tokens == wide.tokens
  assert short.success == 0.0 and short.outcome is not Outcome.FINISHED


def test_left_over_words_are_refused(tmp_path, capsys):
  with pytest.raises(SystemExit):
    demo.main([f"--out={tmp_path}", "config.steps=3"])
  assert "config.steps=3" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    demo.main([f"--out={tmp_path}", "--tasks=1,2"])


@pytest.mark.full
def test_demo_made_small_writes_summary_and_report(tmp_path):
  small = [
    "--config.warm_start.tokens=4000", "--config.warm_start.warmup=1", "--config.steps=2", "--config.learn.warmup=0",
    "--config.sampled_tokens=0", "--config.tasks.train.train_easy=1", "--config.tasks.train.train_medium=1",
    "--config.rollouts_per_task=2", "--config.warm_start.tasks.train_easy=8",
    "--config.warm_start.tasks.train_medium=8",
    "--config.evaluation.every=0",
  ]  # fmt: skip
  command = [sys.executable, "-m", "rao_jax.demo", f"--out={tmp_path / 'demo'}", "--tasks=2,2,2", "--seed=3", *small]
  env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "RAO_START")}
  done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
  assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
  summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
  assert summary["seed"] == 3 and summary["tasks_per_difficulty"] == {"easy": 2, "medium": 2, "hard": 2}
  for agent in demo.AGENTS:
    assert set(summary[agent]["warm_start"]) == set(summary[agent]["trained"]) == {"easy", "medium", "hard"}
    assert 4000 <= summary[agent]["warm_start_tokens"] < 4000 + 768  # stops at the update that reaches the budget
    assert summary[agent]["sampled_tokens"] > 0
  assert summary["script_by_window"]["medium"]["384"] >= 0.75 and summary["script_by_window"]["hard"]["384"] <= 0.10
  assert (tmp_path / "demo" / "report.html").stat().st_size > 1_000_000
  assert "recursive" in done.stdout and "deepest" in done.stdout
