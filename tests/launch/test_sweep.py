"""Sweeps: which points there are, which are still to run, and what they found; a real one whose driver is killed."""

import json
import math
import os
import pathlib
import random as random_lib
import signal
import subprocess
import sys
import time

import pytest

from rao_jax.sweep import clusters, grid, log_uniform, random, results, uniform
from rao_jax.sweep.local import lanes
from rao_jax.sweep.points import make_point, read_points
from rao_jax.sweep.state import Row, State, row_of, state_of
from rao_jax.workdir import FINISHED, take_lock
from tests.launch import swept
from tests.report.browser import chromium

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENT = "tests/launch/swept.py"


def added(call):
  points = []
  call(points.append)
  return points


def point(**overrides):
  return make_point(swept.get_config(), {key.replace("__", "."): value for key, value in overrides.items()})


# -- points ------------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_in_order():
  assert added(lambda add: grid(add, **{"a.b": (1, 2)}, c="xy")) == [
    {"a.b": 1, "c": "x"}, {"a.b": 1, "c": "y"}, {"a.b": 2, "c": "x"}, {"a.b": 2, "c": "y"},
  ]  # fmt: skip


def test_random_points_follow_from_the_seed_and_one_more_key_leaves_the_others_as_they_are():
  draw = lambda n=50, seed=3, **more: added(lambda add: random(add, n, seed, a=log_uniform(1e-5, 1e-1), **more))
  one, more = draw(), draw(b=uniform(2, 4), c=(True, False), d=lambda rng: rng.randrange(3))
  assert one == draw() and one[:7] == draw(7) and one != draw(seed=4)
  assert [p["a"] for p in one] == [p["a"] for p in more]
  values = [p["a"] for p in one]
  assert all(1e-5 <= a <= 1e-1 and a == float(f"{a:.3g}") for a in values)
  assert 12 <= sum(a < 1e-3 for a in values) <= 38  # half of them, were they many
  assert {p["c"] for p in more} == {True, False} and {p["d"] for p in more} == {0, 1, 2}
  assert all(2 <= p["b"] <= 4 for p in more)
  with pytest.raises(ValueError, match=r"log_uniform\(0, 1\): both must be above 0"):
    log_uniform(0, 1)
  assert math.isclose(log_uniform(2, 2)(random_lib.Random(0)), 2)


def test_the_name_of_a_point_is_that_of_its_settings_however_they_are_written():
  one = point(learn__rate=1, loss__clip_low=0.1)
  assert one.overrides == {"learn.rate": 1.0, "loss.clip_low": 0.1} and list(one.overrides) == sorted(one.overrides)
  assert one.name == point(loss__clip_low=1e-1, learn__rate=1.0).name == "9ede845a59"  # of their JSON: sha256
  assert one.name != point(learn__rate=1.0).name
  assert point(rollout__row_ladder=[8, 16]).words() == ["--config.rollout.row_ladder=(8, 16)"]
  assert one.words() == ["--config.learn.rate=1.0", "--config.loss.clip_low=0.1"]


# (overrides, what is said of them)
REFUSED = [
  (dict(learn__rat=1), r"point \(learn\.rat=1\): there is no setting 'learn\.rat': did you mean 'learn\.rate'\?"),
  (dict(learn__rate__x=1), r"there is no setting 'learn\.rate\.x'"),
  (dict(learn__rate="fast"), r"learn\.rate='fast' has the wrong type"),
  (dict(learn__minibatches=1.5), r"learn\.minibatches=1\.5 has the wrong type"),
  (dict(learn__rate=None), r"learn\.rate has no value: leave it out"),
  (dict(learn=3), r"'learn' is a group: set its keys one by one"),
  (dict(learn__rate=1e-3, caps__max_turns=0), r"point \(learn\.rate=0\.001, caps.*=0\): caps\.max_turns=0 "),
  (dict(loss__surrogate="sac"), r"sac"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "said"), REFUSED)
def test_a_point_that_cannot_work_is_refused_with_its_settings(overrides, said):
  with pytest.raises(ValueError, match=said):
    point(**overrides)


def write_experiment(folder, *lines):
  file = folder / "experiment.py"
  file.write_text("\n".join(["from tests.launch.swept import get_config", *lines]) + "\n")
  return str(file)


