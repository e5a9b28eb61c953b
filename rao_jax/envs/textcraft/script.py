"""Scripted agents: demonstrators to clone and a yardstick. They know what they have read in outputs, nothing else.

An agent is a generator: it yields the code of a cell, is sent the output that cell showed, and ends after a cell that
calls `finish`. All of them write in one compact style, so that `pieces` makes each fixed fragment a single token.
"""

import dataclasses
import functools
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from typing import Any

from rao_jax.envs.textcraft import world as world_lib
from rao_jax.envs.textcraft.env import TextCraft
from rao_jax.envs.textcraft.world import is_base_name, named_tier

Agent = Generator[str, str, None]

# --- the style of a cell ----------------------------------------------------------------------------------------------


def count_tokens(text: str) -> int:
  """Tokens of a text when the longest piece that fits is taken each time, and one per byte where none does."""
  longest, table = _piece_table()
  tokens = i = 0
  while i < len(text):
    size = next((n for n in range(min(longest, len(text) - i), 1, -1) if text[i : i + n] in table), 1)
    tokens += len(text[i].encode()) if size == 1 and text[i] not in table else 1
    i += size
  return tokens


@functools.cache
def _piece_table() -> tuple[int, frozenset[str]]:
  table = frozenset(TextCraft.pieces)
  return max(map(len, table)), table


def info_code(names: Iterable[str]) -> str:
  return "get_info([" + ",".join(f'"{name}"' for name in names) + "])"


def launch_code(launches: Iterable[tuple[str, str]]) -> str:
  """One child for each (item, amount expression), side by side."""
  calls = [f'launch_subagent({{"{name}":{amount}}})' for name, amount in launches]
  return f"await {calls[0]}" if len(calls) == 1 else f"await asyncio.gather({','.join(calls)})"


def craft_code(name: str, count: str | int, ingredients: dict[str, Any]) -> str:
  amounts = ",".join(f'"{ingredient}":{amount}' for ingredient, amount in ingredients.items())
  return f'craft({{{amounts}}},("{name}",{count}))'


_INFO = re.compile(r"(\w+)\*(\d+)=(\{.*\})")


def read_info(shown: str) -> dict[str, tuple[int, dict[str, int]]]:
  """Recipes in an output of `get_info`: item -> (result count, ingredients). Other items are left out."""
  found = (_INFO.fullmatch(line) for line in shown.split("\n"))
  return {line[1]: (int(line[2]), json.loads(line[3])) for line in found if line}


def read_counts(shown: str, opening: str) -> dict[str, int]:
  """The counts an error names, `Error: short of {...}`; empty if it is another text, or cut where the context ends."""
  start = f"Error: {opening} "
  return json.loads(shown[len(start) :]) if shown.startswith(start) and shown.endswith("}") else {}


# --- demonstrators ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Slips:
  """How a demonstrator falls short; all defaults together are the perfect recursive agent.

  Attributes:
    delegate: probability, at each recipe it opens, to launch agents for the craftable ingredients; otherwise it makes
      them itself.
    alone: highest tier, as names tell it, of ingredients that it makes itself even where it delegates.
    quantity: of a launch or craft to get one amount wrong.
    factor: of a launch or craft to leave out the number of executions.
    ingredient: of a recipe to forget making one ingredient.
    early: of a recipe to finish as done in place of the craft.
    base: of a launch to ask for raw material as well.
    unknown: of a launch to ask for a name that does not exist in place of one ingredient.
    one_by_one: of launches to go in a cell each in place of side by side.
    give_up: after a failed child or craft to finish as failed at once in place of one more try.
  """

  delegate: float = 1.0
  alone: int = 0
  quantity: float = 0.0
  factor: float = 0.0
  ingredient: float = 0.0
  early: float = 0.0
  base: float = 0.0
  unknown: float = 0.0
  one_by_one: float = 0.0
  give_up: float = 0.0


PERFECT = Slips()


def recursive(goal, rng: random.Random, slips: Slips = PERFECT) -> Agent:
  """Looks its item up, has agents make the ingredients, crafts, finishes."""
  return _Demonstrator(rng, slips).run(goal)


def inline(goal, rng: random.Random, slips: Slips = PERFECT) -> Agent:
  """Makes everything itself, depth first; never launches."""
  return _Demonstrator(rng, dataclasses.replace(slips, delegate=0.0)).run(goal)


class _Early(Exception):
  """The slip of finishing before the work is done."""


