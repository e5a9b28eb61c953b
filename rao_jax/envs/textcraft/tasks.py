"""Tasks in a crafting world: what to make, what to make it of, and a plan that shows it can be done.

A task's stock is finite: what its target costs, up to half as much again, and a few materials of no use.
"""

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rao_jax.envs.base import Task
from rao_jax.envs.textcraft import world as world_lib
from rao_jax.envs.textcraft.asked import asked_items
from rao_jax.envs.textcraft.world import World

# World seeds of each split. Nothing but a final evaluation reads "test".
WORLD_SEEDS = {"train": range(0, 1_000_000), "dev": range(1_000_000, 1_100_000), "test": range(2_000_000, 2_100_000)}


@dataclasses.dataclass(frozen=True)
class Difficulty:
  """Tiers the target is drawn from (both ends included) and the most units asked for."""

  min_depth: int
  max_depth: int
  max_count: int


DIFFICULTIES = {
  "easy": Difficulty(2, 3, 3),
  "medium": Difficulty(4, 6, 3),
  "hard": Difficulty(7, 9, 2),
  "extreme": Difficulty(10, 12, 2),
}


def sample_task(split: str, difficulty: str, seed: int, items_per_tier: int = 10, profile: str = "small") -> Task:
  """The task that `seed` stands for, in a world of its own from the seed range of `split`."""
  seeds = WORLD_SEEDS[split]
  rng = _rng(split, difficulty, seed)
  world = world_lib.cached_world(seeds[rng.randrange(len(seeds))], items_per_tier, profile)
  candidates = _candidates(world, difficulty)
  while True:
    task = _make_task(world, difficulty, dict([_draw_target(candidates, difficulty, rng)]), rng, f"{split}.{seed}")
    if task is not None:
      return task


def make_tasks(
  world: World, split: str, difficulty: str, n: int, seed: int = 0, targets: list[str] | None = None,
  most_units: int = 0,
) -> list[Task]:  # fmt: skip
  """Up to `n` tasks of one world, no two alike in target and count.

  Args:
    world: where they play.
    split: a name for the ids; see `split_targets` to keep apart splits that share a world.
    difficulty: a key of DIFFICULTIES.
    n: how many; fewer come back when the world has no more to offer (30 draws for each are tried).
    seed: of the draws.
    targets: items to choose from, default all of the world.
    most_units: that a target asks for, each order of magnitude as often; 0 is the difficulty's own, all as often.
  """
  rng = _rng(split, difficulty, world.seed, seed)
  candidates = _candidates(world, difficulty, targets)
  seen: set[tuple[str, int]] = set()
  kept: list[Task] = []
  for _ in range(30 * n if candidates else 0):
    if len(kept) == n:
      break
    target = _draw_target(candidates, difficulty, rng, most_units)
    if target in seen:
      continue
    seen.add(target)
    task = _make_task(world, difficulty, dict([target]), rng, f"{split}.{world.seed}.{len(kept)}")
    if task is not None:
      kept.append(task)
  return kept


def asked_task(world: World, text: str) -> Task:
  """The task that a text asks for, see `asked.asked_items`; its stock follows from the text.

  Raises:
    ValueError: it says what the world has instead.
  """
  examples = [world.tier(tier)[0] for tier in (4, 2, 7)]
  wanted = asked_items(text, world.recipes, f"world {world.seed}", examples)
  tier = max(map(world.depth, wanted))
  difficulty = next(name for name, bounds in DIFFICULTIES.items() if tier <= bounds.max_depth)
  suffix = "asked." + ".".join(f"{units}_{item}" for item, units in wanted.items())
  rng = _rng("asked", world.seed, suffix)
  tries = (_make_task(world, difficulty, wanted, rng, f"{world.seed}.{suffix}") for _ in range(30))
  task = next(filter(None, tries), None)
  if task is None:
    raise ValueError(f"{text!r}: no stock of world {world.seed} suffices: ask for less")
  return task


def split_targets(world: World) -> dict[str, list[str]]:
  """The benchmark's own split of one world: 80% of each tier's items are training targets, the rest validation."""
  rng = random.Random(42)
  split: dict[str, list[str]] = {"train": [], "val": []}
  for tier in range(1, world_lib.MAX_TIER + 1):
    names = world.tier(tier)
    rng.shuffle(names)
    kept = int(0.8 * len(names))
    split["train"] += names[:kept]
    split["val"] += names[kept:]
  return split


