"""The crafting world as an environment: API functions, one inventory for the whole tree, success of every agent."""

import dataclasses
import inspect
import json
import re
from collections import Counter
from typing import Any

from rao_jax.envs.base import Path, Refusal, Task
from rao_jax.envs.textcraft import world as world_lib
from rao_jax.envs.textcraft.world import World, cached_world

_NAME = re.compile(r"[a-z0-9_]{1,32}")
_MOST_UNITS = 10**7  # of one item in one goal: keeps a runaway number from filling the prompt


@dataclasses.dataclass(frozen=True)
class TextCraftGoal:
  """What one agent has to make, on top of what is there when it starts.

  Attributes:
    targets: (item, units), in the order asked for.
    context: what the parent wants the agent to know; may be empty.
  """

  targets: tuple[tuple[str, int], ...]
  context: str = ""


def pieces() -> tuple[str, ...]:
  """Texts worth one token each, for every world. Digits stay single, so that numbers and names can be copied."""
  prompt = ("Craft the following items: ", "x ", ", ")
  calls = (
    'get_info(["',
    '","',
    '"])',
    'await launch_subagent({"',
    'await asyncio.gather(launch_subagent({"',
    '}),launch_subagent({"',
    "}))",
    "})",
    'craft({"',
    '":k*',
    '":k',
    '":',
    ',"',
    '},("',
    '",k*',
    '",k',
    '",',
    "))",
    ")",
    'finish("done")',
    'finish("failed")',
    "k=-(-",
    "=-(-",
    "k*",
    "k",
    "*",
    "//",
    ")\n",
    "\n",
    ",",
  )
  outputs = ('={"', "}", " base", " unknown", "done", "failed", "done,done", "ok", "Error: ", 'short of {"', 'use {"')
  errors = ("no recipe", "not a multiple of ", "bad arguments", "own goal")
  # A name is three tokens, letter, digit and tier: 27 tokens to learn to copy, whatever the names are.
  tiers = tuple(world_lib.tier_suffix(tier) for tier in range(1, world_lib.MAX_TIER + 1))
  return prompt + calls + outputs + errors + (*world_lib.DOMAINS, *tiers, "raw_", "_ore", "_i", "_")


class TextCraft:
  """TextCraft-Synth as an `Environment`."""

  functions = ("craft", "get_info", "view_inventory")
  pieces = pieces()

  def __init__(self, success: str = "produced", compact: bool = True, refuse_ancestor_goals: bool = True):
    """Args:
    success: "produced": units made minus units used up by the agent and its descendants. "delta": the change of
      the shared inventory while the agent was at work, the benchmark's rule, which also counts what siblings do.
    compact: short texts, cheap in tokens; otherwise sentences and the repr a notebook shows.
    refuse_ancestor_goals: refuse a launch that asks for all that the agent itself or an ancestor has to make.
    """
    if success not in ("produced", "delta"):
      raise ValueError(f"success rule {success!r} is unknown: use 'produced' or 'delta'")
    self.success = success
    self.compact = compact
    self.refuse_ancestor_goals = refuse_ancestor_goals

  def start(self, task: Task) -> "TextCraftEpisode":
    return TextCraftEpisode(self, task)