class _Demonstrator:
  """State of one demonstrating agent: recipes read, and assignments that wait for the next cell."""

  def __init__(self, rng: random.Random, slips: Slips):
    self.rng = rng
    self.slips = slips
    self.known: dict[str, tuple[int, dict[str, int]]] = {}
    self.waiting: list[str] = []
    self.has_retried = False
    self.is_refused = False  # a launch was: from then on it works alone

  def run(self, goal) -> Agent:
    try:
      for name, count in goal.targets:
        if not (yield from self.make(name, str(count), 0)):
          yield 'finish("failed")'
          return
    except _Early:
      pass
    yield 'finish("done")'

  def slip(self, probability: float) -> bool:
    # Without a draw where it cannot happen, so that a knob left at 0 changes no other draw.
    return probability > 0 and self.rng.random() < probability

  def wants_to_delegate(self) -> bool:
    return not self.is_refused and self.rng.random() < self.slips.delegate

  def cell(self, code: str) -> Generator[str, str, str]:
    lines, self.waiting = self.waiting, []
    return (yield "\n".join([*lines, code]))

  def make(self, name: str, amount: str, level: int) -> Generator[str, str, bool]:
    """Makes `amount` (an expression) units of `name`; `level` tells how far down its own work it is."""
    if name not in self.known:
      self.known.update(read_info((yield from self.cell(info_code([name])))))
    if name not in self.known:
      return False
    result_count, ingredients = self.known[name]
    factor = "k" if level == 0 else f"k{level - 1}"
    self.waiting.append(f"{factor}=-(-{amount}//{result_count})")
    if len(self.waiting) > 2:  # keeps cells short where recipes known already follow each other
      lines, self.waiting = self.waiting, []
      yield "\n".join(lines)
    parts = {part: quantity for part, quantity in ingredients.items() if not is_base_name(part)}
    if parts and self.slip(self.slips.ingredient):
      parts.pop(self.rng.choice(list(parts)))
    can_go_on = True
    if self.wants_to_delegate():
      large = {part: quantity for part, quantity in parts.items() if named_tier(part) > self.slips.alone}
      can_go_on = yield from self.delegate(large, ingredients, factor, level)
      parts = {part: quantity for part, quantity in parts.items() if part not in large}
    for part, quantity in parts.items():
      can_go_on = can_go_on and (yield from self.make(part, f"{factor}*{quantity}", level + 1))
    if not can_go_on:
      return False
    if self.slip(self.slips.early):
      self.waiting.clear()
      raise _Early
    return (yield from self.craft(name, result_count, ingredients, factor, level))

  def delegate(self, parts, ingredients, factor: str, level: int) -> Generator[str, str, bool]:
    """Launches an agent for each part, and once more for those that failed; makes them itself if refused."""
    launches = self.amounts(parts, factor)
    if self.slip(self.slips.base):
      base = [name for name in ingredients if is_base_name(name)] or [_some_base(self.rng)]
      launches[base[0]] = f"{factor}*{ingredients.get(base[0], 1)}"
    if launches and self.slip(self.slips.unknown):
      wrong = self.rng.choice(list(launches))
      launches = {(_some_unknown(self.rng, n) if n == wrong else n): amount for n, amount in launches.items()}
    if not launches:
      return True
    failed = yield from self.launch(list(launches.items()))
    if not failed:
      return True
    again = {name: quantity for name, quantity in parts.items() if name in failed or name not in launches}
    if not again:
      return True  # only what was asked for by mistake failed
    return (yield from self.retry({name: f"{factor}*{quantity}" for name, quantity in again.items()}, level))

  def launch(self, launches: list[tuple[str, str]]) -> Generator[str, str, set[str]]:
    """Launches side by side or one by one; the names whose agents did not say done."""
    groups = [launches]
    if len(launches) > 1 and self.slip(self.slips.one_by_one):
      groups = [[launch] for launch in launches]
    failed = set()
    for group in groups:
      answers = (yield from self.cell(launch_code(group))).split(",")
      if len(answers) != len(group):
        answers = [",".join(answers)] * len(group)
      for (name, _), answer in zip(group, answers):
        if answer != "done":
          failed.add(name)
        self.is_refused = self.is_refused or answer.startswith("Error")
    return failed

  def retry(self, amounts: dict[str, str], level: int) -> Generator[str, str, bool]:
    """The one further try of an agent: once more by launch where it delegates, else by its own hands."""
    if self.has_retried or self.slip(self.slips.give_up):
      return False
    self.has_retried = True
    if self.wants_to_delegate():
      return not (yield from self.launch(list(amounts.items())))
    for name, amount in amounts.items():
      if not (yield from self.make(name, amount, level + 1)):
        return False
    return True

  def craft(self, name, result_count, ingredients, factor: str, level: int) -> Generator[str, str, bool]:
    amounts = self.amounts(ingredients, factor)
    count = f"{factor}*{result_count}"
    if all("*" not in amount for amount in amounts.values()):
      count = str(result_count)
    shown = yield from self.cell(craft_code(name, count, amounts))
    short = read_counts(shown, "short of")
    wanted = {part: str(units) for part, units in short.items() if not is_base_name(part)}
    if read_counts(shown, "use"):
      if self.has_retried or self.slip(self.slips.give_up):
        return False
      self.has_retried = True
    elif not wanted or len(wanted) < len(short) or not (yield from self.retry(wanted, level)):
      return shown == "ok"
    if shown == "ok":
      return True
    right = {part: f"{factor}*{quantity}" for part, quantity in ingredients.items()}
    return (yield from self.cell(craft_code(name, f"{factor}*{result_count}", right))) == "ok"

  def amounts(self, quantities: dict[str, int], factor: str) -> dict[str, str]:
    """Amount expressions for one launch or craft, with the slips of arithmetic."""
    quantities = dict(quantities)
    if quantities and self.slip(self.slips.quantity):
      name = self.rng.choice(list(quantities))
      quantities[name] = self.rng.choice([n for n in (1, 2, 3) if n != quantities[name]])
    if self.slip(self.slips.factor):
      return {name: str(quantity) for name, quantity in quantities.items()}
    return {name: f"{factor}*{quantity}" for name, quantity in quantities.items()}


