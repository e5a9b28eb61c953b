"""The crafting world: the published one call by call, and the small profile of the same generator."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from rao_jax.envs.textcraft.world import Recipe, World, is_base_name, named_tier

# SHA-256 over [item, [[ingredient, units], ...], result count] of all 1,402 recipes, made with the benchmark authors'
# own generator (platoon-textcraft 0.3.0, seed 42, 25 items a tier).
PUBLISHED = "f2af73d325b9bbdb0b952d39a4c595af1b8937b8e9716f2108df6a64cd4fa727"
PUBLISHED_SEMANTIC = "3631123aebc96062eda7a6400e45f08d52415d227f1ac2824c680de0aa96c9c6"


def digest(world):
  rows = [[name, list(recipe.ingredients.items()), recipe.result_count] for name, recipe in world.recipes.items()]
  return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_seed_42_is_the_published_world():
  world = World.generate(seed=42, items_per_tier=25)
  assert digest(world) == PUBLISHED
  assert world.recipes["m0_i1"] == Recipe({"m0_ore": 2}, 2, 1)
  assert world.recipes["m3_i2"] == Recipe({"m1_i1": 2, "m2_i1": 1}, 2, 2)


def test_semantic_names_are_the_published_ones_for_the_same_world():
  generic, semantic = World.generate(), World.generate(names="semantic")
  assert digest(semantic) == PUBLISHED_SEMANTIC
  # m0 is iron and m1 copper; i1 is refined, i2 processed, i12 legendary.
  assert semantic.recipes["iron_refined"] == Recipe({"iron_ore": 2}, 2, 1)
  assert semantic.recipes["silver_processed"] == Recipe({"copper_refined": 2, "gold_refined": 1}, 2, 2)
  assert "iron_legendary_12" in semantic.recipes and {"raw_wood", "ruby_ore", "raw_core"} <= semantic.base_items
  for (a, ours), (b, theirs) in zip(generic.recipes.items(), semantic.recipes.items()):
    assert (a == b) == a.startswith("x") and not is_base_name(b)
    assert list(ours.ingredients.values()) == list(theirs.ingredients.values()) and ours.depth == theirs.depth


def test_full_world_has_the_published_counts():
  world = World.generate()
  assert len(world.base_items) == 50 and len(world.recipes) == 1402
  per_tier = Counter(recipe.depth for recipe in world.recipes.values())
  assert [per_tier[t] for t in range(1, 13)] == [125, 125, 120, 120, 120, 115, 115, 115, 110, 114, 114, 109]
  assert sum(name.startswith("x") for name in world.recipes) == 12


@pytest.mark.parametrize(("profile", "items"), [("full", 25), ("small", 10), ("wide", 25)])
def test_ingredients_exist_and_lie_one_to_four_tiers_below(profile, items):
  world = World.generate(7, items, profile)
  for name, recipe in world.recipes.items():
    for part, units in recipe.ingredients.items():
      assert part in world.recipes or part in world.base_items
      assert is_base_name(part) == (part in world.base_items)
      assert 1 <= recipe.depth - world.depth(part) <= 4
      assert units in ((1, 2) if recipe.depth <= 4 or name.startswith("x") else (1,))


def test_small_world_has_one_or_two_ingredients_and_no_index_in_its_names():
  world = World.generate(3, 10, "small")
  for name, recipe in world.recipes.items():
    if not name.startswith("x"):
      assert len(recipe.ingredients) <= 2
      head, _, tail = name.partition("_i")
      assert len(head) == 2 and tail == (f"{recipe.depth}_{recipe.depth}" if recipe.depth >= 6 else f"{recipe.depth}")
  assert all(len(world.recipes[name].ingredients) == 1 for name in world.tier(1))
  assert world.tier(7)[:2] == ["m0_i7_7", "m1_i7_7"]


def named_alike(world):
  """Share of the recipes with several craftable ingredients of which two have one prefix."""
  found = []
  for recipe in world.recipes.values():
    prefixes = [part.partition("_")[0] for part in recipe.ingredients if part in world.recipes]
    if len(prefixes) > 1:
      found.append(len(set(prefixes)) < len(prefixes))
  return sum(found) / len(found)


@pytest.mark.parametrize(("profile", "least", "most"), [("wide_shuffled", 0, 0.2), ("wide_alike", 0.7, 1)])
def test_renamed_worlds_are_the_same_world_in_the_same_names_dealt_out_anew(profile, least, most):
  plain, renamed = World.generate(7, 25, "wide"), World.generate(7, 25, profile)
  assert sorted(renamed.recipes) == sorted(plain.recipes) and renamed.base_items == plain.base_items
  new = dict(zip(plain.recipes, renamed.recipes))
  for name, recipe in plain.recipes.items():
    ingredients = {new.get(part, part): units for part, units in recipe.ingredients.items()}
    assert renamed.recipes[new[name]] == Recipe(ingredients, recipe.result_count, recipe.depth)
    assert (new[name] == name) or not name.startswith("x")
  assert least <= named_alike(renamed) <= most
  assert 0.3 < named_alike(World.generate()) < 0.35  # the benchmark's world


def test_seeds_differ_and_repeat():
  assert World.generate(1, 10, "small") == World.generate(1, 10, "small")
  assert World.generate(1, 10, "small").recipes != World.generate(2, 10, "small").recipes


def test_unknown_profile_names_the_known_ones():
  with pytest.raises(ValueError, match="full, small"):
    World.generate(1, 10, "tiny")
  with pytest.raises(ValueError, match="generic, semantic"):
    World.generate(names="french")


def test_worlds_and_tasks_do_not_depend_on_the_hash_seed():
  code = (
    "from rao_jax.envs.textcraft import World, make_tasks, sample_task;"
    "from rao_jax.envs.textcraft.dataset import generated_tasks;"
    "w = World.generate(5, 10, 'small');"
    "print(w.recipes, make_tasks(w, 'dev', 'hard', 5), [sample_task('train', 'medium', i) for i in range(5)]);"
    "print(generated_tasks('val', 7, 'generated_7'))"
  )
  shown = {
    subprocess.run(
      [sys.executable, "-c", code],
      capture_output=True,
      text=True,
      check=True,
      env={**os.environ, "PYTHONHASHSEED": seed},
    ).stdout
    for seed in ("0", "1", "77")
  }
  assert len(shown) == 1 and len(shown.pop()) > 1000


def test_tiers_that_names_tell():
  told = {"m0_i7_7": 7, "c3_i12_12_10": 12, "m2_i2_12": 2, "x11_act": 11, "m0_ore": 0, "raw_t3": 0, "max10_x": 0}
  assert {name: named_tier(name) for name in told} == told
  world = World.generate()
  assert all(named_tier(name) == recipe.depth for name, recipe in world.recipes.items())
