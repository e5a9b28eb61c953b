"""Call by call against the benchmark authors' own environment, from their wheel: outcome, stock, meaning of errors."""

import importlib
import json
import random
import re
import sys
import types
import zipfile

import pytest

from rao_jax.envs.textcraft import wheel
from rao_jax.envs.textcraft.factory import TextCraftSynth
from rao_jax.envs.textcraft.minecraft import Minecraft

pytestmark = pytest.mark.full

# What an error of theirs reads like, and ours.
MEANINGS = [
  ("ingredients must be a dict", "ingredients has to be a dict"),
  ("target must be a tuple", "target has to be a tuple"),
  ("target item must be a string", "target item has to be a text"),
  ("target count must be an int", "target's units have to be a whole number"),
  ("target count must be positive", "target's units have to be above 0"),
  ("ingredient name must be a string", "name of an ingredient has to be a text"),
  ("ingredient count for .* must be an int", "units of .* have to be a whole number"),
  ("ingredient count for .* must be positive", "units of .* have to be above 0"),
  ("No recipe found", "has no recipe"),
  ("is not divisible", "is not a multiple"),
  ("No ingredient provided for", "nothing was given for"),
  ("Missing required ingredient", "it takes .* as well"),
  ("Wrong amount of", "wrong amount of"),
  ("Extra ingredients", "it takes no "),
  ("Insufficient ingredients", "not enough in the inventory"),
]


def meanings(text, side):
  """Which errors of MEANINGS a text tells of, recipes in any order: theirs come as the file system lists them."""
  lines = text.split("\n")[1:] if "\n" in text else [text]
  return sorted(next(i for i, pair in enumerate(MEANINGS) if re.search(pair[side], line)) for line in lines)


@pytest.fixture
def authors(wheel_folder, tmp_path, monkeypatch):
  """Their module of environments; a stand-in gives it the names it takes from the server it is written for."""
  with zipfile.ZipFile(wheel.find(wheel_folder)) as archive:
    archive.extractall(tmp_path)
  server = types.ModuleType("openreward.environments")
  server.Environment = type("Environment", (), {"__init__": lambda self, *_: None})
  server.Split = server.TextBlock = server.ToolOutput = object
  server.tool = lambda function: function
  package = types.ModuleType("platoon_textcraft")  # its own __init__ registers it with a server
  package.__path__ = [str(tmp_path / "platoon_textcraft")]
  for module in (types.ModuleType("openreward"), server, package):
    monkeypatch.setitem(sys.modules, module.__name__, module)
  yield importlib.import_module("platoon_textcraft.env")
  for name in [name for name in sys.modules if name.startswith("platoon_textcraft.")]:
    del sys.modules[name]


def a_call(rng, book, stock, names):
  """Arguments of a craft that fails in one of many ways, or does not."""
  item = rng.choice(names)
  recipe = rng.choice(book.recipes_of(item) or (None,))
  executions = rng.randint(1, 3)
  given = {}
  for part, units in recipe.ingredients.items() if recipe else ():
    if part.startswith("tag:") and rng.random() < 0.9:
      part = rng.choice([other for other in book.tagged(part) if other in stock] or [*book.tagged(part), part])
    given[part] = units * executions
  kind = rng.random()
  if kind < 0.15 and given:
    given.pop(rng.choice(list(given)))
  elif kind < 0.35:
    given[rng.choice(names)] = rng.choice([0, 1, 2, -1, True, 1.0, "2"])
  elif kind < 0.37:
    given[3] = 1
  target = (item, (recipe.result_count if recipe else 1) * executions + rng.choice([0, 0, 0, 1]))
  if rng.random() < 0.06:
    target = rng.choice([list(target), item, (item,), (3, 4), (item, "2"), (item, 0)])
  return [1] if rng.random() < 0.02 else given, target


@pytest.mark.parametrize("benchmark", ["minecraft", "synth"])
def test_crafts_information_and_grades_are_the_authors(benchmark, authors, published_dir, wheel_folder):
  if benchmark == "minecraft":
    theirs, ours, file = authors.TextCraftEnvironment, Minecraft(published_dir, compact=False), "textcraft_val.jsonl"
  else:
    theirs, file = authors.TextCraftSynthEnvironment, "textcraft_synth_val.jsonl"
    ours = TextCraftSynth(published_dir, "canonical", compact=False)
  rng, crafted, told = random.Random(1), 0, set()
  by_text = lambda recipes: sorted(recipes, key=lambda recipe: json.dumps(recipe, sort_keys=True))
  for record, task in list(zip(wheel.read_tasks(wheel_folder, file), ours.tasks("val")))[:80]:
    world, episode = theirs(record), ours.start(task)
    episode.begin((), episode.root_goal())
    names = [*(item for item, *_ in task.data["gold"]), *task.data["inventory"], "no_such"]
    for _ in range(100):
      given, target = a_call(rng, episode.book, episode.inventory, names)
      answer, own = world._craft(given, target), episode.call((), "craft", (given, target), {})
      assert answer.startswith("Error:") == own.startswith("Error:"), (given, target, answer, own)
      assert world.inventory == episode.inventory
      if own.startswith("Error:"):
        assert meanings(answer, 0) == meanings(own, 1), (answer, own)
        told.update(meanings(own, 1))
      else:
        crafted += 1
      asked = rng.choices(names, k=2)
      information, own = world._get_info(asked), episode.call((), "get_info", (asked,), {})
      for part in (*information, *own):
        part["recipes"] = by_text(part["recipes"])
      assert information == own
    assert world.evaluate("done")[0] == episode.end((), "done")
  tags = next(i for i, pair in enumerate(MEANINGS) if pair[1] == "nothing was given for")
  assert crafted > 100 and told >= set(range(len(MEANINGS))) - ({tags} if benchmark == "synth" else set())
