"""What an evaluation makes of trees worked by hand, and the command's own work on a policy that has learned nothing."""

import json
import re

import pytest

from rao_jax.config import base_config
from rao_jax.envs.base import Task
from rao_jax.evaluate import (
  Options,
  choose_tasks,
  default_file,
  evaluate_workdir,
  load_config,
  parse_splits,
  read_earlier,
)
from rao_jax.evaluation import against, breakdown, pareto, summarise, zero_variance
from rao_jax.evaluation_tables import tables
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.scripted import play
from rao_jax.train import train
from tests.rollout.logged import WIDE, Logged, agents

TASKS = [Task(f"logged.{i}", "easy" if i < 3 else "hard", {"max_depth": 2 + i}) for i in range(5)]


class World(Logged):
  """Tasks `dev` of two difficulties, and `test_easy`, `test_hard`."""

  def __init__(self, seed=0):
    self.seed = seed

  def tasks(self, split):
    parts = {"dev": ("easy", "hard"), "test_easy": ("easy",), "test_hard": ("hard",)}
    if split not in parts:
      raise ValueError(f"split {split!r} is unknown: {', '.join(parts)}")
    return [task for task in TASKS if task.difficulty in parts[split]]


@pytest.fixture
def work(byte_protocol, interpreter):
  def work(task, score, child=None):
    """A finished tree of `task` whose root gets `score`, by a child with the same finish message if asked."""
    end = lambda cell: f"finish({score})" if cell is None else cell
    scripts = {"root": [f"finish(await launch_subagent('{child}'))" if child else end(None)], child: [end(None)]}
    return play(Tree(World(), task, WIDE, byte_protocol, interpreter), agents(scripts), byte_protocol, 0)

  return work


def test_split_words_give_tasks_and_bad_ones_say_how_to_write_them():
  assert parse_splits(["dev_easy", "dev_hard:50"], 7) == {"dev_easy": 7, "dev_hard": 50}
  for word in ("dev_easy:many", "dev_easy:0"):
    with pytest.raises(ValueError, match="dev_hard:50"):
      parse_splits([word], 7)


def test_difficulties_are_parts_of_a_split_or_splits_of_their_own():
  ids = lambda chosen: {split: [int(task.id[-1]) for task in tasks] for split, tasks in chosen.items()}
  assert ids(choose_tasks(World(), {"dev": 4})) == {"dev": [0, 1, 2, 3]}
  assert ids(choose_tasks(World(), {"dev": 2}, ["hard", "easy"])) == {"dev_hard": [3, 4], "dev_easy": [0, 1]}
  assert ids(choose_tasks(World(), {"test": 1}, ["hard"])) == {"test_hard": [3]}
  assert ids(choose_tasks(World(), {"test_easy": 9, "test_hard": 9}, ["hard"])) == {"test_hard": [3, 4]}
  with pytest.raises(ValueError, match=r"difficulty=extreme: no such task in \['dev'\], whose are \['easy', 'hard'\]"):
    choose_tasks(World(), {"dev": 2}, ["extreme"])


def test_summary_of_trees_worked_by_hand(work):
  # One token a character, and one that ends the turn: finish(1) takes 10, the launch 36.
  trees = [work(TASKS[0], 1), work(TASKS[1], 0), work(TASKS[2], 1, child="a"), work(TASKS[3], 1)]
  trees[3].fault = "the judge was not reached"
  r = summarise(trees)
  assert (r["tasks"], r["trees"], r["invalid_trees"]) == (3, 3, 1)
  launch = len("finish(await launch_subagent('a'))") + 1
  assert r["success"] == pytest.approx(2 / 3) and r["interval"][0] == pytest.approx(0.2077, abs=1e-4)
  assert r["sampled_tokens_per_tree"] == r["critical_path_per_tree"] == pytest.approx((10 + 10 + launch + 10) / 3)
  assert r["read_tokens_per_tree"] == sum(len(n.tokens) - n.sampled for t in trees[:3] for n in t.nodes) / 3
  assert r["nodes_per_tree"] == pytest.approx(4 / 3) and r["deepest_solved"] == 1 and r["branching"] == 1
  assert r["tries"] == [
    {"k": 1, "success": r["success"], "interval": r["interval"], "tokens": r["sampled_tokens_per_tree"],
     "critical_path": r["critical_path_per_tree"]}
  ]  # fmt: skip


