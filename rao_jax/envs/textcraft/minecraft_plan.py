"""How to make an item by Minecraft's recipes, and of what raw material: one way, not the cheapest."""

from collections import Counter
from collections.abc import Mapping

from rao_jax.envs.textcraft.crafting import TAG, RecipeBook

# A craft as a task's plan has it: item, units made, units given of each ingredient.
Step = tuple[str, int, dict[str, int]]


def plan(book: RecipeBook, targets: Mapping[str, int]) -> tuple[list[Step], dict[str, int]]:
  """Crafts that make `targets`, each after those of its ingredients, and the units of raw material that they take.

  Of an item's recipes the first that needs nothing that the item is made for, of a tag's items the first. What only has
  recipes that lead back to where it is needed counts as raw material: ingots are made of blocks, which are given.
  """
  steps: list[Step] = []
  raw, spare = Counter(), Counter()

  def choose(part: str, above: frozenset[str]) -> str | None:
    items = book.tagged(part) if part.startswith(TAG) else (part,)
    return next((item for item in items if item not in above), None)

  def make(name: str, units: int, above: frozenset[str]) -> None:
    above |= {name}
    for recipe in book.recipes_of(name):
      chosen = {part: choose(part, above) for part in recipe.ingredients}
      if None not in chosen.values():
        break
    else:
      raw[name] += units
      return
    executions = -(-units // recipe.result_count)
    given = Counter()
    for part, quantity in recipe.ingredients.items():
      given[chosen[part]] += quantity * executions
    for item, needed in given.items():
      take(item, needed, above)
    steps.append((name, executions * recipe.result_count, dict(given)))
    spare[name] += executions * recipe.result_count - units

  def take(name: str, units: int, above: frozenset[str]) -> None:
    owned = min(units, spare[name])
    spare[name] -= owned
    if units > owned:
      make(name, units - owned, above)

  for name, units in targets.items():
    make(name, units, frozenset())
  return steps, dict(raw)
