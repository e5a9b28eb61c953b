"""The supervisor with real processes, small ones: what dies, what is started again, when it gives up."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from rao_jax.supervise import checkpoint_folder, last_step

# A worker that notes its start, saves a checkpoint of the next step, and then does what the test says for its attempt.
WORKER = """
import os, pathlib, sys, time
workdir = pathlib.Path(next(w for w in sys.argv if w.startswith("--workdir=")).partition("=")[2])
place = next((w.partition("=")[2] for w in sys.argv if w.startswith("--process_id=")), "0")
with (workdir / f"starts_{place}").open("a") as f: print(os.getpid(), *sys.argv[2:], file=f)
attempt = len((workdir / f"starts_{place}").read_text().splitlines())
def save(step): (workdir / "checkpoints" / str(step)).mkdir(parents=True, exist_ok=True)
exec(sys.argv[1])
"""


def start(tmp_path: pathlib.Path, script: str, *words: str) -> subprocess.Popen:
  worker = tmp_path / "worker.py"
  worker.write_text(WORKER)
  command = [
    sys.executable,
    "-m",
    "rao_jax.supervise",
    "--pause=0.1",
    *words,
    "--",
    sys.executable,
    str(worker),
    script,
  ]
  return subprocess.Popen([*command, f"--workdir={tmp_path}"], stderr=subprocess.PIPE, text=True)


def starts(tmp_path: pathlib.Path, place: int = 0) -> list[str]:
  file = tmp_path / f"starts_{place}"
  return file.read_text().splitlines() if file.exists() else []


def gone(pid: int) -> bool:
  return not pathlib.Path(f"/proc/{pid}").exists()


def test_run_that_ends_well_is_not_started_again(tmp_path):
  process = start(tmp_path, "save(1)")
  assert process.wait(30) == 0 and len(starts(tmp_path)) == 1 and "supervise" not in process.stderr.read()


def test_settings_that_cannot_work_are_not_tried_again(tmp_path):
  process = start(tmp_path, "sys.exit(2)")
  assert process.wait(30) == 2 and len(starts(tmp_path)) == 1


def test_death_of_one_ends_all_and_all_start_again_with_a_fresh_coordinator(tmp_path):
  script = "if attempt == 1: time.sleep(0.5) if place == '1' else time.sleep(600); sys.exit(7)"
  process = start(tmp_path, script, "--processes=2")
  assert process.wait(60) == 0
  first, second = (starts(tmp_path, place) for place in (0, 1))
  assert len(first) == len(second) == 2 and gone(int(first[0].split()[0]))
  assert first[0].split()[2:4] == ["--distributed", second[0].split()[3]]
  assert second[0].split()[4:] == ["--num_processes=2", "--process_id=1"]
  assert "a process ended with 7; starting again from step -1" in process.stderr.read()


def test_progress_counts_restarts_from_one_again_and_lack_of_it_gives_up_with_the_code_of_the_dead(tmp_path):
  # Three deaths with progress, then two without: more deaths than --restarts allows, but not in a row.
  process = start(tmp_path, "save(min(attempt, 3)); os.kill(os.getpid(), 9)", "--restarts=1")
  assert process.wait(120) == 128 + 9
  assert len(starts(tmp_path)) == 4
  assert "gave up: 2 times in a row a process died before a checkpoint after step 3 was saved" in process.stderr.read()


def test_sigterm_is_handed_on_and_ends_the_run_and_what_it_has_started(tmp_path):
  script = "import subprocess; p = subprocess.Popen(['sleep', '600']); save(p.pid); p.wait()"
  process = start(tmp_path, script)
  while last_step(checkpoint_folder([f"--workdir={tmp_path}"])) < 0:
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  assert process.wait(30) == 128 + signal.SIGTERM
  child, grandchild = int(starts(tmp_path)[0].split()[0]), last_step(checkpoint_folder([f"--workdir={tmp_path}"]))
  deadline = time.monotonic() + 10
  while not (gone(child) and is_dead(grandchild)) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert gone(child) and is_dead(grandchild) and len(starts(tmp_path)) == 1


def is_dead(pid: int) -> bool:
  """An orphan may stay a zombie where nobody reaps it."""
  return gone(pid) or "\nState:\tZ" in pathlib.Path(f"/proc/{pid}/status").read_text()


def test_newest_whole_checkpoint_is_the_progress(tmp_path):
  folder = checkpoint_folder(["python", "--workdir", str(tmp_path)])
  assert os.fspath(folder) == str(tmp_path / "checkpoints") and last_step(folder) == -1
  for name in ("8", "10", "12.orbax-checkpoint-tmp", "best"):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
  assert last_step(folder) == 10


@pytest.mark.parametrize("words", [["--"], ["--processes=0", "--", "true", "--workdir=x"], ["--", "true"]])
def test_nothing_to_run_no_process_or_no_workdir_is_a_usage_error(words):
  out = subprocess.run([sys.executable, "-m", "rao_jax.supervise", *words], capture_output=True, text=True, timeout=60)
  assert out.returncode == 1 and (
    "it reads: python -m rao_jax.supervise" in out.stdout + out.stderr or "no --workdir=DIR" in out.stdout + out.stderr
  )


@pytest.mark.full
def test_training_whose_process_is_killed_goes_on_from_its_checkpoint_and_ends(tmp_path):
  root = pathlib.Path(__file__).parents[2]
  flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
  env = os.environ | dict(JAX_PLATFORMS="cpu", XLA_FLAGS=flags, PYTHONPATH=str(root), PYTHON=sys.executable)
  words = [
    "--config=tests/branches.py:data=8", f"--workdir={tmp_path}/run", "--config.steps=12", "--quiet",
    "--config.warm_start.tokens=3000", "--config.warm_start.rate=0.01",
    f"--config.compile_cache={tmp_path}/cache",
  ]  # fmt: skip
  command = ["bash", "launch/local.sh", "--processes=2", "--", *words]
  with (tmp_path / "out").open("w") as out:
    process = subprocess.Popen(command, cwd=root, env=env, stdout=out, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 300
    while not (tmp_path / "run/checkpoints/1").exists() and process.poll() is None and time.monotonic() < deadline:
      time.sleep(0.1)
    os.kill(training_process(tmp_path, 1), signal.SIGKILL)
    try:
      code = process.wait(300)
    finally:
      process.terminate()
  said = (tmp_path / "out").read_text()
  assert code == 0 and "supervise: a process ended with" in said and "starting again from step" in said, said[-3000:]
  assert "going on from the checkpoint of step" in said and "step 12/12" in said


def training_process(workdir: pathlib.Path, place: int) -> int:
  """The process of a run in `workdir` with this number."""
  wanted = {f"--workdir={workdir}/run", f"--process_id={place}"}
  for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      if wanted <= set((folder / "cmdline").read_text().split("\0")):
        return int(folder.name)
    except OSError:
      continue  # it has just ended
  raise AssertionError(f"no process with {wanted}")
