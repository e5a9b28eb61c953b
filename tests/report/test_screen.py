"""screen.py: one live line on a terminal, plain lines in a log, a table at the end."""

import io
import re

import pytest

from rao_jax import screen
from rao_jax.screen import Screen, final_table

METRICS = {
  "train/success": 0.8, "train/success/easy": 1.0, "train/success/medium": 0.75, "train/nodes_per_tree": 3.25,
  "time/sampled_tokens_per_second": 3376.4, "time/step_seconds": 5.42,
}  # fmt: skip


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
  return now


def terminal(monkeypatch):
  """A stream in the place of stderr that says it is one; not a fixture, as pytest sets stderr anew before a test."""
  stream = io.StringIO()
  stream.isatty = lambda: True
  monkeypatch.setattr("sys.stderr", stream)
  monkeypatch.setenv("COLUMNS", "80")
  return stream


def run(shown, clock):
  bar = shown.bar(40, "step")
  for step in (1, 2, 3):
    bar.update(1)
    shown.step(step, 40, METRICS)
    clock[0] += 90  # of the next step
  shown.evaluation(3, {"eval/success": 0.5, "time/evaluation_seconds": 8.66})
  bar.close()


def test_a_log_has_a_plain_line_for_each_step(capsys, clock):
  run(Screen(quiet=False), clock)  # pytest's stderr is no terminal
  out, err = capsys.readouterr()
  assert err == "" and out.splitlines() == [
    "step 1/40  easy 1.00  medium 0.75  nodes 3.2  entropy 0.000  grad 0.00  3,376 tok/s  5.4 s  ETA ?",
    "step 2/40  easy 1.00  medium 0.75  nodes 3.2  entropy 0.000  grad 0.00  3,376 tok/s  5.4 s  ETA 57:00",
    "step 3/40  easy 1.00  medium 0.75  nodes 3.2  entropy 0.000  grad 0.00  3,376 tok/s  5.4 s  ETA 55:30",
    "evaluation at step 3: success 0.50  (8.7 s)",
  ]


def test_a_terminal_has_one_line_that_is_kept_up_to_date(capsys, clock, monkeypatch):
  shown = terminal(monkeypatch)
  run(Screen(quiet=False), clock)
  assert capsys.readouterr().out.strip() == "evaluation at step 3: success 0.50  (8.7 s)"
  shown = shown.getvalue().strip()
  last = re.split(r"[\r\n]+", shown)[-1]
  assert last.startswith("step 3/40 |") and "easy 1.00  medium 0.75  3,376 tok/s  5.4 s  ETA 55:30" in last
  assert shown.count("\n") <= 1  # nothing scrolls away


def test_quiet_is_plain_on_a_terminal_too_and_silent_is_nothing(capsys, clock, monkeypatch):
  shown = terminal(monkeypatch)
  run(Screen(quiet=True), clock)
  assert len(capsys.readouterr().out.splitlines()) == 4
  run(Screen(quiet=False, silent=True), clock)
  assert capsys.readouterr().out == shown.getvalue() == ""


def test_the_final_table():
  summary = {"steps": 36, "seconds": 288.4, "sampled": 451370, "warm_start_tokens": 1200675}
  evaluation = {
    "eval/success/easy": 1.0, "eval/nodes_per_tree/easy": 1.85, "eval/success/hard": 0.925,
    "eval/nodes_per_tree/hard": 15.35,
  }  # fmt: skip
  assert final_table(summary | {"evaluation": evaluation}).splitlines() == [
    "36 steps in 04:48, 451,370 sampled tokens, 1,200,675 warm-start tokens",
    "difficulty     success   nodes per tree",
    "easy             1.000              1.9",
    "hard             0.925             15.3",
  ]
  assert final_table(summary | {"evaluation": {}}).count("\n") == 0
