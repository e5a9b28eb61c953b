"""When agents of TextCraft-Synth delegate, and what they tell their children: of the trees that a run wrote. Pure."""

import collections
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rao_jax.envs.textcraft.script import read_info
from rao_jax.envs.textcraft.world import is_base_name, named_tier

_GOAL = re.compile(r"(\d+)x (\w+)")
DELEGABLE = 3  # goals from this tier on have ingredients that must be crafted themselves
ENOUGH, MORE, LESS = "an ingredient, as many as needed", "an ingredient, too many", "an ingredient, too few"
DEEPER, RAW, OWN, UNREAD = "an ingredient's ingredient", "raw material", "its own goal", "a name it has not read"


def delegation(lines: Iterable[str], max_depth: int) -> dict[str, Any]:
  """Of trees, a line of JSON each, grown under a cap of depth.

  Returns:
    `tiers`: tier of an agent's goal -> [agents, those that launched, those that succeeded]; `depth_left`: the same by
    how much deeper than an agent the cap lets the tree grow, for goals of tier 3 or more; `told`: what children were
    asked for -> children.
  """
  tiers = collections.defaultdict(lambda: [0, 0, 0])
  depth_left = collections.defaultdict(lambda: [0, 0, 0])
  told: collections.Counter[str] = collections.Counter()
  for line in lines:
    nodes = json.loads(line)["nodes"]
    parents = {node["parent"] for node in nodes}
    for i, node in enumerate(nodes):
      units, item = _GOAL.search(node["goal"]).groups()
      tier, seen = named_tier(item), (1, i in parents, node["success"] > 0)
      tiers[tier] = [a + b for a, b in zip(tiers[tier], seen)]
      if tier >= DELEGABLE:
        left = max_depth - node["depth"]
        depth_left[left] = [a + b for a, b in zip(depth_left[left], seen)]
      if node["parent"] >= 0:
        told[asked(item, int(units), nodes[node["parent"]])] += 1
  by_number = lambda counts: {str(key): counts[key] for key in sorted(counts)}
  return {"tiers": by_number(tiers), "depth_left": by_number(depth_left), "told": dict(told.most_common())}


def asked(item: str, units: int, parent: Mapping[str, Any]) -> str:
  """What a child's goal is to its parent, by the recipes that the parent has read."""
  goal_units, goal = _GOAL.search(parent["goal"]).groups()
  recipes = {name: recipe for turn in parent["turns"] for name, recipe in read_info(turn["output"]).items()}
  if item == goal:
    return OWN
  if is_base_name(item):
    return RAW
  result_count, ingredients = recipes.get(goal, (1, {}))
  if item in ingredients:
    needed = -(-int(goal_units) // result_count) * ingredients[item]
    return ENOUGH if units == needed else MORE if units > needed else LESS
  return DEEPER if any(item in parts for _, parts in recipes.values()) else UNREAD
