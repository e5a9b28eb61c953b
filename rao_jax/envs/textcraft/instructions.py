"""What a chat model is told of the crafting world."""

_WORLD = """\
You are an agent in a world of crafting. A goal names items and how many units of each to make. Those are units on top \
of what is there when you start: asked for 3 units of an item of which there are 2, see to it that there are 5. The \
inventory holds all the raw material that is needed; whatever lies between it and your goal has to be crafted first.

A recipe makes a fixed number of units at a time, its result_count. Craft a multiple of that, and give the ingredients \
of one time as many times over. Look recipes up, they cannot be guessed, and leave the arithmetic to Python.

These functions are there:
get_info(items: list[str]) -> list[dict]: for each item: item, can_craft, is_base (raw material), in_inventory \
(units), crafting_depth (how many crafts lie between it and raw material), recipes (each with ingredients and \
result_count).
craft(ingredients: dict[str, int], target: tuple[str, int]) -> str: makes target, an item and the units of it in all, \
of exactly these ingredients. If 2 units of {part} give 3 of {item}, craft({{"{part}": 4}}, ("{item}", 6)) makes 6. A \
craft that fails changes nothing and says why.
view_inventory() -> dict[str, int]: the units of every item there is.
finish(message: str): ends your work. Call it when all is made, or cannot be made, and say which in the message."""

_COMPACT = """\
What get_info returns is shown as a line for each recipe, item*result_count={ingredients}, or as the item and `base`."""

_RECURSIVE = """\
await launch_subagent(targets: dict[str, int], context: str = "") -> str: a new agent makes these units of these items \
and returns its message. It works in the same inventory, so what it has made is there at once. It knows nothing but \
its targets and the context, and may launch agents itself.

Have others do parts of your work, the more so the higher the crafting_depth: read your recipe, launch an agent for \
each ingredient that has to be crafted, those that do not need each other side by side, then craft your own item and \
finish. Do not launch an agent for raw material, nor for the very items that you were asked for. When one has failed, \
look at the inventory, then try again or make the rest yourself."""


def text(examples: tuple[str, str], compact: bool, recursive: bool) -> str:
  """
  Args:
    examples: an ingredient and an item made of it.
    compact: texts are short, see `TextCraft`.
    recursive: agents can be launched.
  """
  part, item = examples
  world = _WORLD.format(part=part, item=item)
  lines = [world] + [_RECURSIVE] * recursive + ["", _COMPACT] * compact
  return "\n".join(lines)
