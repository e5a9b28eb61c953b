"""Scripted agents: the exact cells of perfect ones, recovery from slips, tokens counted by hand."""

import dataclasses
import random
from collections import Counter

import pytest

from rao_jax.envs.base import Task
from rao_jax.envs.textcraft import TextCraft, TextCraftGoal, compact, sample_task, script
from rao_jax.envs.textcraft.statistics import statistics
from rao_jax.envs.textcraft.world import World, cached_world, is_base_name, tier_suffix
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.protocol import CONTROLS
from rao_jax.rollout.scripted import play
from rao_jax.tokenizer import train_sentencepiece

SLIPPING = script.Slips(
  delegate=0.6,
  quantity=0.1,
  factor=0.05,
  ingredient=0.1,
  early=0.05,
  base=0.1,
  unknown=0.1,
  one_by_one=0.3,
  give_up=0.3,
)


def talk(agent, *shown):
  """The cells an agent writes when its outputs are these."""
  cells = [next(agent)]
  for text in shown:
    cells.append(agent.send(text))
  with pytest.raises(StopIteration):
    agent.send("")
  return cells


def goal(**targets):
  return TextCraftGoal(tuple(targets.items()))


def perfect(**targets):
  return script.recursive(goal(**targets), random.Random(0))


def test_perfect_node_with_two_ingredients():
  assert talk(perfect(m3_i2=3), 'm3_i2*2={"m1_i1":2,"m2_i1":1}', "done,done", "ok") == [
    'get_info(["m3_i2"])',
    'k=-(-3//2)\nawait asyncio.gather(launch_subagent({"m1_i1":k*2}),launch_subagent({"m2_i1":k*1}))',
    'craft({"m1_i1":k*2,"m2_i1":k*1},("m3_i2",k*2))',
    'finish("done")',
  ]


def test_perfect_node_launches_no_raw_material():
  assert talk(perfect(m3_i2=3), 'm3_i2*2={"m1_i1":2,"m4_ore":1}', "done", "ok")[1] == (
    'k=-(-3//2)\nawait launch_subagent({"m1_i1":k*2})'
  )
  assert talk(perfect(m0_i1=2), 'm0_i1*2={"m0_ore":2}', "ok") == [
    'get_info(["m0_i1"])',
    'k=-(-2//2)\ncraft({"m0_ore":k*2},("m0_i1",k*2))',
    'finish("done")',
  ]


@pytest.mark.parametrize("shown", ["m3_ore base", "m3_i9 unknown", "Error: bad arguments"])
def test_what_has_no_recipe_is_given_up(shown):
  assert talk(perfect(m3_ore=1), shown) == ['get_info(["m3_ore"])', 'finish("failed")']


def test_a_failed_child_is_launched_once_more():
  info = 'm3_i2*2={"m1_i1":2,"m2_i1":1}'
  cells = talk(perfect(m3_i2=3), info, "done,failed", "done", "ok")
  assert cells[2] == 'await launch_subagent({"m2_i1":k*1})' and cells[-1] == 'finish("done")'
  assert talk(perfect(m3_i2=3), info, "done,failed", "failed")[-1] == 'finish("failed")'


def test_a_craft_short_of_an_ingredient_has_it_made_and_tries_again():
  cells = talk(perfect(m3_i2=3), 'm3_i2*2={"m1_i1":2,"m4_ore":1}', "done", 'Error: short of {"m1_i1":3}', "done", "ok")
  assert cells[3] == 'await launch_subagent({"m1_i1":3})' and cells[4] == cells[2] and cells[5] == 'finish("done")'
  cells = talk(perfect(m3_i2=3), 'm3_i2*2={"m1_i1":2,"m4_ore":1}', "done", 'Error: short of {"m4_ore":1}')
  assert cells[-1] == 'finish("failed")'


def test_a_refused_launch_is_done_by_hand():
  cells = talk(
    perfect(m3_i2=3), 'm3_i2*2={"m1_i1":2,"m4_ore":1}', "Error: too deep, too bad", 'm1_i1*4={"m3_ore":1}', "ok", "ok"
  )
  assert cells[2:] == [
    'get_info(["m1_i1"])',
    'k0=-(-k*2//4)\ncraft({"m3_ore":k0*1},("m1_i1",k0*4))',
    'craft({"m1_i1":k*2,"m4_ore":k*1},("m3_i2",k*2))',
    'finish("done")',
  ]


def test_small_ingredients_are_made_alone_and_large_ones_by_launch():
  alone = script.recursive(goal(m5_i4=3), random.Random(0), script.Slips(alone=2))
  info = 'm5_i4*2={"m3_i3":2,"m1_i1":1,"m0_ore":1}'
  assert talk(alone, info, "done", 'm1_i1*4={"m3_ore":1}', "ok", "ok") == [
    'get_info(["m5_i4"])',
    'k=-(-3//2)\nawait launch_subagent({"m3_i3":k*2})',
    'get_info(["m1_i1"])',
    'k0=-(-k*1//4)\ncraft({"m3_ore":k0*1},("m1_i1",k0*4))',
    'craft({"m3_i3":k*2,"m1_i1":k*1,"m0_ore":k*1},("m5_i4",k*2))',
    'finish("done")',
  ]


