"""The crafting world as an environment: API functions, one inventory for the whole tree, success of every agent."""

import dataclasses
import inspect
import re
from collections import Counter
from typing import Any

from rao_jax.envs.base import Path, Refusal, Task
from rao_jax.envs.textcraft import compact, instructions
from rao_jax.envs.textcraft.crafting import Misfit, RecipeBook, argument_fault, information, match
from rao_jax.envs.textcraft.world import cached_world

_NAME = re.compile(r"[a-z0-9_]+")
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


class TextCraft:
  """TextCraft-Synth as an `Environment`. A variant with other recipes overrides `book`, `pieces`, `longest_name`."""

  functions = ("craft", "get_info", "view_inventory")
  pieces = compact.pieces(compact.SYNTH_NAMES)
  longest_name = 32  # characters of an item in a launch
  examples = ("m0_i1", "m0_i2")  # an ingredient and what is made of it, for the instructions

  def __init__(self, success: str = "produced", compact: bool = True, refuse_ancestor_goals: bool = True):
    """Args:
    success: "produced": units made minus units used up by the agent and its descendants. "delta": the change of
      the shared inventory while the agent was at work, the benchmark's rule, which also counts what siblings do.
    compact: short texts, cheap in tokens; otherwise sentences that tell what the benchmark's tell, and the repr a
      notebook shows.
    refuse_ancestor_goals: refuse a launch that asks for all that the agent itself or an ancestor has to make.
    """
    if success not in ("produced", "delta"):
      raise ValueError(f"success rule {success!r} is unknown: use 'produced' or 'delta'")
    self.success = success
    self.compact = compact
    self.refuse_ancestor_goals = refuse_ancestor_goals

  def book(self, task: Task) -> RecipeBook:
    """The recipes that hold in `task`."""
    data = task.data
    return cached_world(data["world_seed"], data["items_per_tier"], data["profile"], data.get("names", "generic"))

  def instructions(self, recursive: bool) -> str:
    """See `Environment`."""
    return instructions.text(self.examples, self.compact, recursive)

  def start(self, task: Task) -> "TextCraftEpisode":
    return TextCraftEpisode(self, self.book(task), task)


class TextCraftEpisode:
  """The live world of one tree. `inventory` is shared by all its agents."""

  def __init__(self, rules: TextCraft, book: RecipeBook, task: Task):
    self.rules = rules
    self.book = book
    self.inventory: dict[str, int] = dict(task.data["inventory"])
    self._root = TextCraftGoal(tuple(task.data["targets"].items()))
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
      if not isinstance(name, str) or len(name) > self.rules.longest_name or not _NAME.fullmatch(name):
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
    return compact.render(value) if self.rules.compact else repr(value)

  def _error(self, short: str, full: str) -> str:
    return f"Error: {short if self.rules.compact else full}"

  def _view_inventory(self, path: Path) -> dict[str, int]:
    return dict(self.inventory)

  def _get_info(self, path: Path, items: list[str]) -> list[dict[str, Any]] | str:
    """What is known of each item. The benchmark reads a bare text letter by letter; in compact form it is refused."""
    kinds = (list, tuple) if self.rules.compact else (list, tuple, str, dict, set, frozenset)
    if not isinstance(items, kinds) or not all(isinstance(item, str) for item in items):
      return self._error("bad arguments", "get_info takes a list of item names.")
    return [information(self.book, item, self.inventory) for item in items]

  def _craft(self, path: Path, ingredients: dict[str, int], target: tuple[str, int]) -> str:
    """Makes `target` = (item, units) by the first recipe that takes exactly what is given. Errors change nothing."""
    fault = argument_fault(ingredients, target)
    if fault:
      return self._error("bad arguments", fault)
    item, count = target
    recipes = self.book.recipes_of(item)
    if not recipes:
      return self._error("no recipe", f"{item} cannot be crafted, it has no recipe.")
    misfits = []
    for recipe in recipes:
      used = match(self.book, recipe, ingredients, count, self.inventory)
      if isinstance(used, Misfit):
        misfits.append(used)
        continue
      for name, units in used.items():
        self._add(path, name, -units)
      self._add(path, item, int(count))
      return "ok" if self.rules.compact else f"Crafted {count}x {item}."
    reasons = "\n".join(f"Recipe {k}: {misfit.full}." for k, misfit in enumerate(misfits, 1))
    return self._error(
      " or ".join(dict.fromkeys(misfit.short for misfit in misfits)),
      f"{item} was not crafted, no recipe of {len(recipes)} fits:\n{reasons}",
    )

  def _add(self, path: Path, name: str, units: int) -> None:
    """Books a change of the inventory for the agent at `path` and all above it."""
    total = self.inventory.get(name, 0) + units
    if total:
      self.inventory[name] = total
    else:
      self.inventory.pop(name, None)
    for i in range(len(path) + 1):
      self._net.setdefault(path[:i], Counter())[name] += units


def _launch_arguments(targets, context=""):
  return targets, context
