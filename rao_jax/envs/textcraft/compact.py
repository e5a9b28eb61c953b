"""The short texts: cheap in tokens, easy to copy from. A tokenizer for them makes each fixed fragment one token."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rao_jax.envs.textcraft import world as world_lib

_INFO_KEYS = {"item", "can_craft", "is_base", "recipes"}


def pieces(names: Iterable[str]) -> tuple[str, ...]:
  """Texts worth one token each: all that scripts and outputs have in common, and the parts that `names` consist of."""
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
  return tuple(dict.fromkeys(prompt + calls + outputs + errors + tuple(names)))


# A name of `World` is three tokens, letter, digit and tier: 27 tokens to learn to copy, whatever the names are. Digits
# stay single, so that numbers and names can be copied.
SYNTH_NAMES = (
  *world_lib.DOMAINS,
  *(world_lib.tier_suffix(tier) for tier in range(1, world_lib.MAX_TIER + 1)),
  *("raw_", "_ore", "_i", "_"),
)
# With 25 items a tier names differ by an ending, m2_i2 and m2_i2_12, and piece by piece the one is easily given that of
# the other: these are two tokens, m2 and all that follows.
PAIRED_NAMES = (
  *(prefix for domain in world_lib.DOMAINS for prefix in world_lib.NAMINGS["generic"][0][domain]),
  *(
    world_lib.tier_suffix(tier) + number
    for tier in range(1, world_lib.MAX_TIER + 1)
    for number in ("", *(f"_{i}" for i in range(world_lib.PREFIXES, 25)))
  ),
)


def render(value: Any) -> str:
  """A cell's last value: what `get_info` returned as lines to copy, counts as JSON, texts bare."""
  if isinstance(value, str):
    return value
  if isinstance(value, list | tuple) and value:
    if all(isinstance(part, str) for part in value):
      return ",".join(value)  # what the children of a gather sent back
    if all(isinstance(part, dict) and part.keys() >= _INFO_KEYS for part in value):
      return "\n".join(_info_lines(part) for part in value)
  if isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, int) for k, v in value.items()):
    return counts(value)
  return repr(value)


def counts(amounts: Mapping[str, int]) -> str:
  return json.dumps(amounts, separators=(",", ":"))


def _info_lines(info: dict[str, Any]) -> str:
  """`m0_i3*2={"m0_i2":1,"m3_ore":2}`, a line for each recipe: the braces can be copied into a craft.

  What may stand for a tag follows on a line of its own: `tag:coals=["coal"]`.
  """
  if not info["recipes"]:
    return f"{info['item']} {'base' if info['is_base'] else 'unknown'}"
  lines, tags = [], {}
  for recipe in info["recipes"]:
    amounts = {}
    for name, amount in recipe["ingredients"].items():
      if isinstance(amount, dict):
        tags[name] = json.dumps(amount["use_one_of"], separators=(",", ":"))
      amounts[name] = amount["count"] if isinstance(amount, dict) else amount
    lines.append(f"{info['item']}*{recipe['result_count']}={counts(amounts)}")
  return "\n".join(lines + [f"{tag}={items}" for tag, items in tags.items()])