def _some_base(rng: random.Random) -> str:
  return world_lib.base_name(rng.choice(world_lib.DOMAINS), rng.randrange(world_lib.PREFIXES))


def _some_unknown(rng: random.Random, name: str) -> str:
  """A name that exists in no world: a miscopy of `name`, or any shape a name can have, of any tier."""
  prefix = f"{rng.choice(world_lib.DOMAINS)}{rng.randrange(10)}"
  tier, other = rng.sample(range(1, 10), 2)
  # A tier's number stands twice from tier 6 on and once below; index suffixes start at 10.
  wrong_shapes = [f"{prefix}_i{tier}_{other}", f"{prefix}_i0", f"{prefix}_i{rng.randint(6, 9)}"]
  wrong_shapes.append(f"{prefix}_i{rng.randint(1, 5)}_{rng.randrange(10)}")
  wrong_shapes.append(f"raw_{prefix}" if prefix[0] in world_lib.MINERAL else f"{prefix}_ore")
  if "_i" in name:
    body, _, suffix = name.partition("_i")
    tier = int(suffix.split("_")[0])
    wrong_shapes.append(f"{body}_i{tier}" if tier >= 6 else f"{body}_i{tier}_{tier}")
  return rng.choice(wrong_shapes)


# --- the yardstick ----------------------------------------------------------------------------------------------------


def oracle_single(goal, cell_cap: int = 64) -> Agent:
  """The best a single agent does by plain calls: reads each recipe once, crafts each item once, in bulk.

  It fills its cells up to `cell_cap` tokens, and writes numbers where a policy would have to compute them.
  """
  recipes: dict[str, tuple[int, dict[str, int]]] = {}
  unread = list(dict(goal.targets))
  while unread:
    batch = _as_many(unread, lambda names: info_code(names), cell_cap)
    found = read_info((yield info_code(batch)))
    if len(found) < len(batch):
      yield 'finish("failed")'
      return
    recipes.update(found)
    parts = [part for _, ingredients in found.values() for part in ingredients]
    unread = unread[len(batch) :]
    unread += [n for n in dict.fromkeys(parts) if n not in recipes and n not in unread and not is_base_name(n)]
  lines = [*_bulk_crafts(recipes, dict(goal.targets)), 'finish("done")']
  while lines:
    batch = _as_many(lines, lambda lines: "\n".join(lines), cell_cap)
    lines = lines[len(batch) :]
    if (yield "\n".join(batch)) != "ok" and lines:
      yield 'finish("failed")'
      return


def _as_many(parts: list[str], code: Callable[[list[str]], str], cell_cap: int) -> list[str]:
  """The longest beginning of `parts` (one at least) whose code and end token fit a cell."""
  n = 1
  while n < len(parts) and count_tokens(code(parts[: n + 1])) + 1 <= cell_cap:
    n += 1
  return parts[:n]


def _bulk_crafts(recipes: dict[str, tuple[int, dict[str, int]]], targets: dict[str, int]) -> list[str]:
  """Craft calls for `targets`, ingredients first, each item once."""
  users = Counter(part for _, ingredients in recipes.values() for part in ingredients)
  ready = [name for name in recipes if not users[name]]
  wanted = Counter(targets)
  crafts = []
  while ready:
    name = ready.pop()
    result_count, ingredients = recipes[name]
    executions = -(-wanted[name] // result_count)
    amounts = {part: executions * quantity for part, quantity in ingredients.items()}
    crafts.append(craft_code(name, executions * result_count, amounts))
    for part, units in amounts.items():
      wanted[part] += units
      users[part] -= 1
      if part in recipes and not users[part]:
        ready.append(part)
  return crafts[::-1]
