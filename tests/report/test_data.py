"""report/data.py: runs that differ by their seed are one experiment, and nothing else is."""

import json

import pytest

from rao_jax.report import data
from rao_jax.report.trees import Dumps


def run(name, series=(), **config):
  rows = [{"step": step, "x": value} for step, value in series]
  return data.Run(name, config, rows, Dumps())


def names(runs):
  return [(experiment.name, [r.name for r in experiment.runs]) for experiment in data.by_seed(runs)]


def test_runs_are_one_experiment_if_only_the_seed_differs():
  a = [run(f"a_seed{seed}", seed=seed, rate=1, compile_cache=f"cache{seed}") for seed in range(3)]
  assert names(a) == [("a", ["a_seed0", "a_seed1", "a_seed2"])]
  assert names([a[0], run("b", seed=1, rate=2, compile_cache="c"), a[2]]) == [
    ("a", ["a_seed0", "a_seed2"]),
    ("b", ["b"]),
  ]
  assert names([run("one", seed=0), run("two", seed=0)]) == [("one", ["one"]), ("two", ["two"])]  # nothing differs
  assert names([run("one"), run("two")]) == [("one", ["one"]), ("two", ["two"])]  # nothing is known
  cached, not_cached = run("one", seed=0, compile_cache="c"), run("two", seed=1, compile_cache="")
  assert len(data.by_seed([cached, not_cached])) == 2


@pytest.mark.parametrize(
  "some, expected",
  [
    (["a_seed0", "a_seed1"], "a"), (["0/single", "1/single"], "single"), (["x-s1", "x-s2"], "x"),
    (["p", "q"], "p"), (["lambda0.2_s0", "lambda0.2_s1"], "lambda0.2"),
  ],
)  # fmt: skip
def test_the_name_of_an_experiment(some, expected):
  assert names([run(name, seed=i, rate=1) for i, name in enumerate(some)])[0][0] == expected


def test_a_band_covers_the_steps_that_all_seeds_have():
  (experiment,) = data.by_seed(
    [
      run("a0", [(1, 1.0), (2, 2.0), (3, 5.0)], seed=0, rate=1),
      run("a1", [(1, 3.0), (3, 1.0), (4, 9.0)], seed=1, rate=1),
    ]
  )
  assert experiment.band("x") == ([1, 3], [2.0, 3.0], [1.0, 1.0], [3.0, 5.0])
  assert experiment.series("x") == ([1, 3], [2.0, 3.0])
  assert experiment.total("x") == 21.0
  assert experiment.band("y") == ([], [], [], [])


def test_what_steps_have_cost_adds_up_from_step_0():
  rows = [{"step": s, "tokens/sampled_total": 100 * s, "time/step_seconds": 30.0} for s in (1, 2, 3)]
  (experiment,) = data.by_seed([data.Run("a", {}, [{"step": 0, "eval/success": 0.5}, *rows], Dumps())])
  assert experiment.spent() == {
    "tokens sampled": ([0, 1, 2, 3], [0.0, 100, 200, 300]), "minutes": ([0, 1, 2, 3], [0.0, 0.5, 1.0, 1.5]),
  }  # fmt: skip
  assert data.by_seed([run("a", [(1, 1.0)])])[0].spent() == {}


def test_results_are_taken_from_tests_before_evaluations(tmp_path):
  (tmp_path / "metrics.jsonl").write_text(
    "".join(json.dumps({"step": s, "eval/success/easy": v}) + "\n" for s, v in [(0, 0.1), (5, 0.6), (9, 0.5)])
  )
  of = lambda: data.results(None, data.by_seed(data.read_runs([tmp_path])))
  found = of()
  assert found.origin == "eval"
  assert found.by_agent[tmp_path.name]["warm_start"]["easy"].success == 0.1
  assert found.trained()[tmp_path.name]["easy"].success == 0.5
  test = {"splits": {"test_easy": {"success": 0.75, "interval": [0.6, 0.9]}}}
  (tmp_path / "test_last.json").write_text(json.dumps(test))
  found = of()
  assert found.origin == "tests" and found.trained()[tmp_path.name] == {"easy": data.Result(0.75, 0.6, 0.9)}


def test_runs_are_told_apart_by_as_much_of_their_paths_as_it_takes(tmp_path):
  paths = [tmp_path / name for name in ("a/x/run", "b/x/run", "b/y/run", "c", "c")]
  for path in paths:
    path.mkdir(parents=True, exist_ok=True)
  assert [r.name for r in data.read_runs(paths)] == ["a/x/run", "b/x/run", "y/run", "c"]
  assert [r.name for r in data.read_runs({"one": paths[0], "two": paths[0]})] == ["one", "two"]


def test_difficulties_are_in_order():
  assert data.order_difficulties(["32x", "hard", "2x", "easy", "8x"]) == ["easy", "hard", "2x", "8x", "32x"]