def test_inline_agent_nests_its_factors_and_reads_each_recipe_once():
  cells = talk(
    script.inline(goal(m5_i3=3), random.Random(0)),
    'm5_i3*2={"m3_i2":2,"m1_i1":1}',
    'm3_i2*2={"m1_i1":2,"m4_ore":1}',
    'm1_i1*4={"m3_ore":1}',
    *["ok"] * 4,
  )
  assert cells == [
    'get_info(["m5_i3"])',
    'k=-(-3//2)\nget_info(["m3_i2"])',
    'k0=-(-k*2//2)\nget_info(["m1_i1"])',
    'k1=-(-k0*2//4)\ncraft({"m3_ore":k1*1},("m1_i1",k1*4))',
    'craft({"m1_i1":k0*2,"m4_ore":k0*1},("m3_i2",k0*2))',
    'k0=-(-k*1//4)\ncraft({"m3_ore":k0*1},("m1_i1",k0*4))',
    'craft({"m3_i2":k*2,"m1_i1":k*1},("m5_i3",k*2))',
    'finish("done")',
  ]


def test_oracle_reads_in_batches_and_crafts_in_bulk_within_the_cell_cap():
  info = ['m5_i3*2={"m3_i2":2,"m1_i1":1}', 'm3_i2*2={"m1_i1":2,"m4_ore":1}\nm1_i1*4={"m3_ore":1}']
  crafts = [
    'craft({"m3_ore":2},("m1_i1",8))',  # 2 for m5_i3 and 4 for m3_i2
    'craft({"m1_i1":4,"m4_ore":2},("m3_i2",4))',
    'craft({"m3_i2":4,"m1_i1":2},("m5_i3",4))',
    'finish("done")',
  ]
  cells = talk(script.oracle_single(goal(m5_i3=3), cell_cap=1000), *info)
  assert cells == ['get_info(["m5_i3"])', 'get_info(["m3_i2","m1_i1"])', "\n".join(crafts)]
  assert talk(script.oracle_single(goal(m5_i3=3), cell_cap=8), *info[:1], *info[1].split("\n"), *["ok"] * 3) == [
    'get_info(["m5_i3"])',
    'get_info(["m3_i2"])',
    'get_info(["m1_i1"])',
    *crafts,
  ]


def test_tokens_counted_by_hand():
  count = script.count_tokens
  assert count("Craft the following items: 3x m3_i2") == 1 + 1 + 1 + 3
  assert count('get_info(["m3_i2"])') == 1 + 3 + 1
  assert count('m3_i2*2={"m1_i1":2,"m4_ore":1}') == 3 + 2 + 1 + (3 + 1 + 1) + 1 + (3 + 1 + 1) + 1
  launch = 'k=-(-3//2)\nawait asyncio.gather(launch_subagent({"m1_i1":k*2}),launch_subagent({"m2_i1":k*1}))'
  assert count(launch) == (1 + 1 + 1 + 1 + 1) + 1 + (3 + 1 + 1) + 1 + (3 + 1 + 1) + 1
  assert count('craft({"m1_i1":k*2,"m2_i1":k*1},("m3_i7_7",k*2))') == 1 + 5 + 1 + 5 + 1 + 3 + 3
  assert count('finish("done")') == 1 and count("raw_o3") == 3 and count("ä?") == 3


def test_tokens_are_counted_as_the_tokenizer_counts_them(textcraft_protocol):
  for text in ("Craft the following items: 3x m3_i2", 'craft({"m1_i1":k*2},("m3_i7_7",k*2))', "raw_o3 base", "zzz?"):
    assert script.count_tokens(text) == len(textcraft_protocol.tokenizer.encode(text))


def test_names_of_the_benchmarks_size_are_two_tokens():
  tokenizer = train_sentencepiece([], CONTROLS, compact.pieces((*compact.SYNTH_NAMES, *compact.PAIRED_NAMES)), 0)
  names = [name for name in World.generate().recipes if not name.startswith("x")]
  assert len(names) == 1390
  for name in names:
    pair = tokenizer.encode(name)
    assert len(pair) == 2 and tokenizer.decode(pair) == name


def test_pieces_are_distinct_and_digits_stand_in_tiers_only():
  pieces = TextCraft.pieces
  assert len(set(pieces)) == len(pieces)
  assert sorted(piece for piece in pieces if any(c.isdigit() for c in piece)) == sorted(map(tier_suffix, range(1, 13)))


CAPS = Caps(max_depth=16, max_nodes=512, max_turns=200, window=1 << 16, turn_tokens=1 << 12, output_tokens=1 << 12)


