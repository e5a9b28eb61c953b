"""The crafting world: what can be made of what, drawn once per seed.

Five domains of items in tiers 0 to 12. Tier 0 is raw material that cannot be made; an item of tier t is made of lower
tiers of its own domain, a few items of tiers 10 to 12 of several domains. Names carry no meaning unless asked to, so a
recipe has to be looked up. With seed 42 and 25 items a tier, the full profile is the world of TextCraft-Synth (arXiv
2605.06639): the draws below keep its order, since every one of them moves all that follow.
"""

import dataclasses
import functools
import random
import re
from collections.abc import Sequence

DOMAINS = "mcoat"  # metal, crystal, organic, arcane, tech
MINERAL = "mc"  # domains whose raw material is an ore
PREFIXES = 10  # name prefixes of a domain: m0 .. m9
MAX_TIER = 12

# Items of several domains: tier, then the domains its recipe takes one item of each.
CROSS_ITEMS = (
  *((10, f"x10_{letters}", letters) for letters in ("mc", "ot", "am", "ct")),
  *((11, f"x11_{letters}", letters) for letters in ("mct", "oam", "act", "tca")),
  *((12, f"x12_{letters}", letters) for letters in ("mcat", "oacm", "tcoa")),
  (12, "x12_all", DOMAINS),
)