def test_several_trees_of_a_task_tell_what_more_tries_bring(work):
  # The first task: one of three trees solves it. The second: all do.
  trees = [work(TASKS[0], s) for s in (0, 1, 0)] + [work(TASKS[1], 1) for _ in range(3)]
  r = summarise(trees)
  assert (r["tasks"], r["trees"]) == (2, 6) and [row["k"] for row in r["tries"]] == [1, 2, 3]
  assert [row["success"] for row in r["tries"]] == pytest.approx([(1 / 3 + 1) / 2, (2 / 3 + 1) / 2, 1.0])
  assert [row["tokens"] for row in r["tries"]] == [10, 20, 30]
  assert [row["critical_path"] for row in r["tries"]] == [10, 10, 10]
  assert zero_variance(trees) == {"eval/zero_variance_trees": 0.5}
  assert zero_variance(trees[:1] + trees[3:4]) == {}


def test_a_mixed_split_is_broken_down_by_difficulty_and_all_by_tier(work):
  trees = {"dev": [work(TASKS[0], 1), work(TASKS[3], 0)], "test_hard": [work(TASKS[3], 1), work(TASKS[4], 1)]}
  parts = breakdown(trees)
  assert {name: r["success"] for name, r in parts["splits"].items()} == {
    "dev": 0.5, "dev/easy": 1.0, "dev/hard": 0.0, "test_hard": 1.0,
  }  # fmt: skip
  assert {tier: (r["success"], r["trees"]) for tier, r in parts["tiers"].items()} == {
    "2": (1.0, 1), "5": (0.5, 2), "6": (1.0, 1),
  }  # fmt: skip
  bare = Tree(World(), Task("x", "easy", {}), WIDE, trees["dev"][0]._protocol, None)
  assert breakdown({"dev": [bare]})["tiers"] == {}


def test_what_recursion_brought_and_cost_on_the_same_tasks(work):
  ours = {"dev": [work(TASKS[0], 1, child="a"), work(TASKS[1], 1)]}
  theirs = {"dev": [work(TASKS[0], 0), work(TASKS[1], 1), work(TASKS[2], 1)]}
  r = against(ours, theirs)["dev"]
  assert r["success"] == 0.5 and r["interval"] == (0.0, 1.0)
  launch = len("finish(await launch_subagent('a'))") + 1
  assert r["tokens_ratio"] == pytest.approx((10 + launch + 10) / 2 / 10)


def test_pareto_points_say_by_what_they_are_dominated():
  row = lambda k, success, tokens, path: {"k": k, "success": success, "tokens": tokens, "critical_path": path}
  points = pareto(
    {"tree": {"tries": [row(1, 0.8, 300, 60)]}, "alone": {"tries": [row(1, 0.5, 100, 100), row(2, 0.7, 200, 110)]}}
  )
  assert [(p["agent"], p["k"], p["dominated"]) for p in points] == [
    ("tree", 1, []), ("alone", 1, ["critical_path"]), ("alone", 2, ["critical_path"]),
  ]  # fmt: skip


def test_greedy_trees_of_one_task_are_refused():
  with pytest.raises(ValueError, match="--k=4 greedy trees"):
    Options(k=4, temperature=0.0)


def test_a_workdir_from_before_a_setting_was_made_has_its_default(tmp_path):
  old = json.loads(json.dumps(untrained().to_dict()))
  del old["rollout"]["steps"], old["cache"]
  old["caps"]["window"] = 77
  (tmp_path / "config.json").write_text(json.dumps(old))
  c, defaults = load_config(tmp_path), base_config()
  assert (c.rollout.steps, c.cache.suspend) == (defaults.rollout.steps, defaults.cache.suspend)
  assert c.caps.window == 77 and c.tasks.dev.to_dict() == {"dev": 4}


def untrained(seed=0):
  """The smallest run of `World` whose every program compiles in moments; it samples at random."""
  c = base_config()
  c.environment.name, c.environment.options = "tests.test_evaluation:World", dict(seed=seed)
  c.tasks.train, c.tasks.dev = dict(dev=2), dict(dev=4)
  c.steps, c.evaluation.every, c.evaluation.temperature, c.rollouts_per_task = 0, 0, 0.25, 2
  c.policy.update(dict(layers=1, width=16, heads=2, head_size=8, mlp=16))
  c.tokenizer.learned = 0
  c.caps.update(dict(max_depth=2, max_nodes=4, max_turns=2, turn_tokens=12, output_tokens=24, window=64))
  c.rollout.update(dict(row_ladder=(8,), cache_ladder=(72,), steps=8, slots=8))
  c.learn.update(dict(warmup=0, row_lengths=(64,), tokens_per_microbatch=512))
  c.log.update(dict(report=False, tensorboard=False))
  return c


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("evaluation") / "run"
  train(untrained(), folder, quiet=True)
  return folder