@pytest.fixture(scope="module")
def played(interpreter, textcraft_protocol):
  """The nodes of a task's tree worked by an agent, the root first."""

  def played(task, agent, seed=0):
    tree = Tree(TextCraft(), task, CAPS, textcraft_protocol, interpreter)
    return play(tree, agent, textcraft_protocol, seed).nodes

  return played


def oracle(goal, rng):
  return script.oracle_single(goal)


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_perfect_scripts_solve_tasks_in_the_sandbox(played, difficulty):
  for seed in range(4):
    task = sample_task("dev", difficulty, seed)
    nodes = played(task, script.recursive)
    assert all(node.success == 1.0 for node in nodes)
    for agent in (script.inline, oracle):
      (node,) = played(task, agent)
      assert node.success == 1.0


def test_oracle_crafts_each_item_once(played):
  task = sample_task("dev", "hard", 1)
  (node,) = played(task, oracle)
  calls = Counter(call.split("(")[0] for turn in node.turns for call in turn.cell.split("\n"))
  assert calls["craft"] == len(task.data["gold"])
  assert max(script.count_tokens(turn.cell) + 1 for turn in node.turns) <= 64


def test_slips_fail_some_agents_and_leave_the_cells_in_order(played):
  outcomes, openings = Counter(), Counter()
  agent = lambda goal, rng: script.recursive(goal, rng, SLIPPING)
  for seed in range(60):
    nodes = played(sample_task("train", "medium" if seed % 2 else "easy", seed), agent, seed)
    outcomes[nodes[0].success] += 1
    for node in nodes:
      assert node.turns[-1].cell.endswith(('finish("done")', 'finish("failed")'))
      shown = [turn.output for turn in node.turns]
      assert "Error: bad arguments" not in shown
      assert not [text for text in shown if "Error" in text and not text.startswith(("Error", "done,Error"))]
      openings[shown[0].split(" ")[-1]] += 1
  assert outcomes[0.0] >= 6 and outcomes[1.0] >= 6
  assert openings["base"] >= 3 and openings["unknown"] >= 3


def test_scripts_repeat_with_their_seed():
  def second_cell(seed):
    agent = script.recursive(goal(m3_i2=3), random.Random(seed), SLIPPING)
    next(agent)
    return agent.send('m3_i2*2={"m1_i1":2,"m4_ore":1}')

  assert [second_cell(seed) for seed in range(30)] == [second_cell(seed) for seed in range(30)]
  assert len({second_cell(seed) for seed in range(30)}) >= 5


def test_unknown_names_exist_in_no_world():
  rng = random.Random(0)
  worlds = [cached_world(seed, items, profile) for seed in (1, 2) for items, profile in ((10, "small"), (25, "full"))]
  names = {script._some_unknown(rng, name) for world in worlds for name in world.recipes for _ in range(3)}
  for world in worlds:
    assert not names & (world.recipes.keys() | world.base_items)
  assert {name.split("_i")[1][0] for name in names if "_i" in name} == set("0123456789")
  assert any(is_base_name(name) for name in names)


def test_single_agent_fits_medium_and_not_hard_into_a_window(interpreter):
  tasks = {d: [sample_task("dev", d, seed) for seed in range(12)] for d in ("medium", "hard")}
  rows = statistics(tasks, interpreter)
  assert set(rows["hard"]["tree_ok"] + rows["hard"]["single_ok"]) == {1.0}
  share = {d: sum(window <= 320 for window in rows[d]["single_window"]) / 12 for d in tasks}
  assert share["medium"] >= 0.75 and share["hard"] <= 0.1
  assert sum(rows["hard"]["node_tokens"]) / len(rows["hard"]["node_tokens"]) <= 80
  assert max(rows["hard"]["nodes"]) < 128


def test_goal_of_several_targets_is_worked_in_turn(played):
  data = {"world_seed": 42, "items_per_tier": 25, "profile": "full"}
  data |= {"targets": {"m0_i1": 2, "m1_i1": 4}, "inventory": {"m0_ore": 2, "m3_ore": 1}}
  for agent in (script.recursive, oracle):
    assert [node.success for node in played(Task("two", "easy", data), agent)] == [1.0]


def test_slips_default_to_perfect():
  assert dataclasses.asdict(script.PERFECT) == {
    name: 1.0 if name == "delegate" else 0.0 for name in dataclasses.asdict(script.PERFECT)
  }


def test_an_error_that_the_context_cuts_names_no_counts():
  assert script.read_counts('Error: short of {"m0_i1":2,"raw_t3":1}', "short of") == {"m0_i1": 2, "raw_t3": 1}
  for cut in ('Error: short of {"m0[cut]', 'Error: short of {"m0_i1":2}[cut]', 'Error: use {"m0_i1":2}', "ok"):
    assert script.read_counts(cut, "short of") == {}