# Word of each domain's ten prefixes and of each tier, by naming. The generic ones tell a language model nothing.
NAMINGS = {
  "generic": (
    {domain: tuple(f"{domain}{i}" for i in range(PREFIXES)) for domain in DOMAINS},
    tuple(f"i{tier}" for tier in range(MAX_TIER + 1)),
  ),
  "semantic": (
    {
      "m": ("iron", "copper", "gold", "silver", "titanium", "bronze", "steel", "platinum", "mithril", "adamant"),
      "c": ("ruby", "sapphire", "emerald", "diamond", "quartz", "opal", "topaz", "amethyst", "jade", "onyx"),
      "o": ("wood", "fiber", "vine", "leaf", "bark", "root", "moss", "mushroom", "petal", "seed"),
      "a": ("ether", "void", "flux", "aura", "mana", "rune", "sigil", "glyph", "soul", "spirit"),
      "t": ("circuit", "chip", "wire", "cell", "core", "module", "unit", "array", "grid", "matrix"),
    },
    (
      *("raw", "refined", "processed", "component", "part", "module", "assembly"),
      *("system", "complex", "advanced", "elite", "ultimate", "legendary"),
    ),
  ),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How an item is made.

  Attributes:
    ingredients: units of each ingredient that one execution uses up.
    result_count: units that one execution makes.
    depth: tier of the item made.
  """

  ingredients: dict[str, int]
  result_count: int
  depth: int


@dataclasses.dataclass(frozen=True)
class Tier:
  """What a recipe of one tier looks like: fewest ingredients, how many more at most, range of the result count."""

  ingredients: int
  more: int
  least_result: int
  most_result: int


_NAMED_TIER = re.compile(r"(?:_i|^x)(\d+)")

# tier -> recipe shape, from tier 1.
PROFILES: dict[str, dict[int, Tier]] = {
  "full": {
    1: Tier(1, 0, 2, 4),
    2: Tier(2, 0, 2, 3),
    3: Tier(2, 1, 1, 2),
    4: Tier(2, 1, 1, 2),
    5: Tier(2, 1, 1, 2),
    6: Tier(2, 2, 1, 1),
    7: Tier(2, 2, 1, 1),
    **{t: Tier(3, 2, 1, 1) for t in (8, 9, 10, 11)},
    12: Tier(4, 2, 1, 1),
  },
  # Two ingredients or one. Which tiers have two was chosen by count: easy and medium tasks are small trees of both
  # kinds of node, and the least hard task is clearly larger than nearly all medium ones, so that a context window can
  # hold the one sort and not the other (`python -m rao_jax.envs.textcraft.statistics` prints the figures).
  "small": {
    1: Tier(1, 0, 2, 4),
    2: Tier(2, 0, 2, 3),
    3: Tier(1, 0, 1, 2),
    4: Tier(1, 0, 1, 2),
    5: Tier(2, 0, 1, 2),
    6: Tier(1, 0, 1, 1),
    **{t: Tier(2, 0, 1, 1) for t in range(7, MAX_TIER + 1)},
  },
}
# Recipes as broad as those of high tiers, at the tiers of easy tasks: to learn them on small trees.
PROFILES["wide"] = PROFILES["full"] | {2: Tier(3, 2, 2, 3), 3: Tier(3, 2, 1, 2)}
# With names dealt out at random, so that a name tells nothing of its item's tier and domain.
SHUFFLED = tuple(f"{profile}_shuffled" for profile in PROFILES)
# With ingredients of one recipe named alike (o7_i5, o7_i5_17), which are easily mixed up: the benchmark has such names
# in a third of its recipes.
ALIKE = tuple(f"{profile}_alike" for profile in PROFILES)
PROFILES |= {name: PROFILES[name.rpartition("_")[0]] for name in SHUFFLED + ALIKE}


@dataclasses.dataclass(frozen=True)
class World:
  """All items of one seed.

  Attributes:
    recipes: craftable item -> its one recipe, in the order drawn (by domain, then tier).
    base_items: raw materials.
    seed, items_per_tier, profile, names: what `generate` was called with.
  """

  recipes: dict[str, Recipe]
  base_items: frozenset[str]
  seed: int
  items_per_tier: int
  profile: str
  names: str = "generic"

  @classmethod
  def generate(cls, seed: int = 42, items_per_tier: int = 25, profile: str = "full", names: str = "generic") -> "World":
    """Draws the world of `seed`.

    Args:
      seed: of the draws.
      items_per_tier: items of each domain in tiers 1 and 2; one fewer for every third tier from there on.
      profile: a key of PROFILES, the number of ingredients.
      names: a key of NAMINGS, "generic" (m0_i1) or "semantic" (iron_refined): the same world in other words.
    """
    if profile not in PROFILES:
      raise ValueError(f"world profile {profile!r} is unknown: use one of {', '.join(PROFILES)}")
    if names not in NAMINGS:
      raise ValueError(f"naming {names!r} is unknown: use one of {', '.join(NAMINGS)}")
    prefixes, _ = NAMINGS[names]
    shapes = PROFILES[profile]
    rng = random.Random(seed)
    recipes: dict[str, Recipe] = {}
    domains: dict[str, list[list[str]]] = {}
    for domain in DOMAINS:
      tiers = domains[domain] = [[base_name(domain, i, names) for i in range(items_per_tier)]]
      for tier in range(1, MAX_TIER + 1):
        drawn = []
        for i in range(max(1, items_per_tier - tier // 3)):
          name = prefixes[domain][i % PREFIXES] + tier_suffix(tier, names)
          name = f"{name}_{i}" if name in recipes else name
          recipes[name] = _draw_recipe(rng, tiers, tier, shapes[tier])
          drawn.append(name)
        tiers.append(drawn)
    for tier, name, letters in CROSS_ITEMS:
      ingredients = {}
      for domain in letters:
        item = rng.choice(domains[domain][tier - 3])
        ingredients[item] = rng.randint(1, 2)
      recipes[name] = Recipe(ingredients, 1, tier)
    if profile in SHUFFLED:
      recipes = _rename(recipes, _shuffled_names(rng, recipes))
    elif profile in ALIKE:
      recipes = _rename(recipes, _alike_names(rng, recipes))
    base = frozenset(name for tiers in domains.values() for name in tiers[0])
    return cls(recipes, base, seed, items_per_tier, profile, names)

  def recipes_of(self, name: str) -> Sequence[Recipe]:
    """Ways to make an item: one, or none."""
    return (self.recipes[name],) if name in self.recipes else ()

  def tagged(self, tag: str) -> Sequence[str]:
    """Items that may stand for an ingredient that is a tag: this world has no tags."""
    return ()

  def depth(self, name: str) -> int:
    """Tier of an item; 0 for raw material and for names that do not exist."""
    return self.recipes[name].depth if name in self.recipes else 0

  def tier(self, tier: int) -> list[str]:
    """Craftable items of one tier, in the order drawn."""
    return [name for name, recipe in self.recipes.items() if recipe.depth == tier]


def _rename(recipes: dict[str, Recipe], new: dict[str, str]) -> dict[str, Recipe]:
  """The same world in other names; cross-domain items keep theirs."""
  renamed = lambda name: new.get(name, name)
  return {
    renamed(name): dataclasses.replace(r, ingredients={renamed(part): n for part, n in r.ingredients.items()})
    for name, r in recipes.items()
  }


def _shuffled_names(rng: random.Random, recipes: dict[str, Recipe]) -> dict[str, str]:
  """Old name -> new one: the craftable items' names dealt out anew."""
  old = [name for name in recipes if not name.startswith("x")]
  return dict(zip(old, rng.sample(old, len(old))))


def _alike_names(rng: random.Random, recipes: dict[str, Recipe]) -> dict[str, str]:
  """The same, ingredients of one recipe getting names with one prefix as long as there are any."""
  old = [name for name in recipes if not name.startswith("x")]
  left: dict[str, list[str]] = {}
  for name in rng.sample(old, len(old)):
    left.setdefault(_prefix(name), []).append(name)
  new: dict[str, str] = {}

  def deal(item: str, prefix: str) -> None:
    if prefix not in left:
      prefix = rng.choice(list(left))
    new[item] = left[prefix].pop()
    if not left[prefix]:
      del left[prefix]

  craftable = set(old)
  for recipe in recipes.values():
    parts = [part for part in recipe.ingredients if part in craftable]
    for part in parts:
      if part not in new:
        deal(part, next((_prefix(new[other]) for other in parts if other in new), ""))
  for item in old:  # that no recipe takes
    if item not in new:
      deal(item, "")
  return new


def _prefix(name: str) -> str:
  return name.partition("_")[0]


def tier_suffix(tier: int, names: str = "generic") -> str:
  """What the names of a tier end in, before a number where they collide."""
  word = NAMINGS[names][1][tier]
  return f"_{word}_{tier}" if tier >= 6 else f"_{word}"


def base_name(domain: str, i: int, names: str = "generic") -> str:
  """Name of a domain's i-th raw material. Ten names only: a longer list repeats them, which weighs the draws."""
  prefix = NAMINGS[names][0][domain][i % PREFIXES]
  return f"{prefix}_ore" if domain in MINERAL else f"raw_{prefix}"


def is_base_name(name: str) -> bool:
  """Whether a name has the shape of raw material."""
  return name.endswith("_ore") or name.startswith("raw_")


def named_tier(name: str) -> int:
  """The tier that a name tells of, `m0_i7_7` or `x12_all`; 0 for raw material and any other name."""
  found = _NAMED_TIER.search(name)
  return int(found[1]) if found else 0


def _draw_recipe(rng: random.Random, tiers: list[list[str]], tier: int, shape: Tier) -> Recipe:
  """One recipe: a weighted draw without replacement from the two tiers below and one item from further down."""
  pool = [(name, tier - below) for below in range(max(0, tier - 2), tier) for name in tiers[below]]
  if tier >= 4:
    below = rng.randint(max(0, tier - 4), tier - 3)
    pool.append((rng.choice(tiers[below]), tier - below))
  names = [name for name, _ in pool]
  weights = [1 / (distance + 1) for _, distance in pool]
  count = min(shape.ingredients + rng.randint(0, shape.more), len(pool), 6)
  drawn = []
  for _ in range(count):
    i = _weighted_index(rng, weights)
    drawn.append(names.pop(i))
    weights.pop(i)
  # By position: a raw material listed twice can be drawn twice, and then the later quantity stands.
  ingredients = {name: rng.randint(1, 2 if tier <= 4 else 1) for name in drawn}
  return Recipe(ingredients, rng.randint(shape.least_result, shape.most_result), tier)


def _weighted_index(rng: random.Random, weights: list[float]) -> int:
  """An index with probability in proportion to its weight, from a single draw."""
  target = rng.uniform(0, sum(weights))
  reached = 0.0
  for i, weight in enumerate(weights):
    reached += weight
    if reached >= target:
      return i
  return len(weights) - 1


@functools.lru_cache(maxsize=256)
def cached_world(seed: int, items_per_tier: int, profile: str, names: str = "generic") -> World:
  """`World.generate`, remembered: the rollouts of one task, and the tasks of one world, share it. Treat as frozen."""
  return World.generate(seed, items_per_tier, profile, names)
