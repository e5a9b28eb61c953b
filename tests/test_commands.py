"""The commands of the README and of docs/quickstart.md, run as a user runs them, on runs made small."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

pytestmark = pytest.mark.full
ROOT = pathlib.Path(__file__).parents[1]


def run(*words: str) -> subprocess.CompletedProcess:
  env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  """(workdir, the words of a small training run)."""
  folder = tmp_path_factory.mktemp("commands")
  return folder / "run", [
    "rao_jax.train", "--config=experiments/demo.py:recursive", f"--workdir={folder / 'run'}",
    f"--config.environment.options.data_dir={folder / 'data'}", f"--config.compile_cache={folder / 'cache'}",
    "--config.warm_start.tokens=3000", "--config.warm_start.warmup=1", "--config.learn.warmup=0",
    "--config.warm_start.tasks.train_easy=6", "--config.warm_start.tasks.train_medium=4",
    "--config.rollouts_per_task=2",
    "--config.tasks.train.train_easy=1", "--config.tasks.train.train_medium=1", "--config.tasks.dev.dev_easy=2",
    "--config.tasks.dev.dev_medium=2", "--config.tasks.dev.dev_hard=2",
  ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(small):
  """A workdir trained for one step, and then one more, by the command line."""
  workdir, words = small
  dry = run(*words, "--config.steps=1", "--dry_run")
  assert dry.returncode == 0 and "parameters on 1 cpu" in dry.stdout and "MiB" in dry.stdout, dry.stdout + dry.stderr
  assert not (workdir / "metrics.jsonl").read_text()
  first = run(*words, "--config.steps=1", "--profile_steps=1")
  assert first.returncode == 0, first.stderr[-3000:]
  assert list((workdir / "profile").rglob("*.xplane.pb"))
  second = run(*words, "--config.steps=2", "--quiet")
  assert second.returncode == 0 and "going on from the checkpoint of step 1" in second.stdout, second.stderr[-3000:]
  assert "step 2/2" in second.stdout and "2 steps" in second.stdout
  return workdir


def test_evaluate_prints_a_table_at_another_depth_cap(trained, tmp_path):
  out = tmp_path / "out.json"
  done = run(
    "rao_jax.evaluate", f"--workdir={trained}", "--split=dev_easy:2,dev_hard:3", "--max_depth=0", f"--json={out}"
  )
  assert done.returncode == 0 and "dev_hard" in done.stdout, done.stderr[-3000:]
  result = json.loads(out.read_text())
  assert result["max_depth"] == 0 and result["splits"]["dev_hard"]["tasks"] == 3
  assert result["splits"]["dev_hard"]["nodes_per_tree"] == 1


def test_evaluate_of_several_tries_against_two_single_agents_writes_into_the_workdir(trained):
  done = run(
    "rao_jax.evaluate", f"--workdir={trained}", "--split=dev", "--difficulty=easy,hard", "--n=2", "--k=2",
    "--context=512", f"--single_workdir={trained}",
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-3000:]
  for said in ("dev_easy", "tier ", "delegation off", f"single ({trained.name})", "best of", "critical"):
    assert said in done.stdout, said
  file = pathlib.Path(done.stdout.splitlines()[-1])
  assert file.parent == trained / "evaluations"
  result = json.loads(file.read_text())
  assert result["window"] == 512 and [agent["max_depth"] for agent in result["single"]] == [0, 0]
  assert result["splits"]["dev_hard"]["trees"] == 4


@pytest.mark.parametrize(
  ("words", "said"),
  [
    (["--split=nowhere"], "nowhere"),
    (["--difficulty=colossal"], "difficulty=colossal"),
    (["--k=2", "--greedy"], "--greedy"),
    (["--context=20"], "window=20"),
  ],
)
def test_an_evaluation_that_cannot_be_made_ends_in_one_line(trained, words, said):
  done = run("rao_jax.evaluate", f"--workdir={trained}", *words)
  assert done.returncode == 2 and said in done.stderr.splitlines()[-1], done.stderr[-3000:]


def test_report_of_a_run(trained, tmp_path):
  assert (trained / "report.html").stat().st_size > 1_000_000
  done = run("rao_jax.report", f"--workdir={trained}", f"--out={tmp_path / 'r.html'}")
  assert done.returncode == 0 and (tmp_path / "r.html").exists(), done.stderr[-3000:]


def test_what_a_run_found_is_recorded_with_its_curves(trained, tmp_path):
  out = tmp_path / "results" / "0.json"
  command = [sys.executable, "results/record.py", str(trained), str(out)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
  assert done.returncode == 0, done.stderr[-3000:]
  (agent,) = json.loads(out.read_text())["agents"].values()
  curves = agent["curves"]
  assert curves["step"] == [1, 2] and curves["sampled_tokens"][0] < curves["sampled_tokens"][1]
  assert all(len(curves[name]) == 2 for name in ("success", "nodes_per_tree", "sampled_tokens", "seconds"))
  assert set(curves["evaluated"]) == {"easy", "medium", "hard"} and agent["warm_start"]["warmstart/tokens"] >= 3000


@pytest.mark.parametrize(
  ("words", "said"),
  [
    (["config.steps=3"], "config.steps=3"),
    (["--config.steq=3"], "steq"),
    (["--config.rollouts_per_task=1"], "rollouts_per_task"),
    (["--config.mesh.data=3"], "needs 3 devices"),
  ],
)
def test_bad_words_are_refused_before_anything_is_built(small, tmp_path, words, said):
  _, good = small
  fresh = [f"--workdir={tmp_path / 'x'}" if word.startswith("--workdir") else word for word in good]
  done = run(*fresh, *words)
  assert done.returncode != 0 and said in done.stdout + done.stderr
  assert not (tmp_path / "x" / "checkpoints").exists()


def test_the_quickstart_in_its_order(tmp_path):
  text = (ROOT / "docs" / "quickstart.md").read_text()
  commands = re.findall(r"^\.venv/bin/python -m (.+)$", text, re.MULTILINE)
  assert [line.split()[0].partition(".")[2] for line in commands] == ["train", "train", "evaluate", "report", "solve"]
  made_small = [
    f"--config.environment.options.data_dir={tmp_path / 'data'}", f"--config.compile_cache={tmp_path / 'cache'}",
    "--config.warm_start.tokens=3000", "--config.warm_start.warmup=1", "--config.learn.warmup=0", "--config.steps=1",
    "--config.warm_start.tasks.train_easy=6", "--config.warm_start.tasks.train_medium=4",
    "--config.rollouts_per_task=2", "--config.tasks.train.train_medium=1", "--config.tasks.dev.dev_easy=2",
    "--config.tasks.dev.dev_medium=2",
  ]  # fmt: skip
  for line in commands:
    words = [word.replace("runs/", f"{tmp_path}/") for word in shlex.split(line)]
    done = run(*words, *(made_small if words[0] == "rao_jax.train" else []))
    assert done.returncode == 0, (line, done.stderr[-3000:])
  assert (tmp_path / "first" / "report.html").exists() and (tmp_path / "first" / "evaluations").exists()