def test_points_are_those_that_the_file_adds_each_once(tmp_path):
  file = write_experiment(
    tmp_path, "def sweep(add):", "  add({'learn.rate': 1e-3}, seed=1)", "  add(seed=2)", "  add(seed=2)", "  add()"
  )
  assert [p.overrides for p in read_points(file)] == [{"learn.rate": 1e-3, "seed": 1}, {"seed": 2}, {}]
  assert [p.config.seed for p in read_points(file)] == [1, 2, 0]
  with pytest.raises(ValueError, match="has no sweep"):
    read_points(write_experiment(tmp_path))
  with pytest.raises(ValueError, match="adds no point"):
    read_points(write_experiment(tmp_path, "sweep = lambda add: None"))
  with pytest.raises(ValueError, match=r"several agents.*documents_cpu\.py:recursive"):
    read_points(str(ROOT / "experiments" / "documents_cpu.py"))


def test_the_experiments_sweep_is_valid_and_pairs_every_rate_with_every_seed():
  points = read_points(str(ROOT / "experiments" / "textcraft_cpu.py"))
  assert len({p.name for p in points}) == 6
  assert {(p.config.learn.rate, p.config.seed) for p in points} == {(r, s) for r in (1e-4, 3e-4, 1e-3) for s in (0, 1)}


def test_every_arm_of_the_ablations_is_valid_and_starts_where_its_seed_does():
  points = read_points(str(ROOT / "experiments" / "ablations_cpu.py"))
  starts = {(p.config.warm_start.from_workdir.rpartition("_")[2], p.config.seed) for p in points}
  assert starts == {(str(seed), seed) for seed in range(3)}
  assert len(points) == 3 * len({tuple(x for x in p.words() if "seed" not in x and "warm" not in x) for p in points})


# -- what is still to run ----------------------------------------------------------------------------------------------


def has_run(folder, of, summary=None):
  """A workdir as a run leaves it; with a summary, a finished one."""
  workdir = folder / of.name
  workdir.mkdir()
  (workdir / "config.json").write_text(json.dumps(of.config.to_dict()))
  if summary:
    (workdir / FINISHED).write_text(json.dumps(summary))
  return workdir


def test_the_state_of_a_point_is_told_by_its_workdir(tmp_path):
  one = point(seed=1)
  assert state_of(one, tmp_path) is State.NEW
  workdir = has_run(tmp_path, one)
  assert state_of(one, tmp_path) is State.BEGUN
  lock = take_lock(workdir)
  assert state_of(one, tmp_path) is State.RUNNING
  (workdir / FINISHED).write_text("{}")
  assert state_of(one, tmp_path) is State.RUNNING  # it goes on beyond its end
  lock.close()
  assert state_of(one, tmp_path) is State.DONE
  assert "process" in (workdir / "lock").read_text()  # the look left it as it was


def test_a_finished_run_of_other_settings_is_not_done(tmp_path):
  one = point(seed=1)
  has_run(tmp_path, one, {"seconds": 3.0})
  longer, quieter = point(seed=1), point(seed=1)
  longer.config.steps, quieter.config.log.trees = 99, 1
  assert [state_of(p, tmp_path) for p in (one, longer, quieter)] == [State.DONE, State.BEGUN, State.DONE]
  config = json.loads((tmp_path / one.name / "config.json").read_text())
  del config["learn"]["clip"]  # a setting that is newer than the run
  (tmp_path / one.name / "config.json").write_text(json.dumps(config))
  assert state_of(one, tmp_path) is State.DONE


def test_cores_are_dealt_out_to_the_slots():
  assert lanes(2, [0, 1, 4]) == [[0, 4], [1]]
  with pytest.raises(ValueError, match=r"--slots=3: this process may use 2 core\(s\)"):
    lanes(3, [0, 1])


# -- clusters ----------------------------------------------------------------------------------------------------------