class TextCraftEpisode:
  """The live world of one tree. `inventory` is shared by all its agents."""

  def __init__(self, rules: TextCraft, task: Task):
    data = task.data
    self.rules = rules
    self.world: World = cached_world(data["world_seed"], data["items_per_tier"], data["profile"])
    self.inventory: dict[str, int] = dict(data["inventory"])
    self._root = TextCraftGoal(tuple(data["targets"].items()))
    self._goals: dict[Path, TextCraftGoal] = {}
    self._before: dict[Path, dict[str, int]] = {}  # inventory when the agent started
    self._net: dict[Path, Counter] = {}  # made minus used up, by the agent and all below it

  def root_goal(self) -> TextCraftGoal:
    return self._root

  def prompt(self, goal: TextCraftGoal) -> str:
    text = "Craft the following items: " + ", ".join(f"{count}x {name}" for name, count in goal.targets)
    return f"{text}\n\nContext from the parent agent: {goal.context}" if goal.context else text

  def begin(self, path: Path, goal: TextCraftGoal) -> None:
    self._goals[path] = goal
    self._net[path] = Counter()
    if self.rules.success == "delta":
      self._before[path] = dict(self.inventory)

  def end(self, path: Path, message: Any) -> float:
    """1 if the agent finished with a message that is not empty and all its targets are there, else 0."""
    if not message or path not in self._goals:
      return 0.0
    return float(all(self._gained(path, name) >= count for name, count in self._goals[path].targets))

  def _gained(self, path: Path, name: str) -> int:
    if self.rules.success == "produced":
      return self._net[path][name]
    return self.inventory.get(name, 0) - self._before[path].get(name, 0)

  def call(self, path: Path, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    if name not in TextCraft.functions:
      return f"Error: no function {name}"
    function = {"craft": self._craft, "get_info": self._get_info, "view_inventory": self._view_inventory}[name]
    try:
      inspect.signature(function).bind(path, *args, **kwargs)
    except TypeError:
      return self._error("bad arguments", f"{name} was called with the wrong arguments.")
    return function(path, *args, **kwargs)

  def subgoal(self, path: Path, args: tuple, kwargs: dict[str, Any]) -> TextCraftGoal | Refusal:
    def refuse(short, full):
      return Refusal(self._error(short, full))

    try:
      targets, context = _launch_arguments(*args, **kwargs)
    except TypeError:
      return refuse("bad arguments", "launch_subagent takes targets (a dict of item to units) and a context text.")
    if not isinstance(targets, dict) or not targets:
      return refuse("bad targets", "targets has to be a dict of item to units with at least one entry.")
    for name, count in targets.items():
      if not isinstance(name, str) or not _NAME.fullmatch(name):
        return refuse("bad name", "an item name is made of small letters, digits and underscores.")
      if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= _MOST_UNITS:
        return refuse("bad count", f"the units of {name} have to be a whole number from 1 to {_MOST_UNITS}.")
    if not isinstance(context, str):
      return refuse("bad context", "context has to be a text.")
    if self.rules.refuse_ancestor_goals:
      for i in range(len(path), -1, -1):
        own = self._goals.get(path[:i])
        if own and targets.keys() >= {name for name, _ in own.targets}:
          return refuse("own goal", "this is what you or an agent above you has to make: break it down instead.")
    return TextCraftGoal(tuple((name, int(count)) for name, count in targets.items()), context)

  def render(self, value: Any) -> str:
    if value is None:
      return ""
    if not self.rules.compact:
      return repr(value)
    if isinstance(value, str):
      return value
    if isinstance(value, list | tuple) and value:
      if all(isinstance(part, str) for part in value):
        return ",".join(value)  # what the children of a gather sent back
      if all(isinstance(part, dict) and part.keys() >= _INFO_KEYS for part in value):
        return "\n".join(_info_line(part) for part in value)
    if isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, int) for k, v in value.items()):
      return _counts(value)
    return repr(value)

  def _error(self, short: str, full: str) -> str:
    return f"Error: {short if self.rules.compact else full}"

  def _view_inventory(self, path: Path) -> dict[str, int]:
    return dict(self.inventory)

  def _get_info(self, path: Path, items: list[str]) -> list[dict[str, Any]] | str:
    """What is known of each item. A bare text would be read letter by letter, so it is refused."""
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
      return self._error("bad arguments", "get_info takes a list of item names.")
    return [self._info(item) for item in items]

  def _info(self, item: str) -> dict[str, Any]:
    recipe = self.world.recipes.get(item)
    recipes = [{"ingredients": dict(recipe.ingredients), "result_count": recipe.result_count}] if recipe else []
    return {
      "item": item,
      "can_craft": recipe is not None,
      "is_base": item in self.world.base_items,
      "in_inventory": self.inventory.get(item, 0),
      "crafting_depth": self.world.depth(item),
      "recipes": recipes,
    }

  def _craft(self, path: Path, ingredients: dict[str, int], target: tuple[str, int]) -> str:
    """Makes `target` = (item, units) out of exactly what the recipe asks for that many. Errors change nothing."""
    fault = _argument_fault(ingredients, target)
    if fault:
      return self._error("bad arguments", fault)
    item, count = target
    recipe = self.world.recipes.get(item)
    if recipe is None:
      return self._error("no recipe", f"{item} cannot be crafted, it has no recipe.")
    executions, rest = divmod(count, recipe.result_count)
    if rest:
      return self._error(
        f"not a multiple of {recipe.result_count}",
        f"Recipe 1: makes {recipe.result_count} at a time, {count} is not a multiple of that.",
      )
    needed = {name: quantity * executions for name, quantity in recipe.ingredients.items()}
    if ingredients != needed:
      return self._error(f"use {_counts(needed)}", f"Recipe 1: {_mismatch(ingredients, needed)}.")
    short = {name: units - self.inventory.get(name, 0) for name, units in needed.items()}
    short = {name: units for name, units in short.items() if units > 0}
    if short:
      owned = "; ".join(f"{name}: need {needed[name]}, have {self.inventory.get(name, 0)}" for name in short)
      return self._error(f"short of {_counts(short)}", f"Recipe 1: not enough in the inventory ({owned}).")
    for name, units in needed.items():
      self._add(path, name, -units)
    self._add(path, item, int(count))
    return "ok" if self.rules.compact else f"Crafted {count}x {item}."

  def _add(self, path: Path, name: str, units: int) -> None:
    """Books a change of the inventory for the agent at `path` and all above it."""
    total = self.inventory.get(name, 0) + units
    if total:
      self.inventory[name] = total
    else:
      self.inventory.pop(name, None)
    for i in range(len(path) + 1):
      self._net.setdefault(path[:i], Counter())[name] += units


