"""The crafting environment: checks of a craft, the books, success of every agent, what is shown."""

import copy
import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rao_jax.envs.base import Refusal, Task
from rao_jax.envs.textcraft import TextCraft, TextCraftGoal, sample_task
from rao_jax.envs.textcraft.world import cached_world

# In the published world: 2 m0_ore -> 2 m0_i1; m3_ore -> 4 m1_i1; m4_ore -> 2 m2_i1; 2 m1_i1 + m2_i1 -> 2 m3_i2.
TASK = Task(
  "hand.made",
  "easy",
  {
    "world_seed": 42,
    "items_per_tier": 25,
    "profile": "full",
    "targets": {"m3_i2": 3},
    "inventory": {"m3_ore": 2, "m4_ore": 1, "m0_ore": 3},
  },
)


def start(**options):
  episode = TextCraft(**options).start(TASK)
  episode.begin((), episode.root_goal())
  return episode


def craft(episode, path, *args):
  return episode.call(path, "craft", args, {})


def goal(**targets):
  return TextCraftGoal(tuple(targets.items()))


def make_root_target(episode, path=()):
  assert craft(episode, path, {"m3_ore": 1}, ("m1_i1", 4)) == "ok"
  assert craft(episode, path, {"m4_ore": 1}, ("m2_i1", 2)) == "ok"
  assert craft(episode, path, {"m1_i1": 4, "m2_i1": 2}, ("m3_i2", 4)) == "ok"


def test_crafts_move_units_and_used_up_items_leave_the_inventory():
  episode = start()
  make_root_target(episode)
  assert episode.inventory == {"m3_ore": 1, "m0_ore": 3, "m3_i2": 4}
  assert TASK.data["inventory"] == {"m3_ore": 2, "m4_ore": 1, "m0_ore": 3}
  assert episode.end((), "done") == 1.0


@pytest.mark.parametrize("message", [None, ""])
def test_success_needs_a_finish_with_a_message(message):
  episode = start()
  make_root_target(episode)
  assert episode.end((), message) == 0.0


def test_success_needs_all_units():
  episode = start()
  craft(episode, (), {"m3_ore": 1}, ("m1_i1", 4))
  craft(episode, (), {"m4_ore": 1}, ("m2_i1", 2))
  assert craft(episode, (), {"m1_i1": 2, "m2_i1": 1}, ("m3_i2", 2)) == "ok"
  assert episode.end((), "done") == 0.0


@pytest.mark.parametrize(
  ("args", "short"),
  [
    (({"m0_ore": 2}, "m0_i1"), "Error: bad arguments"),
    ((["m0_ore"], ("m0_i1", 2)), "Error: bad arguments"),
    (({"m0_ore": 2}, (1, 2)), "Error: bad arguments"),
    (({"m0_ore": 2}, ("m0_i1", 2.0)), "Error: bad arguments"),
    (({"m0_ore": 2}, ("m0_i1", 0)), "Error: bad arguments"),
    (({"m0_ore": -2}, ("m0_i1", 2)), "Error: bad arguments"),
    (({1: 2}, ("m0_i1", 2)), "Error: bad arguments"),
    (({"m0_ore": "2"}, ("m0_i1", 2)), "Error: bad arguments"),
    (({"m0_ore": 2},), "Error: bad arguments"),
    (({"m0_ore": 2}, ("m0_ore", 2)), "Error: no recipe"),
    (({"m0_ore": 2}, ("m0_i1", 3)), "Error: not a multiple of 2"),
    (({}, ("m0_i1", 2)), 'Error: use {"m0_ore":2}'),
    (({"m0_ore": 2}, ("m0_i1", 4)), 'Error: use {"m0_ore":4}'),
    (({"m0_ore": 2, "m3_ore": 1}, ("m0_i1", 2)), 'Error: use {"m0_ore":2}'),
    (({"m0_ore": 8}, ("m0_i1", 8)), 'Error: short of {"m0_ore":5}'),
    (({"m1_i1": 2, "m2_i1": 1}, ("m3_i2", 2)), 'Error: short of {"m1_i1":2,"m2_i1":1}'),
  ],
)
def test_a_wrong_craft_says_why_and_changes_nothing(args, short):
  for options in ({}, {"compact": False}):
    episode = start(**options)
    before = copy.deepcopy((episode.inventory, episode._net))
    shown = craft(episode, (), *args)
    assert shown.startswith("Error:") and (options or shown == short)
    assert (episode.inventory, episode._net) == before