def test_a_slurm_array_has_a_line_for_each_point_and_the_queue_tells_which_wait(tmp_path):
  points = [point(seed=1, judge__instruction="a 'quoted' word"), point(seed=2)]
  words, file, lines = clusters.slurm_command(EXPERIMENT, points, tmp_path, 4, ["--partition=gpu"])
  name = clusters.array_name(tmp_path)
  assert words == [
    "sbatch", f"--job-name={name}-1", "--array=0-1%4", f"--output={tmp_path}/slurm_%A_%a.log", "--partition=gpu",
    str(ROOT / "launch" / "slurm.sbatch"), f"--points={tmp_path}/array_1.txt",
  ]  # fmt: skip
  file.write_text(lines)
  assert clusters.slurm_command(EXPERIMENT, points, tmp_path, 4, [])[1].name == "array_2.txt"
  listed = f"{name}-1 1\nother 0\n{name}-7 0\n{name}-12 N/A\n"
  assert clusters.queued(tmp_path, listed) == {points[1].name}
  shown = subprocess.run(
    ["bash", str(ROOT / "launch" / "slurm.sbatch"), "--dry_run", f"--points={file}"], capture_output=True, text=True,
    env=os.environ | {"SLURM_ARRAY_TASK_ID": "0", "PYTHON": "python"},
  )  # fmt: skip
  assert shown.returncode == 0, shown.stderr
  assert f"--config={EXPERIMENT} --workdir={tmp_path}/{points[0].name} " in shown.stdout
  assert r"--config.judge.instruction=a\ \'quoted\'\ word" in shown.stdout and "seed=2" not in shown.stdout


def test_an_xpk_job_is_named_by_its_point():
  (words,) = clusters.xpk_commands(EXPERIMENT, [point(seed=2)], "gs://b/s", "lr", ["--tpu-type=v6e-16"], True)
  name = point(seed=2).name
  assert words == [
    str(ROOT / "launch" / "gke.sh"), "--dry_run", f"--name=lr-{name}", "--tpu-type=v6e-16", "--",
    f"--config={EXPERIMENT}", f"--workdir=gs://b/s/{name}", "--config.seed=2",
  ]  # fmt: skip
  with pytest.raises(ValueError, match="--name=LR: xpk wants small letters"):
    clusters.xpk_commands(EXPERIMENT, [], "gs://b/s", "LR", [], True)


# -- results -----------------------------------------------------------------------------------------------------------


def rows_of(*found, metric="eval/success"):
  """(rate, seed, success) -> rows; a success of None is a point without results."""
  out = []
  for rate, seed, success in found:
    metrics = {} if success is None else {metric: success, f"{metric}/easy": 1.0, f"{metric}/hard": success / 2}
    state = State.NEW if success is None else State.DONE
    out.append(Row(point(learn__rate=rate, seed=seed), state, metrics, 2, 61.4))
  return out


ROWS = [(1e-4, 0, 0.25), (1e-4, 1, 0.75), (1e-2, 0, 0.625), (1e-2, 1, None)]


def test_the_last_value_of_each_metric_counts(tmp_path):
  one = point(seed=3)
  workdir = has_run(tmp_path, one, {"seconds": 12.5})
  lines = [{"step": 0, "eval/success": 0.1}, {"step": 1, "train/success": 0.2}, {"step": 2, "eval/success": 0.3}]
  (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  row = row_of(one, State.DONE, tmp_path)
  assert (dict(row.metrics), row.step, row.seconds) == ({"eval/success": 0.3, "train/success": 0.2}, 2, 12.5)
  assert row_of(point(seed=4), State.NEW, tmp_path) == Row(point(seed=4), State.NEW, {}, None, None)


def test_the_table_has_the_best_first_and_means_over_seeds():
  points, seeds = (t.splitlines() for t in results.text_table(rows_of(*ROWS), "eval/success").split("\n\n"))
  assert points[0].split() == [
    "point", "learn.rate", "seed", "eval/success", "eval/success/easy", "eval/success/hard", "step", "seconds", "state",
  ]  # fmt: skip
  assert [line.split()[1:] for line in points[1:]] == [
    ["0.0001", "1", "0.75", "1", "0.375", "2", "61", "done"],
    ["0.01", "0", "0.625", "1", "0.3125", "2", "61", "done"],
    ["0.0001", "0", "0.25", "1", "0.125", "2", "61", "done"],
    ["0.01", "1", "-", "-", "-", "2", "61", "not", "begun"],
  ]
  assert [line.split() for line in seeds[1:]] == [
    ["0.01", "1", "0.625", "0.625", "0.625"], ["0.0001", "2", "0.5", "0.25", "0.75"],
  ]  # fmt: skip
  alone = results.text_table([row for row in rows_of(*ROWS) if row.point.config.seed == 0][:1], "eval/success")
  assert "least" in alone  # a seed is swept, if only one


def test_an_axis_of_far_numbers_is_logarithmic_and_one_of_words_has_a_place_for_each():
  far = results.dimension("learn.rate", [1e-4, 1e-2, 1e-3])
  assert far["values"] == pytest.approx([-4, -2, -3]) and far["ticktext"] == ["0.0001", "0.001", "0.01"]
  near = results.dimension("seed", [0, 2])
  assert near["values"] == [0, 2] and near["ticktext"] == ["0", "2"]
  words = results.dimension("loss.surrogate", ["ppo", "cispo", "ppo"])
  assert words["values"] == [1, 0, 1] and words["ticktext"] == ["cispo", "ppo"]
  assert results.dimension("flag", [True, False])["ticktext"] == ["False", "True"]
  assert "tickvals" not in results.dimension("eval/success", [0.1, 0.2])


def test_the_page_says_what_is_missing_and_escapes(tmp_path):
  text = results.page("<sweep>", rows_of(ROWS[3]), "eval/success")
  assert "No two points have results yet" in text and "&lt;sweep&gt;" in text and "Plotly.newPlot" in text
  results.write(tmp_path, "s", rows_of(*ROWS), "eval/success")
  facts = json.loads((tmp_path / "sweep.json").read_text())
  assert [(f["overrides"]["learn.rate"], f["metrics"]["eval/success"]) for f in facts][:2] == [
    (1e-4, 0.75),
    (1e-2, 0.625),
  ]


@pytest.mark.full
def test_a_browser_draws_the_lines_and_sorts_the_table(tmp_path):
  results.write(tmp_path, "s", rows_of(*ROWS), "eval/success")
  with chromium(tmp_path / "profile") as page:
    page.open(tmp_path / "sweep.html", 1200)
    page.wait("document.querySelectorAll('#plot .axis-title, #plot .y-axis').length >= 5")
    first = "document.querySelectorAll('table')[1].tBodies[0].rows[0].cells[2].textContent"
    assert page.ask(first) == "1"
    page.ask("document.querySelectorAll('table')[1].querySelectorAll('th')[2].click()")
    assert page.ask(first) == "0"
    assert page.told == []


# -- for real ----------------------------------------------------------------------------------------------------------


def driver(folder, steps, *words):
  env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
  env |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "SWEPT_STEPS": str(steps), "SWEPT_CACHE": str(folder / "c")}
  env["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
  command = [sys.executable, "launch/sweep.py", f"--experiment={EXPERIMENT}", f"--workdir={folder / 's'}", *words]
  return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds=240):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, "waited in vain"
    time.sleep(0.2)


