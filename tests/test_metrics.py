"""metrics.py: means with counts, rows that survive a kill, resume."""

import json

import pytest
from tensorboardX.proto import event_pb2

from rao_jax import metrics


def events(folder):
  """(step, tag, value) of every scalar of the event files: records are length u64, crc u32, data, crc u32."""
  found = []
  for path in sorted(folder.glob("events.*")):
    data, at = path.read_bytes(), 0
    while at < len(data):
      size = int.from_bytes(data[at : at + 8], "little")
      event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
      found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
      at += 16 + size
  return found


def test_means_weigh_parts_by_their_counts():
  means = metrics.Means()
  means.add("success", 3, 4)
  means.add("success", 1, 1)
  means.add("loss", 2.0)
  means.add("never", 0, 0)
  assert means.result() == {"success": 0.8, "loss": 2.0}


def test_rows_come_back_and_non_finite_numbers_stay_json(tmp_path):
  writer = metrics.MetricWriter(tmp_path)
  writer.write(0, {"train/success/medium": 0.25})
  writer.write(1, {"train/success/medium": 0.5, "train/loss": float("nan"), "train/ratio_max": float("inf")})
  writer.close()
  assert metrics.read_metrics(tmp_path / "metrics.jsonl") == [
    {"step": 0, "train/success/medium": 0.25},
    {"step": 1, "train/success/medium": 0.5, "train/loss": None, "train/ratio_max": None},
  ]
  assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
  assert (1, "train/success/medium", 0.5) in events(tmp_path / "tensorboard")


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_cut_by_a_kill_is_dropped_and_the_next_row_is_readable(tmp_path, cut):
  writer = metrics.MetricWriter(tmp_path, tensorboard=False)
  writer.write(0, {"a": 1.0})
  writer.write(1, {"a": 2.0})
  writer.close()
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(path.read_bytes()[:-cut])
  whole = [{"step": 0, "a": 1.0}] + ([{"step": 1, "a": 2.0}] if cut == 1 else [])  # 1: only the newline is gone
  assert metrics.read_metrics(path) == whole
  writer = metrics.MetricWriter(tmp_path, tensorboard=False)
  writer.write(2, {"a": 3.0})
  writer.close()
  assert metrics.read_metrics(path) == whole + [{"step": 2, "a": 3.0}]
  assert [json.loads(line) for line in path.read_text().splitlines()] == whole + [{"step": 2, "a": 3.0}]


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 0}\n{"ste\n{"step": 2}\n')
  with pytest.raises(ValueError, match=r"metrics.jsonl:2 "):
    metrics.read_metrics(path)


def test_resume_drops_rows_past_the_checkpoint(tmp_path):
  writer = metrics.MetricWriter(tmp_path)
  for step in range(5):
    writer.write(step, {"a": float(step)})
  writer.close()
  writer = metrics.MetricWriter(tmp_path)
  assert writer.truncate_after(2) == 2
  writer.write(3, {"a": 30.0})
  assert writer.truncate_after(3) == 0
  writer.write(4, {"a": 40.0})
  writer.close()
  rows = metrics.read_metrics(tmp_path / "metrics.jsonl")
  assert [(r["step"], r["a"]) for r in rows] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]


def test_asking_for_wandb_without_the_package_says_what_to_do(tmp_path):
  try:
    import wandb  # noqa: F401
  except ImportError:
    with pytest.raises(ImportError, match="pip install wandb"):
      metrics.MetricWriter(tmp_path, wandb_project="rao")
  else:
    pytest.skip("wandb is installed here")