def test_full_messages_name_the_amounts():
  episode = start(compact=False)
  assert craft(episode, (), {"m0_ore": 2}, ["m0_i1", 2]) == "Crafted 2x m0_i1."
  assert craft(episode, (), {"m0_ore": 2}, ("m0_i1", 2)) == (
    "Error: Recipe 1: not enough in the inventory (m0_ore: need 2, have 1)."
  )
  assert "needs 4, got 2" in craft(episode, (), {"m0_ore": 2}, ("m0_i1", 4))
  assert "needs m0_ore (2) as well" in craft(episode, (), {"m4_ore": 1}, ("m0_i1", 2))
  assert "does not use m4_ore" in craft(episode, (), {"m0_ore": 2, "m4_ore": 1}, ("m0_i1", 2))


def two_children(success):
  episode = start(success=success)
  episode.begin((0,), goal(m1_i1=4))
  episode.begin((1,), goal(m3_i2=2))
  return episode


def test_delta_credits_a_sibling_for_work_it_did_not_do_and_produced_does_not():
  expected = {"delta": 1.0, "produced": 0.0}
  for success, value in expected.items():
    episode = two_children(success)
    craft(episode, (1,), {"m3_ore": 1}, ("m1_i1", 4))
    assert episode.end((0,), "done") == value


def test_delta_blames_a_sibling_for_what_another_used_up_and_produced_does_not():
  expected = {"delta": 0.0, "produced": 1.0}
  for success, value in expected.items():
    episode = two_children(success)
    craft(episode, (0,), {"m3_ore": 1}, ("m1_i1", 4))
    craft(episode, (1,), {"m4_ore": 1}, ("m2_i1", 2))
    assert craft(episode, (1,), {"m1_i1": 2, "m2_i1": 1}, ("m3_i2", 2)) == "ok"
    assert episode.end((0,), "done") == value
    assert episode.end((1,), "done") == 1.0


def test_what_an_agent_uses_up_of_its_own_does_not_count_for_it():
  episode = start()
  episode.begin((0,), goal(m1_i1=4))
  make_root_target(episode, (0,))
  assert episode.end((0,), "done") == 0.0
  assert episode.end((), "done") == 1.0


def test_grandchildren_count_for_all_above_them_and_for_nobody_beside():
  episode = start()
  for path in ((0,), (0, 3), (1,)):
    episode.begin(path, goal(m1_i1=4))
  craft(episode, (0, 3), {"m3_ore": 1}, ("m1_i1", 4))
  assert [episode.end(path, "x") for path in ((0, 3), (0,), (1,))] == [1.0, 1.0, 0.0]


def test_launches_are_checked():
  episode = start()
  ask = lambda *args, **kwargs: episode.subgoal((), args, kwargs)
  assert ask({"m1_i1": 4}) == TextCraftGoal((("m1_i1", 4),))
  assert ask(targets={"m1_i1": 4, "m2_i1": 2}, context="hi") == TextCraftGoal((("m1_i1", 4), ("m2_i1", 2)), "hi")
  wrong = [(), ({},), ("m1_i1",), ({"m1_i1": 0},), ({"m1_i1": 1.5},), ({"m1_i1": True},), ({"M1": 1},), ({1: 1},)]
  wrong += [({"m1_i1\n": 1},), ({"m1_i1": 1}, 5), ({"m1_i1": 10**30},), ({"m1_i1": 1}, "", 3)]
  for args in wrong:
    answer = ask(*args)
    assert isinstance(answer, Refusal) and answer.startswith("Error:")


