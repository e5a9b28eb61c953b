"""Two processes of four devices on this machine: what they tell each other, how one's end becomes the other's, and that
a run of theirs is the run of one process with eight devices."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest

from rao_jax.build import make_run
from rao_jax.checkpoint import DIGESTS, Checkpointer
from rao_jax.evaluate import Options, evaluate_workdir
from rao_jax.metrics import read_metrics
from rao_jax.train import train
from tests.branches import get_config

ROOT = pathlib.Path(__file__).parents[1]


def spawn(*words, **variables):
  """A Python process with four devices."""
  flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
  env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  return subprocess.Popen(
    [sys.executable, *words], cwd=ROOT, env=env | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )


def places():
  """The flags that tell each of two processes its place."""
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
  common = ["--distributed", f"--coordinator=127.0.0.1:{port}", "--num_processes=2", "--heartbeat=10"]
  return [[*common, f"--process_id={i}"] for i in range(2)]


def ends(pair, seconds=240):
  """[(exit code, output)] of both."""
  try:
    outputs = [process.communicate(timeout=seconds)[0] for process in pair]
  finally:
    for process in pair:
      process.kill()
  return [(process.returncode, output) for process, output in zip(pair, outputs)]


TALK = textwrap.dedent("""
  import sys
  from absl import flags
  from rao_jax import processes
  from rao_jax.mesh import ROLLOUT_RULES, Rules, make_mesh
  processes.define_flags()
  flags.FLAGS(sys.argv)
  processes.start(flags.FLAGS)
  import jax
  me = jax.process_index()
  print("agree", processes.agree([me, 7 - me, -me]))
  sent = bytes([me + 1]) * (3 * me + 1) * processes.BLOCK  # 1 and 4 blocks
  got = processes.exchange(sent)
  print("exchange", [(len(m), set(m)) for m in got])
  print("first", processes.from_first({"time": 0.1 + me}))
  for sizes in (dict(data=2, tensor=4), dict(data=1, tensor=8), dict(fsdp=2, expert=2, tensor=2)):
    try:
      print(sizes, Rules.of(make_mesh(**sizes), ROLLOUT_RULES).row_owners)
    except ValueError as e:
      print(sizes, e)
  made = []
  processes.first_then_others(lambda: made.append(me))
  print("made", made)
  try:
    with processes.together():
      if me == 1:
        raise OSError("disk full")
  except Exception as e:
    print("together", repr(e), processes.known_to_all(e))
  print("ready", flush=True)
  with processes.end_at_once():
    if me == 1:
      raise OSError("alone")
    processes.agree([0])  # waits for a process that is gone
