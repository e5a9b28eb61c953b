"""What a craft is checked for, in which order, and what is said of it: the benchmark's rules. Pure."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rao_jax.envs.textcraft.compact import counts
from rao_jax.envs.textcraft.world import Recipe

TAG = "tag:"  # an ingredient that begins so is any one of several items


class RecipeBook(Protocol):
  """What can be made of what: a world as a craft sees it."""

  base_items: frozenset[str]

  def recipes_of(self, name: str) -> Sequence[Recipe]:
    """Ways to make an item, in the order they are tried."""

  def tagged(self, tag: str) -> Sequence[str]:
    """Items that may stand for an ingredient `tag:...`."""

  def depth(self, name: str) -> int:
    """How many crafts lie between an item and raw material; 0 for raw material and names that do not exist."""


@dataclasses.dataclass(frozen=True)
class Misfit:
  """Why a craft does not follow a recipe, in few tokens and as a sentence."""

  short: str
  full: str


def argument_fault(ingredients: Any, target: Any) -> str | None:
  """What is wrong with the arguments of a craft, whatever the recipe; None if nothing is. A bool is a whole number."""
  kind = lambda value: type(value).__name__
  if not isinstance(ingredients, dict):
    return f"ingredients has to be a dict of item to units, this is of type {kind(ingredients)}."
  if not isinstance(target, tuple | list) or len(target) != 2:
    return "target has to be a tuple of an item and its units."
  item, count = target
  if not isinstance(item, str):
    return f"the target item has to be a text, this is of type {kind(item)}."
  if not isinstance(count, int):
    return f"the target's units have to be a whole number, this is of type {kind(count)}."
  if count <= 0:
    return f"the target's units have to be above 0, not {count}."
  for name, units in ingredients.items():
    if not isinstance(name, str):
      return f"the name of an ingredient has to be a text, this is of type {kind(name)}."
    if not isinstance(units, int):
      return f"the units of {name} have to be a whole number, this is of type {kind(units)}."
    if units <= 0:
      return f"the units of {name} have to be above 0, not {units}."
  return None


def match(
  book: RecipeBook, recipe: Recipe, given: Mapping[str, int], count: int, owned: Mapping[str, int]
) -> dict[str, int] | Misfit:
  """Whether `count` units can be made by one recipe of exactly what is given.

  Args:
    book: says what a tag stands for.
    recipe: the recipe.
    given: item -> units, as the agent named them.
    count: units to make in all.
    owned: the inventory.
  Returns:
    item -> units used up; or the first reason against it.
  """
  executions, rest = divmod(count, recipe.result_count)
  if rest:
    many = recipe.result_count
    return Misfit(f"not a multiple of {many}", f"it makes {many} at a time, {count} is not a multiple of that")
  needed = {name: quantity * executions for name, quantity in recipe.ingredients.items()}
  misfit = lambda full: Misfit(f"use {counts(needed)}", full)
  used = Counter()
  for name, units in needed.items():
    item = name
    if name.startswith(TAG):
      items = book.tagged(name)
      item = next((other for other, n in given.items() if other in items and n == units), None)
      if item is None:
        return misfit(f"nothing was given for {name}, it takes one of {', '.join(items) or 'no item there is'}")
    elif name not in given:
      return misfit(f"it takes {name} as well")
    elif given[name] != units:
      return misfit(f"wrong amount of {name}: it takes {units}, {given[name]} were given")
    used[item] += units
  extra = [name for name in given if name not in used]
  if extra:
    return misfit(f"it takes no {', '.join(extra)}")
  short = {name: units - owned.get(name, 0) for name, units in used.items() if units > owned.get(name, 0)}
  if short:
    owns = ", ".join(f"{name}: need {used[name]}, have {owned.get(name, 0)}" for name in short)
    return Misfit(f"short of {counts(short)}", f"not enough in the inventory ({owns})")
  return dict(used)


def information(book: RecipeBook, name: Any, owned: Mapping[str, int]) -> dict[str, Any]:
  """What `get_info` tells of one item; the values are the benchmark's."""

  def ingredient(part: str, units: int) -> int | dict[str, Any]:
    return {"count": units, "use_one_of": list(book.tagged(part))} if part.startswith(TAG) else units

  recipes = book.recipes_of(name)
  return {
    "item": name,
    "can_craft": bool(recipes),
    "is_base": name in book.base_items,
    "in_inventory": owned.get(name, 0),
    "crafting_depth": book.depth(name),
    "recipes": [
      {
        "ingredients": {part: ingredient(part, units) for part, units in recipe.ingredients.items()},
        "result_count": recipe.result_count,
      }
      for recipe in recipes
    ],
  }
