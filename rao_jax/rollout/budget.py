"""Hard caps on what a tree may spend, and the ledger that counts it. Every cap binds at a count, never at a clock."""

import collections
import dataclasses
from typing import Any

from rao_jax.envs.base import Path, Refusal

BUDGETS = ("per_agent", "shared")
STEPS = "num_steps"  # the argument of a launch that says how many turns it hands down


@dataclasses.dataclass(frozen=True)
class Caps:
  """Limits of one tree and its nodes; all inclusive.

  Attributes:
    max_depth: depth of the deepest node, roots being 0; at 0 agents have no `launch_subagent` at all.
    max_nodes: nodes of a tree, the root included.
    budget: `per_agent`: every node has max_turns of its own. `shared`: one pool of max_turns for the whole tree; a
      launch with num_steps=n hands n turns down and sets n + 1 aside while the child works, so that its parent has a
      turn to read the result. What the child and all below it did not use comes back.
    max_turns: turns of a node, or of the whole tree.
    loop_repeats: a node is ended when its last cells are a pattern of up to three cells so many times over; 0 is never.
    launches_per_cell: launches that one cell is granted.
    turn_tokens: tokens sampled in a turn, the end token included.
    output_tokens: tokens of one output, its brackets included.
    window: tokens of a node in all, what it reads and what it writes.
    min_turn: a turn starts only if so many tokens are left for it.
    result_tokens: room that a parent must keep for its children's results, or its launch is refused.
  """

  max_depth: int = 6
  max_nodes: int = 128
  budget: str = "per_agent"
  max_turns: int = 25
  loop_repeats: int = 4
  launches_per_cell: int = 8
  turn_tokens: int = 512
  output_tokens: int = 512
  window: int = 8192
  min_turn: int = 8
  result_tokens: int = 32

  def __post_init__(self):
    if self.budget not in BUDGETS:
      raise ValueError(f"caps.budget={self.budget!r}: choose one of {BUDGETS}")
    if self.loop_repeats == 1:
      raise ValueError("caps.loop_repeats=1 would end every node at its first cell: set 2 or more, or 0 for never")
    for field in dataclasses.fields(self):
      least = 0 if field.name in ("max_depth", "loop_repeats") else 1
      if field.name != "budget" and getattr(self, field.name) < least:
        raise ValueError(f"caps.{field.name}={getattr(self, field.name)} must be at least {least}")
    if self.output_tokens < 4:
      raise ValueError(f"caps.output_tokens={self.output_tokens} must be at least 4: two brackets and some text")
    if self.window < self.min_turn + self.output_tokens // 2:
      raise ValueError(
        f"caps.window={self.window} leaves no room for a turn: raise it, or lower caps.min_turn={self.min_turn} and "
        f"caps.output_tokens={self.output_tokens}"
      )


@dataclasses.dataclass
class Account:
  """The turns of one node; with a shared budget they pay for all below it as well."""

  budget: int
  used: int = 0
  reserved: int = 0  # set aside for children at work

  @property
  def left(self) -> int:
    return self.budget - self.used - self.reserved


class Ledger:
  """What one tree has spent, in nodes, turns and tokens, and which launches it was refused and why."""

  def __init__(self, caps: Caps):
    self.caps = caps
    self.accounts: dict[Path, Account] = {(): Account(caps.max_turns)}
    self.turns = 0
    self.sampled = 0
    self.refused: collections.Counter[str] = collections.Counter()

  @property
  def nodes(self) -> int:
    return len(self.accounts)

  def turn(self, path: Path) -> None:
    """Counts a turn of the node at `path`."""
    self.turns += 1
    self.accounts[path].used += 1

  def admit(
    self, path: Path, steps: int | None, granted_in_cell: int, parent_room: int, prompt_tokens: int
  ) -> Refusal | None:
    """Counts a launch in as a node, or says why not.

    Args:
      path: of the child.
      steps: turns handed down to it, None unless the budget is shared.
      granted_in_cell: launches already granted to the same cell.
      parent_room: tokens left in the parent's window.
      prompt_tokens: tokens of the child's prompt.
    """
    caps, parent = self.caps, self.accounts[path[:-1]]
    if len(path) > caps.max_depth:
      return self.refuse("depth", f"depth cap {caps.max_depth} reached, do it yourself")
    if granted_in_cell >= caps.launches_per_cell:
      return self.refuse("launches", f"at most {caps.launches_per_cell} launches a cell")
    if self.nodes >= caps.max_nodes:
      return self.refuse("nodes", f"node cap {caps.max_nodes} reached, do it yourself")
    if steps is not None and steps >= parent.left:
      return self.refuse(
        "turns", f"{STEPS}={steps} takes {steps + 1} turns, {parent.left} left: ask for fewer or do it yourself"
      )
    if parent_room < caps.result_tokens + caps.min_turn:
      return self.refuse("room", "no room for the result in your context")
    if prompt_tokens + caps.min_turn > caps.window:
      return self.refuse("prompt", f"the goal is too long for a context of {caps.window} tokens")
    self.accounts[path] = Account(caps.max_turns if steps is None else steps)
    if steps is not None:
      parent.reserved += steps + 1
    return None

  def settle(self, path: Path) -> None:
    """The node at `path` has ended and its parent goes on: with a shared budget, the parent pays what it used."""
    if self.caps.budget == "shared":
      parent, child = self.accounts[path[:-1]], self.accounts[path]
      parent.reserved -= child.budget + 1
      parent.used += child.used

  def refuse(self, why: str, text: str) -> Refusal:
    self.refused[why] += 1
    return Refusal(f"Error: {text}")


def take_steps(args: tuple, kwargs: dict[str, Any]) -> tuple[Any, tuple, dict[str, Any]]:
  """Takes num_steps out of the arguments of a launch, named or in second place: (it or None, args, kwargs)."""
  if STEPS in kwargs:
    return kwargs[STEPS], args, {name: value for name, value in kwargs.items() if name != STEPS}
  return args[1] if len(args) > 1 else None, args[:1] + args[2:], kwargs


def repeats(cells: list[str], times: int) -> bool:
  """Whether the last cells are one pattern of up to three cells, `times` times over."""
  return any(len(cells) >= n * times and cells[-n * times :] == cells[-n:] * times for n in (1, 2, 3) if times)
