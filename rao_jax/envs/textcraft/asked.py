"""What a user's own words ask to be crafted."""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Sequence

_MOST_UNITS = 1000
_ASKED = re.compile(r"(?:\b(\d+)\s*x?\s+(?:of\s+)?(?:items?\s+)?)?\b([a-z]\w*)")


def asked_items(text: str, craftable: Collection[str], world: str, examples: Sequence[str]) -> dict[str, int]:
  """Item -> units of `craft 2 of m0_i3` or `2x m0_i3, 1x c1_i2`.

  A word is an item if it can be crafted, has a `_` in it or a number before it.

  Args:
    text: what the user wrote.
    craftable: items that can be asked for.
    world: what errors call the place.
    examples: items that errors name; the first one stands for any.
  Raises:
    ValueError: it says what can be crafted instead, or how to ask.
  """
  wanted = Counter()
  for units, item in _ASKED.findall(text):
    if item in craftable:
      wanted[item] += int(units or 1)
    elif units or "_" in item:
      near = difflib.get_close_matches(item, craftable, 3) or examples
      raise ValueError(f"{world} can craft no {item!r}: it can craft {', '.join(near)}, ...")
  if not wanted or not all(0 < units <= _MOST_UNITS for units in wanted.values()):
    raise ValueError(
      f"{text!r} asks for nothing to craft: name items of {world}, 1 to {_MOST_UNITS} of each, as "
      f"'craft 2 of {examples[0]}'"
    )
  return dict(wanted)