_INFO_KEYS = {"item", "can_craft", "is_base", "recipes"}


def _info_line(info: dict[str, Any]) -> str:
  """`m0_i3*2={"m0_i2":1,"m3_ore":2}`: the braces can be copied into a craft."""
  if info["recipes"]:
    return "\n".join(f"{info['item']}*{r['result_count']}={_counts(r['ingredients'])}" for r in info["recipes"])
  return f"{info['item']} {'base' if info['is_base'] else 'unknown'}"


def _counts(counts: dict[str, int]) -> str:
  return json.dumps(counts, separators=(",", ":"))


def _launch_arguments(targets, context=""):
  return targets, context


def _argument_fault(ingredients: Any, target: Any) -> str | None:
  """What is wrong with the arguments of a craft, whatever the recipe; None if nothing is."""
  if not isinstance(ingredients, dict):
    return "ingredients has to be a dict of item to units."
  if not isinstance(target, tuple | list) or len(target) != 2:
    return "target has to be a tuple of an item and its units."
  item, count = target
  if not isinstance(item, str):
    return "the target item has to be a text."
  if not isinstance(count, int):
    return "the target's units have to be a whole number."
  if count <= 0:
    return "the target's units have to be above 0."
  for name, units in ingredients.items():
    if not isinstance(name, str):
      return "an ingredient has to be a text."
    if not isinstance(units, int):
      return f"the units of {name} have to be a whole number."
    if units <= 0:
      return f"the units of {name} have to be above 0."
  return None


def _mismatch(given: dict[str, int], needed: dict[str, int]) -> str:
  """How the ingredients given differ from those needed: missing ones first, then amounts, then extra ones."""
  missing = [f"{name} ({units})" for name, units in needed.items() if name not in given]
  if missing:
    return f"needs {', '.join(missing)} as well"
  wrong = [f"{name}: needs {units}, got {given[name]}" for name, units in needed.items() if given[name] != units]
  if wrong:
    return f"wrong amounts ({'; '.join(wrong)})"
  return f"does not use {', '.join(name for name in given if name not in needed)}"
