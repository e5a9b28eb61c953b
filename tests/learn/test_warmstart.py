"""Demonstrations: scripts whose cells really run, through the engine, under the caps of the demo."""

import dataclasses
import functools

import pytest

from experiments import demo
from rao_jax.envs.textcraft import factory, script
from rao_jax.learn.warmstart import clone
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Outcome, Tree, record
from rao_jax.rollout.scripted import demonstrate, play, texts
from rao_jax.tree.buffer import build

CONFIG = demo.get_config("recursive")
CAPS = Caps(**CONFIG.caps.to_dict())
SINGLE = Caps(**demo.get_config("single").caps.to_dict())
SLIPS = script.Slips(**CONFIG.warm_start.slips.to_dict())
SLIPPING = functools.partial(script.recursive, slips=SLIPS)


@pytest.fixture
def demonstrated(textcraft, textcraft_tasks, textcraft_protocol, interpreter):
  def demonstrated(demonstrator, caps=CAPS, tasks=textcraft_tasks, seed=0):
    return list(demonstrate(tasks, textcraft, demonstrator, caps, textcraft_protocol, interpreter, seed))

  return demonstrated


def test_a_perfect_recursive_agent_solves_easy_and_medium_tasks_within_the_demos_caps(demonstrated, textcraft_tasks):
  for task, tree in zip(textcraft_tasks, demonstrated(script.recursive), strict=True):
    assert tree.task is task
    assert [node.success for node in tree.nodes] == [1.0] * len(tree.nodes), task.id
    assert {node.outcome for node in tree.nodes} == {Outcome.FINISHED}
    assert not tree.ledger.refused
    # Every launch is one recipe further down; easy targets have at least two levels.
    assert 1 <= max(node.depth for node in tree.nodes) < task.data["max_depth"]


def test_every_cell_is_trained_on_as_the_tokens_that_ran(demonstrated, textcraft_protocol):
  for tree in demonstrated(SLIPPING):
    for node in tree.nodes:
      sampled = [token for token, is_action in zip(node.tokens, node.is_action) if is_action]
      cells = [token for turn in node.turns for token in textcraft_protocol.script(turn.cell)]
      assert sampled == cells if node.outcome is not Outcome.TRUNCATED else sampled == cells[:-1]


def test_demonstrations_follow_from_the_seed_alone(demonstrated):
  one, again, other = (demonstrated(SLIPPING, seed=seed) for seed in (3, 3, 4))
  assert [record(tree) for tree in one] == [record(tree) for tree in again]
  assert [vars(tree.ledger) for tree in one] == [vars(tree.ledger) for tree in again]
  assert [record(tree) for tree in one] != [record(tree) for tree in other]


def test_a_demonstration_does_not_depend_on_those_after_it(demonstrated, textcraft_tasks):
  few, all_of_them = demonstrated(SLIPPING, tasks=textcraft_tasks[:3]), demonstrated(SLIPPING)
  assert [record(tree) for tree in few] == [record(tree) for tree in all_of_them[:3]]


def test_slips_show_in_failed_demonstrations_which_are_kept(demonstrated, textcraft_tasks):
  careless = functools.partial(script.recursive, slips=dataclasses.replace(SLIPS, early=0.5, give_up=1.0))
  trees = demonstrated(careless)
  assert len(trees) == len(textcraft_tasks)
  assert {tree.root.success for tree in trees} == {0.0, 1.0}


def test_without_depth_the_inline_agent_never_launches_and_solves_easy_tasks(demonstrated):
  assert SINGLE.max_depth == 0
  trees = demonstrated(script.inline, SINGLE)
  for tree in trees:
    assert len(tree.nodes) == 1 and not tree.ledger.refused
    assert not any("launch_subagent" in turn.cell for turn in tree.root.turns)
    assert not any("NameError" in turn.output for turn in tree.root.turns)
  assert [tree.root.success for tree in trees if tree.task.difficulty == "easy"] == [1.0] * 4


def test_texts_are_the_prompts_cells_and_outputs_of_all_nodes(demonstrated, textcraft_tasks):
  (tree,) = demonstrated(script.recursive, tasks=textcraft_tasks[:1])
  expected = []
  for node in tree.nodes:
    expected.append(node.goal_text)
    for turn in node.turns:
      expected += [turn.cell, turn.output]
  assert texts([tree]) == expected
  assert texts([tree, tree]) == expected * 2
  (item, count), *_ = textcraft_tasks[0].data["targets"].items()
  assert expected[:2] == [f"Craft the following items: {count}x {item}", f'get_info(["{item}"])']
  assert expected[2].startswith(f"{item}*") and expected[-2:] == ['finish("done")', ""]


def test_a_script_that_ends_too_early_gives_up(demonstrated, textcraft_tasks):
  (tree,) = demonstrated(lambda goal, rng: (cell for cell in ["view_inventory()"]), tasks=textcraft_tasks[:1])
  assert [turn.cell for turn in tree.root.turns] == ["view_inventory()", 'finish("failed")']
  assert (tree.root.outcome, tree.root.message, tree.root.success) == (Outcome.FINISHED, "failed", 0.0)


def test_a_script_is_sent_the_whole_output_of_its_cell(demonstrated, textcraft_tasks):
  seen = []

  def agent(goal, rng):
    seen.append((yield "print('a')\n1 + 1"))
    seen.append((yield "1/0"))
    yield "finish('done')"

  demonstrated(agent, tasks=textcraft_tasks[:1])
  assert seen == ["a\n2", "ZeroDivisionError: division by zero"]


def test_a_scripts_overlong_cell_is_cut_at_its_room(demonstrated, textcraft_tasks):
  long = "x = '" + "é" * 100 + "'"
  (tree,) = demonstrated(lambda goal, rng: (cell for cell in [long]), tasks=textcraft_tasks[:1])
  assert (tree.root.outcome, tree.root.sampled) == (Outcome.TRUNCATED, CAPS.turn_tokens)


def test_nodes_of_a_tree_have_random_sources_of_their_own(textcraft, textcraft_tasks, textcraft_protocol, interpreter):
  draws = {}
  caps = dataclasses.replace(CAPS, turn_tokens=128)

  def agent(goal, rng):
    draws.setdefault(goal.targets, []).append(rng.random())
    if goal.targets == tuple(textcraft_tasks[0].data["targets"].items()):
      yield "await asyncio.gather(launch_subagent({'m0_i1': 1}), launch_subagent({'m1_i1': 1}))"
    yield "finish('done')"

  for seed in (1, 1, 2):
    play(Tree(textcraft, textcraft_tasks[0], caps, textcraft_protocol, interpreter), agent, textcraft_protocol, seed)
  first, second, third = (tuple(draws[goal][i] for goal in draws) for i in range(3))
  assert first == second != third
  assert len(set(first)) == 3


def test_the_factory_names_its_demonstrators(tmp_path):
  environment = factory.make(str(tmp_path))
  with pytest.raises(ValueError, match=r"demonstrator='oracle': choose one of \['inline', 'recursive'\]"):
    environment.demonstrator("oracle")
  with pytest.raises(TypeError, match="carelessness"):
    environment.demonstrator("recursive", carelessness=0.5)
  assert environment.demonstrator("recursive", early=0.5).keywords == {"slips": script.Slips(early=0.5)}


def test_cloning_without_demonstrations_names_the_setting(demonstrated):
  with pytest.raises(ValueError, match=r"set config\.warm_start\.tasks"):
    next(clone(None, None, build([]), 1, 1, 0))