""")


def test_processes_agree_exchange_and_end_together():
  pair = [spawn("-c", TALK, *place) for place in places()]
  began = time.monotonic()
  (code0, out0), (code1, out1) = ends(pair)
  for out, made, together in (
    (out0, "[0]", "PeerFailed('process 1 of 2 failed"),
    (out1, "[1]", "OSError('disk full')"),
  ):
    assert "agree [1, 7, 0]" in out, out
    assert "exchange [(65536, {1}), (262144, {2})]" in out
    assert "first {'time': 0.1}" in out
    assert "{'data': 2, 'tensor': 4} [0, 1]" in out
    assert "{'fsdp': 2, 'expert': 2, 'tensor': 2} [0, 1]" in out
    assert "x tensor = 8 devices share the rows they work on and must be in one process, but one has 4: set" in out
    assert f"made {made}" in out
    assert f"together {together}" in out and "True\nready" in out
  assert code1 == 1 and "OSError: alone" in out1
  assert code0 != 0 and time.monotonic() - began < 120  # ended by the runtime, or by the broken connection


MESH = "data=1,fsdp=4,tensor=2"


def run_two(workdir, *words, **variables):
  command = [
    "-m", "rao_jax.train", f"--config=tests/branches.py:{MESH}", f"--workdir={workdir}", "--quiet",
    f"--config.compile_cache={workdir.parent / 'cache'}", *words,
  ]  # fmt: skip
  return [spawn(*command, *place, **variables) for place in places()]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
  """The workdir of a run of two processes, and their outputs."""
  workdir = tmp_path_factory.mktemp("processes") / "two"
  (code, out), (code1, out1) = ends(run_two(workdir))
  assert code == code1 == 0, out + out1
  return workdir, out, out1


def rows_of(workdir):
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(workdir / "metrics.jsonl")
  ]


def state_of(workdir):
  run = make_run(get_config(MESH), workdir)
  try:
    with Checkpointer(workdir / "checkpoints") as checkpoints:
      return checkpoints.restore(run.abstract_state())
  finally:
    run.close()


def test_two_processes_make_the_run_of_one(two, tmp_path):
  two, out, out1 = two
  assert "step 2/2" in out and "step 2/2" not in out1
  one = tmp_path / "one"
  train(get_config(MESH), one, quiet=True)

  rows, expected = rows_of(two), rows_of(one)
  assert len(rows) == len(expected) == 5
  for row, other in zip(rows, expected):
    assert row == pytest.approx(other, rel=1e-3, abs=1e-5)
  assert expected[2]["train/max_depth"] == 2 and expected[2]["judge/nodes"] > 0
  for name in ("step_000001.jsonl", "step_000002.jsonl"):
    trees, others = ([json.loads(line) for line in (w / "trees" / name).read_text().splitlines()] for w in (two, one))
    assert len(trees) == 16
    for tree, other in zip(trees, others):  # none of their choices is a near tie
      assert [node["turns"] for node in tree["nodes"]] == [node["turns"] for node in other["nodes"]]
  (step, state, meta), (other_step, other, other_meta) = state_of(two), state_of(one)
  assert step == other_step == 2 and meta["sampled"] == other_meta["sampled"]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state.params, other.params)


@pytest.mark.full
def test_two_processes_evaluate_as_one_does(two, tmp_path):
  workdir, file, trees = two[0], tmp_path / "two.json", tmp_path / "two.jsonl"
  words = ["-m", "rao_jax.evaluate", f"--workdir={workdir}", "--greedy", f"--json={file}", f"--trees={trees}"]
  (code, out), (code1, out1) = ends([spawn(*words, *place) for place in places()])
  assert code == code1 == 0, out + out1
  assert str(file) in out and "success" in out and "success" not in out1

  expected = evaluate_workdir(workdir, Options(temperature=0.0), trees_file=tmp_path / "one.jsonl")
  result = json.loads(file.read_text())
  assert result["metrics"] == pytest.approx(expected["metrics"], rel=1e-6)
  for part in ("splits", "tiers", "single", "pareto"):
    assert result[part] == json.loads(json.dumps(expected[part]))
  lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in (trees, tmp_path / "one.jsonl")]
  assert len(lines[0]) == len(lines[1]) > 0
  for tree, other in zip(*lines):
    assert [node["turns"] for node in tree["nodes"]] == [node["turns"] for node in other["nodes"]]


@pytest.mark.full
def test_a_killed_process_ends_the_other_and_a_lost_judge_stops_both_which_save(two):
  workdir = two[0].parent / "killed"
  words = ["--config.evaluation.every=0", f"--config.warm_start.from_workdir={two[0]}", "--config.steps=100"]
  pair = run_two(workdir, *words)
  until = time.monotonic() + 120
  while not (workdir / "checkpoints" / "1" / DIGESTS).exists() and time.monotonic() < until:
    time.sleep(0.1)
  pair[1].send_signal(signal.SIGKILL)
  (code, _), (code1, _) = ends(pair, seconds=60)
  assert code != 0 and code1 == -signal.SIGKILL

  reached = max(int(p.name) for p in (workdir / "checkpoints").iterdir() if (p / DIGESTS).exists())
  rare = "--config.checkpoint.every=50"
  (code, out), (code1, out1) = ends(run_two(workdir, *words, rare, BRANCHES_FAIL="30"))
  assert (code, code1) == (1, 1), out + out1
  assert f"going on from the checkpoint of step {reached}" in out
  assert "stopped: process 1 of 2 failed: its output says why" in out
  assert "stopped: the judge gives no verdict: gone" in out1
  rows = rows_of(workdir)
  assert [row["step"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) > reached
  assert f"the state of step {len(rows)} is saved below {workdir}" in out
  assert (workdir / "checkpoints" / str(len(rows)) / DIGESTS).exists()


@pytest.mark.full
def test_sigterm_to_one_process_ends_both_at_one_step_with_their_state_saved(two):
  workdir = two[0].parent / "asked"
  words = ["--config.evaluation.every=0", f"--config.warm_start.from_workdir={two[0]}", "--config.steps=1000"]
  pair = run_two(workdir, *words, "--config.checkpoint.every=500")
  until = time.monotonic() + 120
  while not (workdir / "trees" / "step_000001.jsonl").exists() and time.monotonic() < until:
    time.sleep(0.1)
  pair[1].send_signal(signal.SIGTERM)
  (code, out), (code1, out1) = ends(pair, seconds=60)
  assert (code, code1) == (0, 0), out + out1
  reached = rows_of(workdir)[-1]["step"]
  assert 0 < reached < 1000 and f"the state of step {reached} is saved below {workdir}" in out
  assert (workdir / "checkpoints" / str(reached) / DIGESTS).exists()
