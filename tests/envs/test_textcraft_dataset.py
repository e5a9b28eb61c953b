"""Tasks and the data set of them: costs worked by hand, plans that replay, splits that share nothing."""

import itertools
import json
import zipfile
from collections import Counter

import pytest

from rao_jax.envs.textcraft import TextCraft, World, make_tasks, sample_task, wheel
from rao_jax.envs.textcraft import tasks as task_lib
from rao_jax.envs.textcraft.dataset import TextcraftSynth, build, generated_tasks, small_tasks
from rao_jax.envs.textcraft.factory import TextCraftSynth
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


def load_tasks(data_dir, dataset, split, manual_dir=""):
  return TextCraftSynth(data_dir, dataset, manual_dir).tasks(split)


COUNTS = {"train": (588, 852, 544, 538), "val": (147, 213, 136, 136)}


def wanted(tasks):
  """(item, units) of every task, each once or this fails."""
  pairs = [pair for task in tasks for pair in task.data["targets"].items()]
  assert len(pairs) == len(set(pairs)) == len(tasks)
  return set(pairs)


@pytest.fixture(scope="module")
def generated():
  return {split: generated_tasks(split, 42, "generated") for split in COUNTS}


def test_generated_tasks_have_the_published_numbers_and_hold_targets_out(generated, tmp_path):
  builder = build(str(tmp_path), "generated")
  names = {}
  for split, counts in COUNTS.items():
    tasks = generated[split]
    assert load_tasks(str(tmp_path), "generated", split)[:] == tasks
    assert [task.id for task in tasks] == [f"textcraft_synth.generated.{split}.{i}" for i in range(sum(counts))]
    assert [task.difficulty for task in tasks] != sorted(task.difficulty for task in tasks)  # shuffled
    for difficulty, count in zip(task_lib.DIFFICULTIES, counts):
      part = [task for task in tasks if task.difficulty == difficulty]
      assert len(part) == count == builder.info.splits[f"{split}_{difficulty}"].num_examples
      assert load_tasks(str(tmp_path), "generated", f"{split}_{difficulty}")[:] == part
    names[split] = {name for name, _ in wanted(tasks)}
  assert len(names["train"]) == 1021 and len(names["val"]) == 256 and not names["train"] & names["val"]


def test_another_seed_draws_other_stocks_for_the_same_targets(generated):
  ours, others = generated["val"], generated_tasks("val", 7, "generated_7")
  assert wanted(ours) == wanted(others) and ours[0].id != others[0].id
  stock = lambda tasks: {json.dumps(task.data["targets"]): task.data["inventory"] for task in tasks}
  assert sum(stock(others)[key] == inventory for key, inventory in stock(ours).items()) < len(ours) / 10