def test_a_checkpoint_is_evaluated_against_itself_without_delegation(workdir, tmp_path, capsys):
  r = evaluate_workdir(workdir, Options(k=2, max_depth=3, context=80), trees_file=tmp_path / "t" / "trees.jsonl")
  assert (r["max_depth"], r["window"], r["k"], r["temperature"], r["step"]) == (3, 80, 2, 1.0, 0)
  assert set(r["splits"]) == {"dev", "dev/easy", "dev/hard"} and set(r["tiers"]) == {"2", "3", "4", "5"}
  assert (r["splits"]["dev"]["tasks"], r["splits"]["dev"]["trees"]) == (4, 8)
  [off] = r["single"]
  assert off["name"] == "delegation off" and off["max_depth"] == 0 and off["window"] == 80
  assert set(off["against"]) == {"dev"} and set(off["splits"]) == set(r["splits"])
  assert [(p["agent"], p["k"]) for p in r["pareto"]["dev"]] == [
    (agent, k) for agent in ("recursive", "delegation off") for k in (1, 2)
  ]
  assert json.loads(json.dumps(r))["metrics"] == r["metrics"]
  assert len((tmp_path / "t" / "trees.jsonl").read_text().splitlines()) == 8
  said = capsys.readouterr().out
  assert re.search(r"^dev +recursive +4 ", said, re.MULTILINE) and re.search(r"^tier 5 +delegation off", said, re.M)
  assert "recursive against delegation off" in said and "best of" in said
  assert [alarm["name"] for alarm in r["alarms"]] == re.findall(r"^alarm (\w+):", said, re.MULTILINE)
  assert "never_delegates" in said  # it has learned nothing
  assert default_file(workdir, r).name == "last_depth3_nodes4_window80_k2_t1_dev_4.json"


def test_a_single_agent_of_another_run_and_of_another_world(workdir, tmp_path, capsys):
  r = evaluate_workdir(workdir, Options(max_depth=0), {"dev": 3}, ["easy"], single_workdir=workdir)
  assert r["name"] == "single" and r["temperature"] == 0.25  # as evaluated in training
  [other] = r["single"]  # delegation is off already
  assert other["name"] == "single (run)"
  assert other["against"]["dev_easy"]["success"] == 0.0 and other["against"]["dev_easy"]["tokens_ratio"] == 1.0
  assert "single against single (run)" in capsys.readouterr().out
  config = json.loads((workdir / "config.json").read_text())
  config["environment"]["options"]["seed"] = 1
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match="seed: 0 and 1"):
    evaluate_workdir(workdir, Options(), single_workdir=tmp_path)


def test_an_evaluation_is_made_once_if_it_may_be_reused(workdir, tmp_path, capsys):
  trees = tmp_path / "trees.jsonl"

  def again(made, n=2, single=False, **options):
    evaluate_workdir(workdir, Options(**options), {"dev": n}, single=single, trees_file=trees, earlier=made)
    return "evaluated before" not in capsys.readouterr().out

  made = json.loads(json.dumps(evaluate_workdir(workdir, Options(), {"dev": 2}, single=False, trees_file=trees)))
  assert not again(made)
  assert again(made, n=3) and again(made, temperature=0.5) and again(made, max_nodes=3)
  assert again(made, single=True) and again(made | {"step": 1})
  trees.unlink()
  assert again(made) and not again(made)


def test_what_is_no_evaluation_is_not_reused(workdir, tmp_path):
  assert read_earlier(tmp_path / "none.json") is None
  for text in ("", "{", "[]", "3"):
    (tmp_path / "other.json").write_text(text)
    assert read_earlier(tmp_path / "other.json") is None
  r = evaluate_workdir(workdir, Options(), {"dev": 1}, single=False, earlier={"splits": 3})
  assert r["splits"]["dev"]["tasks"] == 1


def test_tables_say_nothing_of_comparisons_that_were_not_made(workdir):
  r = evaluate_workdir(workdir, Options(), {"dev": 1}, single=False)
  said = tables(r)
  assert "against" not in said and "best of" not in said and said.startswith("split")
