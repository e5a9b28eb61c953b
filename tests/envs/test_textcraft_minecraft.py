"""TextCraft with Minecraft's recipes: how recipe files are read, the published world and tasks, the scripted agent."""

import hashlib
import json
import random
from collections import Counter

import pytest

from rao_jax.envs.textcraft import TextCraftGoal, minecraft_script, wheel
from rao_jax.envs.textcraft.minecraft import Minecraft, MinecraftWorld, asked_task, parse_recipes
from rao_jax.envs.textcraft.replay import is_playable, replay
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.protocol import CONTROLS, CompactProtocol
from rao_jax.rollout.scripted import play
from rao_jax.tokenizer import train_sentencepiece

# SHA-256 over [item, sorted [sorted ingredients, result count] of its recipes] by item, made with the benchmark
# authors' own reader (platoon-textcraft 0.3.0).
PUBLISHED = "1a271e635f92d548d6e3f708d188ced75e55a67dfa72084eb9231ddde4243526"


def test_recipe_files_are_read_as_the_benchmark_reads_them():
  shaped = {"type": "minecraft:crafting_shaped", "result": {"item": "minecraft:torch", "count": 4}}
  files = {
    "torch": shaped
    | {
      "pattern": [" X ", " # "],
      "key": {"X": [{"item": "minecraft:coal"}, {"item": "minecraft:charcoal"}], "#": {"item": "minecraft:stick"}},
    },
    "bowl": {
      "type": "minecraft:crafting_shaped",
      "pattern": ["# #", " # "],
      "key": {"#": {"tag": "minecraft:planks"}},
      "result": {"item": "minecraft:bowl", "count": 4},
    },
    "book": {
      "type": "minecraft:crafting_shapeless",
      "ingredients": [{"item": "minecraft:paper"}] * 3 + [{"item": "minecraft:leather"}],
      "result": {"item": "minecraft:book"},
    },
    "glass": {"type": "minecraft:smelting", "ingredient": {"item": "minecraft:sand"}, "result": "minecraft:glass"},
  }
  assert parse_recipes(files) == [
    ("book", {"paper": 3, "leather": 1}, 1),
    ("bowl", {"tag:planks": 3}, 4),
    ("torch", {"stick": 1}, 4),  # a choice of items is left out
  ]


def test_depth_is_the_longest_way_down_without_tags_and_ends_where_a_circle_closes():
  world = MinecraftWorld(
    [
      ("ingot", {"nugget": 9}, 1),
      ("nugget", {"ingot": 1}, 9),
      ("axe", {"stick": 2, "ingot": 3}, 1),
      ("stick", {"tag:planks": 2}, 4),
      ("oak_planks", {"oak_log": 1}, 4),
    ]
  )
  # axe -> ingot -> nugget -> ingot again; a stick is made of a tag alone.
  assert [world.depth(name) for name in ("axe", "ingot", "stick", "oak_planks", "oak_log", "none")] == [
    3,
    2,
    0,
    1,
    0,
    0,
  ]
  assert world.base_items == {"oak_log"} and world.recipes["axe"][0].depth == 3


def test_tags_stand_for_items_by_their_names():
  names = "oak_log stripped_oak_log dark_oak_log warped_stem oak_planks red_wool woolly stone cobblestone coal oak_slab"
  tags = "logs oak_logs warped_stems planks wool stone_tool_materials coals wooden_slabs"
  world = MinecraftWorld([("all", dict.fromkeys(names.split(), 1) | {f"tag:{t}": 1 for t in tags.split()}, 1)])
  assert {tag: " ".join(world.tagged(f"tag:{tag}")) for tag in tags.split()} == {
    "logs": "dark_oak_log oak_log stripped_oak_log warped_stem",
    "oak_logs": "oak_log",
    "warped_stems": "warped_stem",
    "planks": "oak_planks",
    "wool": "red_wool",
    "stone_tool_materials": "cobblestone stone",
    "coals": "coal",
    "wooden_slabs": "",
  }


SMITHY = MinecraftWorld(
  [
    ("axe", {"stick": 2, "ingot": 3}, 1),
    ("block", {"ingot": 9}, 1),
    ("ingot", {"block": 1}, 9),
    ("oak_planks", {"oak_log": 1}, 4),
    ("stick", {"tag:planks": 2}, 4),
  ]
)


def test_a_task_in_words_has_a_plan_and_the_raw_material_for_it():
  task = asked_task(SMITHY, "please craft an axe, then 7 of stick")
  assert task.data["targets"] == {"axe": 1, "stick": 7} and task.id == "textcraft_minecraft.asked.1_axe.7_stick"
  # A block would take ingots, which it is for, so it is given. The second sticks use two planks of the first.
  assert task.data["gold"] == [
    ["oak_planks", 4, {"oak_log": 1}],
    ["stick", 4, {"oak_planks": 2}],
    ["ingot", 9, {"block": 1}],
    ["axe", 1, {"stick": 2, "ingot": 3}],
    ["oak_planks", 4, {"oak_log": 1}],
    ["stick", 8, {"oak_planks": 4}],
  ]
  stock = task.data["inventory"]
  assert stock.keys() == {"oak_log", "block"} and 2 <= stock["oak_log"] <= 3 and 1 <= stock["block"] <= 2
  assert asked_task(SMITHY, "please craft an axe, then 7 of stick") == task


def test_words_that_ask_minecraft_for_nothing_are_refused_with_what_there_is():
  for words, said in (
    ("2 of oak_planx", "can craft no 'oak_planx': it can craft oak_planks"),
    ("3 sticks", "can craft no 'sticks': it can craft stick"),
    ("craft oak_log", "can craft no 'oak_log'"),
    (
      "make something nice",
      "asks for nothing to craft: name items of Minecraft, 1 to 1000 of each, as 'craft 2 of oak_planks'",
    ),
  ):
    with pytest.raises(ValueError, match=said):
      asked_task(SMITHY, words)


