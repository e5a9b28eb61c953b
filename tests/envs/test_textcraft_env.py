"""The crafting environment: checks of a craft, the books, success of every agent, what is shown."""

import copy
import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rao_jax.envs.base import Refusal, Task
from rao_jax.envs.textcraft import TextCraft, TextCraftGoal, sample_task
from rao_jax.envs.textcraft.minecraft import MinecraftWorld
from rao_jax.envs.textcraft.world import cached_world
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Outcome, Tree
from rao_jax.rollout.scripted import play

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


# In the order of the checks: each of these calls would also fail one that comes after.
WRONG_ARGUMENTS = [
  ((["m0_ore"], "m0_i1"), "ingredients has to be a dict of item to units, this is of type list."),
  (({"m0_ore": 2}, "m0_i1"), "target has to be a tuple of an item and its units."),
  (({"m0_ore": 2}, ("m0_i1", 2, 3)), "target has to be a tuple of an item and its units."),
  (({"m0_ore": 2}, (1, 2.0)), "the target item has to be a text, this is of type int."),
  (({"m0_ore": 2}, ("m0_i1", 0.0)), "the target's units have to be a whole number, this is of type float."),
  (({1: 2}, ("m0_i1", 0)), "the target's units have to be above 0, not 0."),
  (({1: "2"}, ("m0_i1", 2)), "the name of an ingredient has to be a text, this is of type int."),
  (({"m0_ore": -1.5}, ("m0_i1", 2)), "the units of m0_ore have to be a whole number, this is of type float."),
  (({"m0_ore": -2}, ("no_such", 2)), "the units of m0_ore have to be above 0, not -2."),
  (({"m0_ore": 2},), "craft was called with the wrong arguments."),
]
NOT_CRAFTED = "m0_i1 was not crafted, no recipe of 1 fits:\nRecipe 1: "
WRONG_CRAFTS = [
  (({"m0_ore": 2}, ("m0_ore", 2)), "no recipe", "m0_ore cannot be crafted, it has no recipe."),
  (
    ({"m4_ore": 2}, ("m0_i1", 3)),
    "not a multiple of 2",
    NOT_CRAFTED + "it makes 2 at a time, 3 is not a multiple of that.",
  ),
  (({"m4_ore": 9}, ("m0_i1", 2)), 'use {"m0_ore":2}', NOT_CRAFTED + "it takes m0_ore as well."),
  (
    ({"m0_ore": 2, "m4_ore": 9}, ("m0_i1", 4)),
    'use {"m0_ore":4}',
    NOT_CRAFTED + "wrong amount of m0_ore: it takes 4, 2 were given.",
  ),
  (({"m0_ore": 8, "m4_ore": 9}, ("m0_i1", 8)), 'use {"m0_ore":8}', NOT_CRAFTED + "it takes no m4_ore."),
  (
    ({"m0_ore": 8}, ("m0_i1", 8)),
    'short of {"m0_ore":5}',
    NOT_CRAFTED + "not enough in the inventory (m0_ore: need 8, have 3).",
  ),
  (
    ({"m1_i1": 2, "m2_i1": 1}, ("m3_i2", 2)),
    'short of {"m1_i1":2,"m2_i1":1}',
    "m3_i2 was not crafted, no recipe of 1 fits:\n"
    "Recipe 1: not enough in the inventory (m1_i1: need 2, have 0, m2_i1: need 1, have 0).",
  ),
]


@pytest.mark.parametrize(
  ("args", "short", "full"), [(args, "bad arguments", full) for args, full in WRONG_ARGUMENTS] + WRONG_CRAFTS
)
def test_a_wrong_craft_says_why_and_changes_nothing(args, short, full):
  for compact, text in ((True, short), (False, full)):
    episode = start(compact=compact)
    before = copy.deepcopy((episode.inventory, episode._net))
    assert craft(episode, (), *args) == f"Error: {text}"
    assert (episode.inventory, episode._net) == before


def test_full_messages_tell_of_success_and_a_bool_is_a_whole_number():
  episode = start(compact=False)
  assert craft(episode, (), {"m0_ore": 2}, ["m0_i1", 2]) == "Crafted 2x m0_i1."
  assert "True is not a multiple" in craft(episode, (), {"m0_ore": 2}, ("m0_i1", True))


# Made by hand: a stick of 2 planks of one kind (4 sticks) or of 2 bamboo (1 stick); 3 sticks and a plank make a sign.
BOOK = MinecraftWorld(
  [
    ("stick", {"tag:planks": 2}, 4),
    ("stick", {"bamboo": 2}, 1),
    ("sign", {"stick": 3, "tag:planks": 1}, 1),
    ("oak_planks", {"oak_log": 1}, 4),
    ("birch_planks", {"birch_log": 1}, 4),
  ]
)


def start_by_hand(inventory, compact=True, **targets):
  class ByHand(TextCraft):
    def book(self, task):
      return BOOK

  episode = ByHand(compact=compact).start(Task("hand", "easy", {"inventory": inventory, "targets": targets}))
  episode.begin((), episode.root_goal())
  return episode


def test_one_item_of_a_tag_is_used_in_the_full_amount():
  episode = start_by_hand({"oak_planks": 3, "birch_planks": 4})
  assert craft(episode, (), {"oak_planks": 2, "birch_planks": 2}, ("stick", 8)).startswith("Error")
  assert craft(episode, (), {"tag:planks": 4}, ("stick", 8)).startswith("Error")
  assert craft(episode, (), {"birch_planks": 4}, ("stick", 8)) == "ok"
  assert craft(episode, (), {"stick": 6, "oak_planks": 2}, ("sign", 2)) == "ok"
  assert episode.inventory == {"oak_planks": 1, "stick": 2, "sign": 2}


