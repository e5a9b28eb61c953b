"""A scripted agent for Minecraft's recipes: reads the stock and what recipes it needs, plans on paper, crafts."""

import functools
import json
import random
import re
from collections import Counter

from rao_jax.envs.base import Demonstrator
from rao_jax.envs.textcraft.crafting import TAG
from rao_jax.envs.textcraft.script import Agent, craft_code, info_code, launch_code

CRAFTS_PER_CELL = 2  # keeps cells short

_RECIPE = re.compile(r"(\w+)\*(\d+)=(\{.*\})")
_TAGGED = re.compile(rf"({TAG}\w+)=(\[.*\])")


def demonstrator(name: str, **slips: float) -> Demonstrator:
  if name not in ("recursive", "inline"):
    raise ValueError(f"config.warm_start.demonstrator={name!r}: choose one of ['inline', 'recursive']")
  if slips.keys() - {"delegate"}:
    raise ValueError(f"config.warm_start.slips={sorted(slips)}: the only one of this environment is 'delegate'")
  return functools.partial(recursive, **slips) if name == "recursive" else functools.partial(recursive, delegate=0.0)


def recursive(goal, rng: random.Random, delegate: float = 1.0) -> Agent:
  """With probability `delegate` launches an agent for each of several targets; otherwise makes them itself."""
  if len(goal.targets) > 1 and rng.random() < delegate:
    can = True
    for name, count in goal.targets:
      can = can and (yield launch_code([(name, str(count))])) == "done"
    yield _finish(can)
    return
  planner = _Planner()
  can = yield from planner.plan(goal.targets)
  for i in range(0, len(planner.crafts) if can else 0, CRAFTS_PER_CELL):
    can = can and (yield "\n".join(planner.crafts[i : i + CRAFTS_PER_CELL])) == "ok"
  yield _finish(can)


def _finish(can: bool) -> str:
  return 'finish("done")' if can else 'finish("failed")'


class _Planner:
  """A search for crafts, which looks recipes up when it comes to them. `stock` is what the plan so far leaves."""

  def __init__(self):
    self.stock: Counter = Counter()
    self.crafts: list[str] = []
    self.recipes: dict[str, list[tuple[int, dict[str, int]]]] = {}
    self.tags: dict[str, list[str]] = {}

  def plan(self, targets):
    """Whether all targets can be made, on top of what is owned."""
    shown = yield "view_inventory()"
    try:
      self.stock.update(json.loads(shown))
    except ValueError:  # cut at its cap
      return False
    for name, count in targets:
      if not (yield from self.make(name, count, frozenset())):
        return False
    return True

  def take(self, name: str, units: int, above: frozenset[str]):
    """Whether `units` of an ingredient can be had, from stock or else made."""
    if self.stock[name] >= units:
      self.stock[name] -= units
      return True
    missing = units - self.stock[name]
    owned, self.stock[name] = self.stock[name], 0
    if (yield from self.make(name, missing, above)):
      return True
    self.stock[name] = owned
    return False

  def make(self, name: str, units: int, above: frozenset[str]):
    """Whether `units` can be made by one of the item's recipes; `above` are the items that they are for."""
    if name in above:
      return False
    yield from self.look_up([name])
    for result_count, ingredients in self.recipes[name]:
      before = self.stock.copy(), len(self.crafts)
      executions = -(-units // result_count)
      amounts = {}
      for part, quantity in ingredients.items():
        needed = quantity * executions
        item = yield from self.choose(part, needed, above | {name})
        if item is None:
          break
        amounts[item] = needed
      else:
        self.crafts.append(craft_code(name, executions * result_count, amounts))
        self.stock[name] += executions * result_count - units
        return True
      self.stock, self.crafts = before[0], self.crafts[: before[1]]
    return False

  def choose(self, part: str, units: int, above: frozenset[str]):
    """The item taken for an ingredient: for a tag the one of which most is owned, or the first that can be made."""
    items = [part]
    if part.startswith(TAG):
      items = sorted(self.tags.get(part, ()), key=lambda item: -self.stock[item])
      if items and self.stock[items[0]] < units:
        yield from self.look_up(items)
    for item in items:
      if (yield from self.take(item, units, above)):
        return item
    return None

  def look_up(self, names):
    unread = [name for name in names if name not in self.recipes]
    for i in range(0, len(unread), 4):
      batch = unread[i : i + 4]
      self.recipes.update({name: [] for name in batch})
      for line in (yield info_code(batch)).split("\n"):
        if found := _RECIPE.fullmatch(line):
          self.recipes[found[1]].append((int(found[2]), json.loads(found[3])))
        elif found := _TAGGED.fullmatch(line):
          self.tags[found[1]] = json.loads(found[2])