@pytest.fixture(scope="module")
def published(published_dir):
  return Minecraft(published_dir)


def test_the_published_world_recipe_for_recipe(published):
  world = published.world
  ways = lambda name: sorted([sorted(r.ingredients.items()), r.result_count] for r in world.recipes_of(name))
  assert hashlib.sha256(json.dumps([[n, ways(n)] for n in sorted(world.recipes)]).encode()).hexdigest() == PUBLISHED
  assert (len(world.items), len(world.recipes), len(world.base_items)) == (662, 562, 100)
  assert sum(map(len, world.recipes.values())) == 635 and max(map(len, world.items)) <= published.longest_name


def test_all_published_tasks_with_names_of_their_own(published, wheel_folder):
  targets, names = Counter(), set()
  for split, count in (("train", 1000), ("val", 100)):
    tasks = published.tasks(split)
    assert len(tasks) == count
    for task, record in zip(tasks, wheel.read_tasks(wheel_folder, f"textcraft_{split}.jsonl"), strict=True):
      assert task.data["targets"] == record["misc"]["target_items"]
      assert task.data["inventory"] == record["misc"]["initial_inventory"]
      assert published.start(task).prompt(published.start(task).root_goal()) == record["goal"]
      targets[len(task.data["targets"])] += 1
      names.add(task.id)
      assert task.difficulty in ("depth_2", "depth_3", "depth_4")
  assert len(names) == 1100 and targets == {1: 583, 2: 310, 3: 207}
  with pytest.raises(ValueError, match="textcraft_minecraft is unknown: train, val"):
    published.tasks("dev")


def test_nine_published_plans_name_a_tag_which_no_craft_takes_and_their_tasks_can_be_done(published, interpreter):
  numbers = {"train": [329, 382, 446, 469, 649, 751, 954], "val": [19, 25]}
  tasks = {split: published.tasks(split)[:] for split in numbers}
  assert {s: [i for i, task in enumerate(some) if not is_playable(task)] for s, some in tasks.items()} == numbers
  protocol = CompactProtocol(train_sentencepiece([], CONTROLS, published.pieces, 0))
  for task in (tasks[split][i] for split, some in numbers.items() for i in some):
    assert not replay(published, task)
    tree = Tree(published, task, Caps(max_depth=1, turn_tokens=96, output_tokens=384), protocol, interpreter)
    assert play(tree, published.demonstrator("recursive"), protocol, 0).root.success == 1.0


def test_every_item_can_be_asked_for_in_words_and_its_plan_replays(published):
  world = published.world
  no_slab, no_soil = ["barrel", "composter", "daylight_detector", "lectern"], ["soul_campfire", "soul_torch"]
  assert sorted(world.recipes.keys() - set(world.craftable)) == [*no_slab, *no_soil]
  for item in world.craftable:
    task = published.task_from(f"craft 3 of {item}")
    assert task.data["targets"] == {item: 3} and replay(published, task), item


def test_pieces_make_every_name_cheap(published):
  protocol = CompactProtocol(train_sentencepiece([], CONTROLS, published.pieces, 0))
  for name in published.world.items:
    assert len(protocol.tokenizer.encode(f'"{name}"')) <= 2 + len(name.split("_"))


def talk(agent, *shown):
  """The cells an agent writes when its outputs are these."""
  return [next(agent), *(agent.send(text) for text in shown)]


def test_the_script_reads_as_far_as_it_needs_and_takes_the_planks_it_has():
  agent = minecraft_script.recursive(TextCraftGoal((("sign", 1),)), random.Random(0))
  planks = 'tag:planks=["birch_planks","oak_planks"]'
  cells = talk(
    agent,
    '{"oak_planks":1,"oak_log":1}',
    f'sign*1={{"stick":3,"tag:planks":1}}\n{planks}',
    f'stick*4={{"tag:planks":2}}\nstick*1={{"bamboo":2}}\n{planks}',
    'oak_planks*4={"oak_log":1}\nbirch_planks*4={"birch_log":1}',
    "ok",
    "ok",
  )
  assert cells == [
    "view_inventory()",
    'get_info(["sign"])',
    'get_info(["stick"])',
    'get_info(["oak_planks","birch_planks"])',
    # A plank is owned, the sticks take 2 and the sign 1: the log makes 4 more.
    'craft({"oak_log":1},("oak_planks",4))\ncraft({"oak_planks":2},("stick",4))',
    'craft({"stick":3,"oak_planks":1},("sign",1))',
    'finish("done")',
  ]


def test_the_script_launches_an_agent_for_each_of_several_targets_or_none():
  two = TextCraftGoal((("stick", 2), ("bowl", 1)))
  agent = minecraft_script.recursive(two, random.Random(0))
  assert talk(agent, "done", "done") == [
    'await launch_subagent({"stick":2})',
    'await launch_subagent({"bowl":1})',
    'finish("done")',
  ]
  assert talk(minecraft_script.recursive(two, random.Random(0)), "failed") == [
    'await launch_subagent({"stick":2})',
    'finish("failed")',
  ]
  assert next(minecraft_script.demonstrator("inline")(two, random.Random(0))) == "view_inventory()"


def test_demonstrators_that_do_not_exist_are_refused():
  with pytest.raises(ValueError, match=r"inline.*recursive"):
    minecraft_script.demonstrator("oracle")
  with pytest.raises(ValueError, match="delegate"):
    minecraft_script.demonstrator("recursive", quantity=0.1)
