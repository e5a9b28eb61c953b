"""The SLURM script for real, on a cluster of one node and two processes: one of them is killed on the way."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.full
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
  if not os.environ.get("RAO_FULL"):
    pytest.skip("make test-full installs SLURM and starts it")
  subprocess.run(["bash", ROOT / "tests/launch/slurm_here.sh"], check=True, timeout=300)
  yield
  subprocess.run(["bash", ROOT / "tests/launch/slurm_here.sh", "stop"], check=True, timeout=60)


def said(*words: str) -> str:
  return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout


def test_job_runs_a_process_a_task_and_goes_on_after_one_is_killed(cluster, tmp_path):
  assert shutil.which("sbatch")
  flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
  env = os.environ | dict(JAX_PLATFORMS="cpu", XLA_FLAGS=flags, PYTHONPATH=str(ROOT), PYTHON=sys.executable)
  words = [
    "sbatch", "--parsable", "--ntasks-per-node=2", "--gpus-per-node=0", f"--output={tmp_path}/out",
    "launch/slurm.sbatch", "--", "--config=tests/branches.py:data=8", f"--workdir={tmp_path}/run", "--config.steps=12",
    "--config.warm_start.tokens=3000", "--config.warm_start.rate=0.01",
    f"--config.compile_cache={tmp_path}/cache",
  ]  # fmt: skip
  job = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.strip()
  out, killed = tmp_path / "out", False
  deadline = time.monotonic() + 400
  try:
    while time.monotonic() < deadline and said("squeue", "--noheader", f"--jobs={job}"):
      if not killed and (tmp_path / "run/checkpoints/1").exists():
        killed = kill_a_task(job)
      time.sleep(0.2)
  finally:
    subprocess.run(["scancel", job], capture_output=True)
  text = out.read_text()
  assert killed and "supervise: a process ended with" in text and "starting again from step" in text, text[-3000:]
  assert "0: going on from the checkpoint of step" in text and "0: step 12/12" in text and "1: step" not in text
  rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
  steps = [row["step"] for row in rows if "train/success" in row or "funnel/trees_started" in row]
  assert steps == list(range(1, 13))


def kill_a_task(job: str) -> bool:
  """Kills the second process of the running step."""
  for line in said("scontrol", "listpids", job).splitlines()[1:]:
    pid, _, _, local, *_ = line.split()
    if local == "1":
      os.kill(int(pid), signal.SIGKILL)
      return True
  return False


def test_a_sweep_is_an_array_that_is_submitted_once(cluster, tmp_path):
  env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
  env |= dict(JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT), PYTHON=sys.executable, SWEPT_CACHE=str(tmp_path / "cache"))
  words = [
    sys.executable, "launch/sweep.py", "--experiment=tests/launch/swept.py", f"--workdir={tmp_path}/s", "--slots=2",
    "--backend=slurm", *(f"--option={o}" for o in ("--ntasks-per-node=1", "--gpus-per-node=0")),
  ]  # fmt: skip
  run = lambda *more: subprocess.run([*words, *more], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
  jobs = lambda: said("squeue", "--noheader", "--format=%A %j").splitlines()
  before = jobs()
  submitted = run()
  try:
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "2 not begun" in submitted.stdout and "+ sbatch --job-name=rao-" in submitted.stdout
    again = run()
    assert again.returncode == 0 and "not begun" not in again.stdout and "+ sbatch" not in again.stdout
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and set(jobs()) - set(before):
      time.sleep(0.5)
  finally:
    for line in set(jobs()) - set(before):
      subprocess.run(["scancel", line.split()[0]], capture_output=True)
  done = run("--results")
  assert "2 points" in done.stdout and "2 done" in done.stdout, done.stdout
  assert len(list((tmp_path / "s").glob("array_*.txt"))) == 1
  assert len(list((tmp_path / "s").glob("slurm_*.log"))) == 2