STEPS = 240  # the kills below come before its end: a driver takes as long to start as 60 steps on a slow machine


@pytest.mark.full
def test_a_sweep_whose_driver_and_then_a_run_are_killed_comes_to_its_end(tmp_path):
  slots = f"--slots={min(2, len(os.sched_getaffinity(0)))}"
  points = read_points(str(ROOT / EXPERIMENT))
  folder = tmp_path / "s"
  killed = driver(tmp_path, STEPS, slots)
  begun = folder / points[0].name
  wait_for(lambda: (begun / "checkpoints" / "2").exists())
  killed.kill()
  killed.communicate()
  assert state_of(points[0], folder) is State.RUNNING
  goes_on = driver(tmp_path, STEPS, slots)
  told = ""
  while f"{points[0].name} is running already" not in told:
    told = goes_on.stdout.readline()
    assert told, "it ended without a word of the run that goes on"
  pid = int((begun / "lock").read_text().split()[1])
  os.kill(pid, signal.SIGKILL)
  said, _ = goes_on.communicate(timeout=400)
  assert goes_on.returncode == 0, said
  assert f"{points[0].name} goes on" in said and f"{points[0].name} is done" in said  # the other may be done before
  starts = [len((folder / p.name / "starts.jsonl").read_text().splitlines()) for p in points]
  assert starts == [2, 1]
  facts = json.loads((folder / "sweep.json").read_text())
  assert {f["state"] for f in facts} == {"done"} and all(f["metrics"]["eval/success"] is not None for f in facts)
  again = driver(tmp_path, STEPS, slots)
  said, _ = again.communicate(timeout=60)
  assert again.returncode == 0 and "2 done" in said and "begins" not in said and "goes on" not in said


def test_a_bad_point_is_refused_before_anything_runs(tmp_path):
  file = write_experiment(tmp_path, "def sweep(add):", "  add(seed=1)", "  add({'learn.rat': 1})")
  bad = driver(tmp_path, 2, f"--experiment={file}")
  said, _ = bad.communicate(timeout=100)
  assert bad.returncode == 2 and said.count("\n") == 1, said
  assert "error: point (learn.rat=1): there is no setting 'learn.rat': did you mean 'learn.rate'?" in said
  assert not (tmp_path / "s").exists()