def test_published_tasks_come_out_of_the_wheel_unchanged(generated, published_dir, wheel_folder):
  world = cached_world(42, 25, "full")
  for split, counts in COUNTS.items():
    tasks = load_tasks(published_dir, "canonical", split)[:]
    records = list(wheel.read_tasks(wheel_folder, f"textcraft_synth_{split}.jsonl"))
    for task, record in zip(tasks, records, strict=True):
      facts, data = record["misc"], task.data
      assert (task.id, task.difficulty) == (record["id"], facts["difficulty"])
      assert (data["targets"], data["inventory"]) == (facts["target_items"], facts["initial_inventory"])
      assert [units for _, units, _ in data["gold"]] == [step["result_count"] for step in facts["gold_trajectory"]]
    for difficulty, count in zip(task_lib.DIFFICULTIES, counts):
      part = load_tasks(published_dir, "canonical", f"{split}_{difficulty}")[:]
      assert len(part) == count and part == [task for task in tasks if task.difficulty == difficulty]
    # Our own draws are of the same targets, and their stocks follow the same rule.
    assert wanted(tasks) == wanted(generated[split])
    assert {name for name, _ in wanted(tasks)} <= set(task_lib.split_targets(world)[split])
    for task in tasks:
      cost = task_lib.material_cost(world, task.data["targets"])
      stock = task.data["inventory"]
      assert all(units <= stock[base] <= units + max(1, units // 2) for base, units in cost.items())


def test_without_the_wheel_the_error_is_the_command_that_fetches_it(tmp_path):
  with pytest.raises(ValueError) as error:
    TextCraftSynth(str(tmp_path), "canonical").tasks("val")
  assert f"pip download --no-deps --only-binary=:all: --python-version 3.12 -d {tmp_path}/downloads/manual " in str(
    error.value
  )
  with pytest.raises(ValueError, match=r"-d '.*elsewhere x' platoon-textcraft==0\.3\.0"):
    TextCraftSynth(str(tmp_path), "canonical", str(tmp_path / "elsewhere x")).tasks("val")


def fake_wheel(folder, **files):
  folder.mkdir()
  with zipfile.ZipFile(folder / "platoon_textcraft-0.3.0-py3-none-any.whl", "w") as archive:
    for name, text in files.items():
      archive.writestr(f"platoon_textcraft/data/{name}.jsonl", text)


def test_a_wheel_that_is_not_the_published_one_is_refused_by_digest(tmp_path):
  fake_wheel(tmp_path / "other", textcraft_synth_train="{}", textcraft_synth_val="{}")
  sha256_of_braces = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
  with pytest.raises(ValueError, match=f"textcraft_synth_train.jsonl .* has SHA-256 {sha256_of_braces}.*fetch"):
    load_tasks(str(tmp_path), "canonical", "val", str(tmp_path / "other"))
  fake_wheel(tmp_path / "empty")
  with pytest.raises(ValueError, match=r"holds no platoon_textcraft/data/textcraft_synth_train\.jsonl"):
    load_tasks(str(tmp_path), "canonical", "val", str(tmp_path / "empty"))
  (tmp_path / "empty" / "platoon_textcraft-0.3.0-py3-none-any.whl").write_bytes(b"half a file")
  with pytest.raises(ValueError, match="cannot be read: delete it"):
    load_tasks(str(tmp_path), "canonical", "val", str(tmp_path / "empty"))
  assert not list(tmp_path.rglob("*.array_record*"))


def test_unknown_data_sets_and_options_name_the_known_ones(tmp_path):
  with pytest.raises(ValueError, match=r"'small', 'practice', 'wide', 'canonical', 'generated'\], or generated_<seed>"):
    build(str(tmp_path), "full")


def test_tasks_of_a_semantic_world_play_in_it():
  world = World.generate(names="semantic")
  (task,) = make_tasks(world, "dev", "easy", 1)
  assert TextCraft().start(task).book == world


def test_data_set_reads_back_what_was_drawn(tmp_path):
  builder = build(str(tmp_path), "small")
  sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
  assert sizes["train_medium"] == 2000 and sizes["dev_hard"] == 200 and sizes["test_extreme"] == 300
  assert "train_hard" not in sizes
  tasks = load_tasks(str(tmp_path), "small", "dev_hard")
  drawn = list(small_tasks(builder.builder_config, "dev", "hard"))
  assert len(tasks) == 200 and tasks[:] == drawn
  assert tasks[-1] == drawn[-1] and tasks[17:20] == drawn[17:20]
  assert drawn[0].data["world_seed"] == 1_000_000 and len({task.data["world_seed"] for task in drawn}) == 25
  with pytest.raises(IndexError):
    tasks[200]
  with pytest.raises(ValueError, match="dev_hard"):
    load_tasks(str(tmp_path), "small", "dev_hardest")


def test_easy_tasks_of_wide_worlds_take_as_many_ingredients_as_hard_ones():
  (config,) = (config for config in TextcraftSynth.BUILDER_CONFIGS if config.name == "wide")
  counts = Counter()
  for task in itertools.islice(small_tasks(config, "train", "easy"), 240):
    (target,) = task.data["targets"]
    recipe = TextCraft().start(task).book.recipes[target]
    counts[len(recipe.ingredients)] += 1
    assert recipe.depth in (2, 3)
  # Three, four or five with equal odds; one fewer where a raw material is drawn twice.
  assert counts[4] + counts[5] > 120 and max(counts) == 5


def test_amounts_of_practice_span_orders_of_magnitude_and_another_data_set_is_read_by_its_name(tmp_path):
  tasks = load_tasks(str(tmp_path), "generated", "practice__train_easy")[:]
  amounts = [units for task in tasks for units in task.data["targets"].values()]
  assert len(tasks) == 1200 and min(amounts) == 1 and 1500 < max(amounts) <= 2000
  for low, high in itertools.pairwise((1, 10, 100, 1000)):
    assert 0.2 < sum(low <= n < high for n in amounts) / len(amounts) < 0.4  # log 10 / log 2001 = 0.30
  assert {task.data["profile"] for task in tasks} == {"full", "full_shuffled"}
  asked = load_tasks(str(tmp_path), "practice", "dev_hard")[:]
  assert max(units for task in asked for units in task.data["targets"].values()) == 2  # as the benchmark asks
