"""The smallest change of a config that makes a plan fit: a short list of single changes, then pairs and triples."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from rao_jax.plan.programs import OWN, Parts, make_plan, parts_of, surely_too_much
from rao_jax.plan.targets import Target
from rao_jax.plan.verdict import Verdict, judge

MOST_CHANGES = 3


@dataclasses.dataclass
class Change:
  """Keys below config -> values, and the kinds of programs that they can make smaller."""

  settings: dict[str, object]
  helps: frozenset[str] = frozenset(OWN)


@dataclasses.dataclass
class Remedy:
  """Settings that fit. `tried`: what was refused before them, and how."""

  settings: dict[str, object]
  verdicts: list[Verdict]
  tried: list[str]

  @property
  def words(self) -> str:
    return " ".join(f"--config.{key}={value}".replace(" ", "") for key, value in self.settings.items())


def changes(config: ConfigDict, parts: Parts) -> list[Change]:
  """Single changes, from those that only cost time to those that change the method."""
  r, learn, mesh, out = config.rollout, config.learn, parts.mesh.shape, []
  ways, update = parts.train.ways("rows"), frozenset({"gradients"})
  if not config.policy.remat:
    out.append(Change({"policy.remat": True}, update))
  if config.policy.dtype == "float32":
    out.append(Change({"policy.dtype": "bfloat16"}))
  for by in (2, 4):
    tokens = learn.tokens_per_microbatch // by
    if tokens >= max(learn.row_lengths) * ways:
      out.append(Change({"learn.tokens_per_microbatch": tokens}, update))
  rows = max(r.row_ladder)
  out += [Change({"rollout.slots": r.slots // by}) for by in (2, 4) if r.slots // by >= rows]
  if rows // 2 >= ways:
    ladder = tuple(sorted({*(n for n in r.row_ladder if n < rows), rows // 2}))
    out.append(Change({"rollout.row_ladder": ladder, "rollout.slots": min(r.slots, rows // 2)}))
  if mesh["data"] > 1:
    out.append(Change({"mesh.data": 1, "mesh.fsdp": -1}))
  if ways % 2 == 0:
    rest = {"mesh.data": 1, "mesh.fsdp": -1} if mesh["data"] == 1 else {"mesh.data": -1, "mesh.fsdp": mesh["fsdp"]}
    out.append(Change({**rest, "mesh.tensor": 2 * mesh["tensor"]}))
  if not config.policy.lora_rank:
    out.append(Change({"policy.lora_rank": 32, "policy.param_dtype": "bfloat16"}))
  return out


def find_remedy(
  config: ConfigDict, parts: Parts, target: Target, tokens_per_tree: int, failed: Sequence[str], tries: int,
  say: Callable[[str], None],
) -> Remedy | list[str]:  # fmt: skip
  """The first of `changes`, alone or together, with which every program fits, by compiling them.

  Args:
    config, parts, target, tokens_per_tree: that do not fit.
    failed: kinds of the programs that do not; sets of changes that help one of them not at all are passed over.
    tries: sets of changes to compile at most; those whose arrays alone are too much are not compiled.
    say: told of progress.
  Returns:
    the remedy, or what was tried in vain.
  """
  single, tried, compiled = changes(config, parts), [], 0
  refused: list[tuple[list[Change], str]] = []  # changes, and the kind of program that was too much ("": impossible)
  for some in itertools.chain(*(itertools.combinations(single, n) for n in range(1, MOST_CHANGES + 1))):
    keys = [key for change in some for key in change.settings]
    if len(set(keys)) < len(keys) or not set(failed) <= frozenset().union(*(change.helps for change in some)):
      continue
    # What was refused stays so with more changes that do not help what was too much.
    if any(
      all(change in some for change in less) and not any(kind in c.helps for c in some if c not in less)
      for less, kind in refused
    ):
      continue
    settings = {key: value for change in some for key, value in change.settings.items()}
    words = " ".join(f"{key}={value}" for key, value in settings.items())
    changed = with_settings(config, settings)
    try:
      new = parts_of(changed, target.devices)
      if kind := surely_too_much(new, target.chip.memory):
        tried.append(f"{words}: too much by accounting, {kind}")
        refused.append((list(some), kind))
        continue
      if compiled == tries:
        return [*tried, f"stopped after compiling {tries} sets of changes (--tries)"]
      plan = make_plan(changed, new, tokens_per_tree)
    except ValueError as e:
      tried.append(f"{words}: not possible ({e})")
      refused.append((list(some), ""))
      continue
    compiled += 1
    say(f"{target.name}: trying {words}")
    verdicts = []
    for program in sorted(plan.programs, key=lambda p: p.kind not in failed):
      verdicts.append(judge(program, target))
      if not verdicts[-1].fits:
        tried.append(f"{words}: too much by compiling, {program.name}")
        refused.append((list(some), program.kind))
        break
    else:
      return Remedy(settings, verdicts, tried)
  return tried


def with_settings(config: ConfigDict, settings: dict[str, object]) -> ConfigDict:
  """A copy of the config with the keys set."""
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(settings)
  return config