def world_key(world: World) -> dict[str, Any]:
  """What a task's data says of its world."""
  key = {"world_seed": world.seed, "items_per_tier": world.items_per_tier, "profile": world.profile}
  return key if world.names == "generic" else key | {"names": world.names}


def material_cost(world: World, targets: dict[str, int]) -> dict[str, int]:
  """Raw material for `targets` if every unit took a whole execution of its recipe (result counts are ignored)."""
  known: dict[str, Counter] = {}

  def unit_cost(name: str) -> Counter:
    if name not in world.recipes:
      return Counter({name: 1})
    if name not in known:
      total = Counter()
      for ingredient, quantity in world.recipes[name].ingredients.items():
        for base, units in unit_cost(ingredient).items():
          total[base] += quantity * units
      known[name] = total
    return known[name]

  cost = Counter()
  for name, count in targets.items():
    for base, units in unit_cost(name).items():
      cost[base] += count * units
  return dict(cost)


def with_slack(cost: Mapping[str, int], rng: random.Random) -> dict[str, int]:
  """A stock of what a task costs and up to half as much again, item -> units."""
  return {base: units + rng.randint(0, max(1, units // 2)) for base, units in cost.items()}


def solve(world: World, targets: dict[str, int], inventory: dict[str, int]) -> list[tuple[str, int]] | None:
  """Crafts that make `targets` on top of what is owned, each item once and in bulk, lowest tier first.

  Returns:
    (item, units) of each craft call, units a multiple of the result count; None if raw material falls short.
  """
  wanted = Counter(targets)
  plan = []
  stock = Counter(inventory)
  # From the highest tier down, so that an item's total is known before its recipe is counted.
  pending = set(targets)
  while pending:
    name = max(pending, key=lambda name: (world.depth(name), name))
    pending.remove(name)
    if name not in world.recipes:
      if stock[name] < wanted[name]:
        return None
      continue
    recipe = world.recipes[name]
    executions = -(-wanted[name] // recipe.result_count)
    plan.append((name, executions * recipe.result_count))
    for ingredient, quantity in recipe.ingredients.items():
      wanted[ingredient] += executions * quantity
      pending.add(ingredient)
  return plan[::-1]


def _rng(*key) -> random.Random:
  """A generator that depends on `key` alone; text seeds are hashed by the same rule in every process."""
  return random.Random(" ".join(map(str, key)))


def _candidates(world: World, difficulty: str, targets: list[str] | None = None) -> list[str]:
  if difficulty not in DIFFICULTIES:
    raise ValueError(f"difficulty {difficulty!r} is unknown: use one of {', '.join(DIFFICULTIES)}")
  bounds = DIFFICULTIES[difficulty]
  names = world.recipes if targets is None else targets
  return [name for name in names if bounds.min_depth <= world.depth(name) <= bounds.max_depth]


def _draw_target(candidates: list[str], difficulty: str, rng: random.Random, most_units: int = 0) -> tuple[str, int]:
  item = rng.choice(candidates)
  if most_units:
    return item, int(math.exp(rng.uniform(0, math.log(most_units + 1))))
  return item, rng.randint(1, DIFFICULTIES[difficulty].max_count)


def _make_task(world: World, difficulty: str, targets: dict[str, int], rng: random.Random, suffix: str) -> Task | None:
  """The task of some targets, with a stock drawn for them; None where the plan does not work out."""
  inventory = with_slack(material_cost(world, targets), rng)
  base_items = sorted(world.base_items)  # sorted: a set's order changes from process to process
  for _ in range(rng.randint(1, 3)):
    distractor = rng.choice(base_items)
    if distractor not in inventory:
      inventory[distractor] = rng.randint(1, 5)
  gold = solve(world, targets, inventory)
  if gold is None:
    return None
  data = {
    **world_key(world),
    "targets": targets,
    "inventory": inventory,
    "gold": [[item, units] for item, units in gold],
    "max_depth": max(map(world.depth, targets)),
  }
  return Task(f"textcraft_synth.{world.profile}.{difficulty}.{suffix}", difficulty, data)