def test_goals_of_the_agent_or_an_ancestor_are_refused():
  episode = start()
  episode.begin((0,), goal(m1_i1=4, m2_i1=2))
  refused = lambda targets: isinstance(episode.subgoal((0,), (targets,), {}), Refusal)
  assert refused({"m3_i2": 1})  # the root's
  assert refused({"m3_i2": 1, "m0_i1": 1})
  assert refused({"m1_i1": 1, "m2_i1": 1})  # its own
  assert not refused({"m1_i1": 4})  # a part of its own
  free = start(refuse_ancestor_goals=False)
  assert free.subgoal((), ({"m3_i2": 1},), {}) == goal(m3_i2=1)


def test_get_info_returns_the_reference_value_and_shows_a_line_to_copy():
  episode = start()
  value = episode.call((), "get_info", (["m3_i2", "m3_ore", "m9_i9"],), {})
  assert value[0] == {
    "item": "m3_i2",
    "can_craft": True,
    "is_base": False,
    "in_inventory": 0,
    "crafting_depth": 2,
    "recipes": [{"ingredients": {"m1_i1": 2, "m2_i1": 1}, "result_count": 2}],
  }
  assert value[1] | {"in_inventory": 2, "is_base": True, "can_craft": False, "recipes": []} == value[1]
  assert episode.render(value) == 'm3_i2*2={"m1_i1":2,"m2_i1":1}\nm3_ore base\nm9_i9 unknown'
  assert start(compact=False).render(value) == repr(value)
  assert episode.call((), "get_info", ("m3_i2",), {}).startswith("Error:")


def test_values_are_shown_short():
  episode = start()
  shown = [episode.render(v) for v in (None, "ok", ["done", "failed"], {"m0_ore": 3}, 7, [], [1, "a"])]
  assert shown == ["", "ok", "done,failed", '{"m0_ore":3}', "7", "[]", "[1, 'a']"]
  assert start(compact=False).render("ok") == "'ok'"


def test_inventory_is_a_copy():
  episode = start()
  episode.call((), "view_inventory", (), {})["m3_ore"] = 99
  assert episode.inventory["m3_ore"] == 2


def test_prompt_names_targets_and_context():
  episode = start()
  assert episode.prompt(episode.root_goal()) == "Craft the following items: 3x m3_i2"
  assert episode.prompt(TextCraftGoal((("m1_i1", 4), ("m2_i1", 2)), "hurry")) == (
    "Craft the following items: 4x m1_i1, 2x m2_i1\n\nContext from the parent agent: hurry"
  )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 20), data=st.data())
def test_any_crafts_conserve_the_inventory(seed, data):
  task = sample_task("dev", "medium", seed)
  world = cached_world(*(task.data[key] for key in ("world_seed", "items_per_tier", "profile")))
  items = [name for name, _ in task.data["gold"]]
  root = TextCraftGoal(tuple(task.data["targets"].items()))
  episodes = [TextCraft(success=success).start(task) for success in ("produced", "delta")]
  paths = [(), (0,), (0, 1), (1,)]
  for episode in episodes:
    for path in paths:
      episode.begin(path, root)
  moves = st.tuples(st.sampled_from(items), st.integers(1, 4), st.sampled_from(paths), st.integers(-1, 1))
  booked = Counter(task.data["inventory"])
  for name, executions, path, slip in data.draw(st.lists(moves, max_size=30)):
    recipe = world.recipes[name]
    amounts = {part: units * executions + slip for part, units in recipe.ingredients.items()}
    target = (name, executions * recipe.result_count)
    answers = [craft(episode, path, amounts, target) for episode in episodes]
    assert answers[0] == answers[1]
    if answers[0] == "ok":
      booked.subtract(amounts)
      booked[name] += target[1]
    for episode in episodes:
      assert all(units > 0 for units in episode.inventory.values())
      assert episode.inventory == {item: units for item, units in booked.items() if units}
  # Nothing happens beside the root's tree, so both rules agree there.
  assert all(episodes[0]._gained((), name) == episodes[1]._gained((), name) for name in items)
  assert episodes[0].end((), "done") == episodes[1].end((), "done")


def test_options_that_do_not_exist_are_refused():
  with pytest.raises(ValueError, match="produced"):
    TextCraft(success="exact")


def test_goals_can_be_keys():
  assert len({goal(m1_i1=4), goal(m1_i1=4), dataclasses.replace(goal(m1_i1=4), context="a")}) == 2
