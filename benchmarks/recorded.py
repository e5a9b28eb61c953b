"""Recorded trees: who launched whom after which turn, how many tokens each turn read and sampled; no text, no tokens.

A recording is worked again by the real frontier and the real order of levels, without tasks, sandbox or trained
policy: what the device samples counts for nothing, a turn ends where the recorded one did.
"""

import dataclasses
import gzip
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from rao_jax.rollout.budget import Caps, Ledger
from rao_jax.rollout.engine import Node, Status, Tree

DATA = pathlib.Path(__file__).parent / "data"


@dataclasses.dataclass(frozen=True)
class NodeTrace:
  """What one agent did.

  Attributes:
    turns: (tokens it read before the turn, tokens it sampled in it); what the first turn reads is the prompt.
    waves: for every turn the groups of children, indices into the tree, that its cell waited for, one after another.
  """

  turns: list[tuple[int, int]]
  waves: list[list[list[int]]]

  @property
  def length(self) -> int:
    return sum(map(sum, self.turns))


TreeTrace = list[NodeTrace]  # the root first


def trace_of(tree: "Recorder") -> TreeTrace:
  """The recording of a finished tree."""
  number = {id(node): i for i, node in enumerate(tree.nodes)}
  traces = []
  for node in tree.nodes:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], node.is_action, [False]]))).tolist()
    begins, ends = edges[::2], edges[1::2]
    turns = [(begin - end, stop - begin) for end, begin, stop in zip([0, *ends], begins, ends)]
    waves = [
      [[number[id(child)] for child in wave] for wave in tree.waves.get((node.path, t), [])] for t in range(len(turns))
    ]
    traces.append(NodeTrace(turns, waves))
  return traces


class Recorder(Tree):
  """A tree that remembers which children its cells waited for at once.

  Attributes:
    waves: (path of a node, number of its turn) -> its groups of children.
  """

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.waves: dict[tuple, list[list[Node]]] = {}

  def _open_level(self, children: list[Node]) -> None:
    groups = {}
    for child in children:
      groups.setdefault(child.parent.path, []).append(child)
    for path, group in groups.items():
      self.waves.setdefault((path, len(group[0].parent.turns) - 1), []).append(group)
    super()._open_level(children)


class RecordedTree(Tree):
  """A tree whose cells do what they did in a recording. Tokens are drawn at random, none of them 0."""

  def __init__(self, trace: TreeTrace, vocab_size: int, number: int = 0):
    self.trace, self.fault, self.row_shard, self.group = trace, None, 0, 0
    self.caps = Caps(max_nodes=max(len(trace), 1))
    self.ledger = Ledger(self.caps)
    self._tokens = np.random.default_rng(number).integers(1, vocab_size, 1 << 14).tolist()
    self.nodes = [Node((), None, 0, "", self._read(trace[0].turns[0][0]), key=np.array([0, number], np.uint32))]
    self.levels = [[self.root]]

  def _read(self, count: int) -> list[int]:
    return self._tokens[:count]

  def room(self, node: Node) -> int:
    """What is left of the recorded turn."""
    return self.trace[node.goal].turns[len(node.turns)][1] - (len(node.tokens) - node.turn_start)

  def sample(self, node: Node, tokens: Sequence[int], logps: Sequence[float]) -> None:
    node.tokens += tokens
    node.is_action += [True] * len(tokens)
    node.logp += logps
    if self.room(node) <= 0:
      node.status = Status.TURN_ENDED

  def launch(self, node: Node) -> list[Node]:
    """The children that the node's cell waits for next; none if its cell is over."""
    waves, begun = self.trace[node.goal].waves[len(node.turns)], node.launch_base
    if begun == len(waves):
      node.launch_base = 0
      return []
    node.launch_base += 1
    first = sum(map(len, waves[:begun])) + sum(
      len(w) for t in self.trace[node.goal].waves[: len(node.turns)] for w in t
    )
    children = [
      Node((*node.path, first + i), node, goal, "", self._read(self.trace[goal].turns[0][0]))
      for i, goal in enumerate(waves[begun])
    ]
    self.nodes += children
    return children

  def go_on(self, node: Node) -> None:
    """After a cell: the next turn begins, or the node has ended."""
    node.turns.append(None)
    turns = self.trace[node.goal].turns
    if len(node.turns) == len(turns):
      node.status = Status.ENDED
      return
    node.read(self._read(turns[len(node.turns)][0]))
    node.status = Status.ACTING

  def _run_cell(self, node: Node) -> None:
    node.pending = [(None, child) for child in self.launch(node)]
    if node.pending:
      node.status = Status.WAITING
    else:
      self.go_on(node)

  _resume = _run_cell

  def _open_level(self, children: list[Node]) -> None:
    self.levels.append(children)

  def close(self) -> None:
    for node in self.nodes:
      node.status = Status.ENDED
    self.levels = []


def save(name: str, trees: Sequence[TreeTrace]) -> None:
  """Writes `data/NAME.json.gz`: for every tree its nodes, each [turns, waves]."""
  DATA.mkdir(exist_ok=True)
  text = json.dumps([[[node.turns, node.waves] for node in tree] for tree in trees], separators=(",", ":"))
  (DATA / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def load(name: str) -> list[TreeTrace]:
  trees = json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))
  return [[NodeTrace([tuple(t) for t in turns], waves) for turns, waves in tree] for tree in trees]
