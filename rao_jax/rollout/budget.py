"""Hard caps on what a tree may spend, and the ledger that counts it. Every cap binds at a count, never at a clock."""

import collections
import dataclasses

from rao_jax.envs.base import Refusal


@dataclasses.dataclass(frozen=True)
class Caps:
  """Limits of one tree and its nodes; all inclusive.

  Attributes:
    max_depth: depth of the deepest node, roots being 0; at 0 agents have no `launch_subagent` at all.
    max_nodes: nodes of a tree, the root included.
    max_turns: turns of a node.
    launches_per_cell: launches that one cell is granted.
    turn_tokens: tokens sampled in a turn, the end token included.
    output_tokens: tokens of one output, its brackets included.
    window: tokens of a node in all, what it reads and what it writes.
    min_turn: a turn starts only if so many tokens are left for it.
    result_tokens: room that a parent must keep for its children's results, or its launch is refused.
  """

  max_depth: int = 6
  max_nodes: int = 128
  max_turns: int = 25
  launches_per_cell: int = 8
  turn_tokens: int = 512
  output_tokens: int = 512
  window: int = 8192
  min_turn: int = 8
  result_tokens: int = 32

  def __post_init__(self):
    for field in dataclasses.fields(self):
      least = 0 if field.name == "max_depth" else 1
      if getattr(self, field.name) < least:
        raise ValueError(f"caps.{field.name}={getattr(self, field.name)} must be at least {least}")
    if self.output_tokens < 4:
      raise ValueError(f"caps.output_tokens={self.output_tokens} must be at least 4: two brackets and some text")
    if self.window < self.min_turn + self.output_tokens // 2:
      raise ValueError(
        f"caps.window={self.window} leaves no room for a turn: raise it, or lower caps.min_turn={self.min_turn} and "
        f"caps.output_tokens={self.output_tokens}"
      )


class Ledger:
  """What one tree has spent, in nodes, turns and tokens, and which launches it was refused and why."""

  def __init__(self, caps: Caps):
    self.caps = caps
    self.nodes = 1
    self.turns = 0
    self.sampled = 0
    self.refused: collections.Counter[str] = collections.Counter()

  def admit(self, depth: int, granted_in_cell: int, parent_room: int, prompt_tokens: int) -> Refusal | None:
    """Counts a launch in as a node, or says why not.

    Args:
      depth: of the child.
      granted_in_cell: launches already granted to the same cell.
      parent_room: tokens left in the parent's window.
      prompt_tokens: tokens of the child's prompt.
    """
    caps = self.caps
    if depth > caps.max_depth:
      return self.refuse("depth", f"depth cap {caps.max_depth} reached, do it yourself")
    if granted_in_cell >= caps.launches_per_cell:
      return self.refuse("launches", f"at most {caps.launches_per_cell} launches a cell")
    if self.nodes >= caps.max_nodes:
      return self.refuse("nodes", f"node cap {caps.max_nodes} reached, do it yourself")
    if parent_room < caps.result_tokens + caps.min_turn:
      return self.refuse("room", "no room for the result in your context")
    if prompt_tokens + caps.min_turn > caps.window:
      return self.refuse("prompt", f"the goal is too long for a context of {caps.window} tokens")
    self.nodes += 1
    return None

  def refuse(self, why: str, text: str) -> Refusal:
    self.refused[why] += 1
    return Refusal(f"Error: {text}")