def test_the_first_recipe_that_takes_what_is_given_is_used():
  episode = start_by_hand({"bamboo": 8, "oak_planks": 2})
  assert craft(episode, (), {"bamboo": 8}, ("stick", 4)) == "ok"  # 4 executions of the second, none of the first
  assert episode.inventory == {"oak_planks": 2, "stick": 4}


def test_a_failed_craft_tells_why_of_every_recipe():
  wrong = {"bamboo": 1}, ("stick", 4)
  assert craft(start_by_hand({}), (), *wrong) == 'Error: use {"tag:planks":2} or use {"bamboo":8}'
  assert craft(start_by_hand({}, compact=False), (), *wrong) == (
    "Error: stick was not crafted, no recipe of 2 fits:\n"
    "Recipe 1: nothing was given for tag:planks, it takes one of birch_planks, oak_planks.\n"
    "Recipe 2: wrong amount of bamboo: it takes 8, 1 were given."
  )


def test_get_info_lists_all_recipes_and_what_may_stand_for_a_tag():
  episode = start_by_hand({"stick": 1})
  value = episode.call((), "get_info", (["stick", "bamboo"],), {})
  assert value[0]["recipes"] == [
    {"ingredients": {"tag:planks": {"count": 2, "use_one_of": ["birch_planks", "oak_planks"]}}, "result_count": 4},
    {"ingredients": {"bamboo": 2}, "result_count": 1},
  ]
  assert value[0]["in_inventory"] == 1 and value[1]["is_base"]
  assert episode.render(value) == (
    'stick*4={"tag:planks":2}\nstick*1={"bamboo":2}\ntag:planks=["birch_planks","oak_planks"]\nbamboo base'
  )


def test_all_targets_of_a_goal_count_and_one_used_for_another_is_made_anew():
  episode = start_by_hand({"oak_planks": 5}, stick=1, sign=1)
  assert craft(episode, (), {"oak_planks": 2}, ("stick", 4)) == "ok"
  assert episode.end((), "done") == 0.0
  assert craft(episode, (), {"stick": 3, "oak_planks": 1}, ("sign", 1)) == "ok"
  assert episode.end((), "done") == 1.0  # 4 - 3 sticks are left
  episode = start_by_hand({"oak_planks": 5}, stick=2, sign=1)
  craft(episode, (), {"oak_planks": 2}, ("stick", 4))
  craft(episode, (), {"stick": 3, "oak_planks": 1}, ("sign", 1))
  assert episode.end((), "done") == 0.0


def test_in_full_form_a_bare_text_is_read_letter_by_letter_as_in_the_benchmark():
  info = lambda items: start(compact=False).call((), "get_info", (items,), {})
  assert [(part["item"], part["can_craft"]) for part in info("m0")] == [("m", False), ("0", False)]
  assert info({"m3_ore": 4}) == info(["m3_ore"]) == info(("m3_ore",))
  assert info(5) == info([["m3_ore"]]) == "Error: get_info takes a list of item names."


def test_an_empty_message_ends_the_agent_and_scores_nothing(interpreter, byte_protocol):
  made = 'craft({"m3_ore":1},("m1_i1",4))\ncraft({"m4_ore":1},("m2_i1",2))\ncraft({"m1_i1":4,"m2_i1":2},("m3_i2",4))'
  for message, success in (("", 0.0), ("x", 1.0)):
    agent = lambda goal, rng, message=message: (cell for cell in (made, f"finish({message!r})"))
    tree = play(Tree(TextCraft(), TASK, Caps(), byte_protocol, interpreter), agent, byte_protocol, 0)
    assert (tree.root.outcome, tree.root.message, tree.root.success) == (Outcome.FINISHED, message, success)
    assert len(tree.root.turns) == 2


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


MOVES = st.lists(
  st.one_of(
    st.tuples(st.just("launch"), st.integers(0, 9)),  # a child of the i-th agent
    st.tuples(st.just("craft"), st.integers(0, 9), st.integers(0, 9), st.integers(1, 4), st.integers(-1, 1)),
    st.tuples(st.just("end"), st.integers(0, 9)),
  ),
  max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 20), moves=MOVES)
def test_in_any_tree_of_crafts_the_root_is_graded_alike_by_both_rules(seed, moves):
  """Agents start and end at any time and craft in any order; nothing happens beside the root's tree."""
  task = sample_task("dev", "medium", seed)
  world = cached_world(*(task.data[key] for key in ("world_seed", "items_per_tier", "profile")))
  items = [name for name, _ in task.data["gold"]]
  episodes = [TextCraft(success=success).start(task) for success in ("produced", "delta")]
  for episode in episodes:
    episode.begin((), episode.root_goal())
  paths, booked = [()], Counter(task.data["inventory"])
  for kind, i, *craft_of in moves:
    path = paths[i % len(paths)]
    if kind == "launch":
      paths.append((*path, len(paths)))
      for episode in episodes:
        episode.begin(paths[-1], goal(**{items[i % len(items)]: 1}))
      continue
    if kind == "end":
      assert all(episode.end(path, "done") in (0.0, 1.0) for episode in episodes)
      continue
    item, executions, slip = craft_of
    name = items[item % len(items)]
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
  assert all(episodes[0]._gained((), name) == episodes[1]._gained((), name) for name in (*items, *world.base_items))
  assert episodes[0].end((), "done") == episodes[1].end((), "done")


def test_options_that_do_not_exist_are_refused():
  with pytest.raises(ValueError, match="produced"):
    TextCraft(success="exact")


def test_goals_can_be_keys():
  assert len({goal(m1_i1=4), goal(m1_i1=4), dataclasses.replace(goal(m1_i1=4), context="a")}) == 2
