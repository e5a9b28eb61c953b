"""Tasks and the data set of them: costs worked by hand, plans that replay, splits that share nothing."""

import itertools
import json

import pytest

from rao_jax.envs.textcraft import TextCraft, World, make_tasks, sample_task
from rao_jax.envs.textcraft import tasks as task_lib
from rao_jax.envs.textcraft.dataset import TextcraftSynth, build, generate_tasks, load_tasks
from rao_jax.envs.textcraft.world import cached_world


def test_cost_ignores_result_counts():
  # m3_i2 takes 2 m1_i1 (m3_ore each) and 1 m2_i1 (m4_ore).
  assert task_lib.material_cost(World.generate(), {"m3_i2": 3}) == {"m3_ore": 6, "m4_ore": 3}


def test_plan_rounds_up_to_whole_executions_and_starts_at_the_bottom():
  plan = task_lib.solve(World.generate(), {"m3_i2": 3}, {"m3_ore": 1, "m4_ore": 1})
  # 3 m3_i2: 2 executions, 4 m1_i1 (one execution makes 4) and 2 m2_i1 (one execution makes 2).
  assert dict(plan) == {"m1_i1": 4, "m2_i1": 2, "m3_i2": 4} and plan[-1] == ("m3_i2", 4)
  assert task_lib.solve(World.generate(), {"m3_i2": 3}, {"m3_ore": 1}) is None


def test_plan_adds_up_a_target_that_another_target_uses():
  plan = task_lib.solve(World.generate(), {"m3_i2": 1, "m2_i1": 2}, {"m3_ore": 9, "m4_ore": 9})
  assert dict(plan)["m2_i1"] == 4  # 1 used + 2 asked for = 3, two executions


@pytest.mark.parametrize(("profile", "items"), [("small", 10), ("full", 25)])
@pytest.mark.parametrize("difficulty", list(task_lib.DIFFICULTIES))
def test_gold_plans_replay_and_stock_has_at_most_half_as_much_again(profile, items, difficulty):
  bounds = task_lib.DIFFICULTIES[difficulty]
  world = cached_world(42, items, profile)
  tasks = make_tasks(world, "dev", difficulty, 12, seed=3)
  assert len(tasks) == 12 and len({str(task.data["targets"]) for task in tasks}) == 12
  for task in tasks:
    assert json.loads(json.dumps(task.data)) == task.data
    ((name, count),) = task.data["targets"].items()
    assert bounds.min_depth <= world.depth(name) <= bounds.max_depth and 1 <= count <= bounds.max_count
    cost = task_lib.material_cost(world, task.data["targets"])
    stock = task.data["inventory"]
    assert all(units <= stock[base] <= units + max(1, units // 2) for base, units in cost.items())
    assert set(stock) <= world.base_items and len(stock) - len(cost) <= 3
    episode = TextCraft().start(task)
    episode.begin((), episode.root_goal())
    for item, units in task.data["gold"]:
      recipe = world.recipes[item]
      amounts = {part: n * units // recipe.result_count for part, n in recipe.ingredients.items()}
      assert episode.call((), "craft", (amounts, (item, units)), {}) == "ok"
    assert episode.end((), "done") == 1.0


def test_sampled_tasks_are_a_function_of_their_seed_and_stay_in_their_worlds():
  assert sample_task("train", "easy", 5) == sample_task("train", "easy", 5)
  tasks = {split: [sample_task(split, "medium", seed) for seed in range(20)] for split in task_lib.WORLD_SEEDS}
  for split, some in tasks.items():
    assert all(task.data["world_seed"] in task_lib.WORLD_SEEDS[split] for task in some)
    assert len({task.data["world_seed"] for task in some}) > 15
  assert len({task.id for some in tasks.values() for task in some}) == 60


def test_splits_share_no_world():
  ranges = sorted(task_lib.WORLD_SEEDS.values(), key=lambda seeds: seeds.start)
  assert all(a.stop <= b.start for a, b in itertools.pairwise(ranges))


def test_full_profile_has_the_published_numbers_of_tasks_and_holds_targets_out():
  (config,) = (config for config in TextcraftSynth.BUILDER_CONFIGS if config.name == "full")
  targets = {}
  for split, counts in {"train": (588, 852, 544, 538), "val": (147, 213, 136, 136)}.items():
    tasks = [list(generate_tasks(config, split, difficulty)) for difficulty in task_lib.DIFFICULTIES]
    assert tuple(map(len, tasks)) == counts
    targets[split] = {name for some in tasks for task in some for name in task.data["targets"]}
  assert len(targets["train"]) == 1021 and len(targets["val"]) == 256
  assert not targets["train"] & targets["val"]


def test_data_set_reads_back_what_was_drawn(tmp_path):
  builder = build(str(tmp_path), "small")
  sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
  assert sizes["train_medium"] == 2000 and sizes["dev_hard"] == 200 and sizes["test_extreme"] == 300
  assert "train_hard" not in sizes
  tasks = load_tasks(str(tmp_path), "small", "dev_hard")
  drawn = list(generate_tasks(builder.builder_config, "dev", "hard"))
  assert len(tasks) == 200 and tasks[:] == drawn
  assert tasks[-1] == drawn[-1] and tasks[17:20] == drawn[17:20]
  assert drawn[0].data["world_seed"] == 1_000_000 and len({task.data["world_seed"] for task in drawn}) == 25
  with pytest.raises(IndexError):
    tasks[200]
  with pytest.raises(ValueError, match="dev_hard"):
    load_tasks(str(tmp_path), "small", "dev_hardest")
