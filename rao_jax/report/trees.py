"""Tree dumps: what the trees of a run amount to, and reading those that are shown. Impure: reads files.

A dump line is one tree as JSON. Fields that are missing are shown as missing. Dumps can be large, so they are read line
by line: of each tree a few figures and its place in the file are kept, and it is read again if it is shown.
"""

import collections
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Facts:
  """One dumped tree: its place, whose it is, what it came to.

  Attributes:
    path: of the file.
    line: of the tree, from 0; `id` is `file/line`.
    offset, size: of the line, in bytes.
    step: of the run.
    group: trees of one group are rollouts of one task at one step.
    success: of the root, in [0, 1].
    delegating: nodes with children.
    sampled: tokens that the policy sampled.
    critical: of them, along the longest chain of agents that wait for each other; None in dumps without waves.
    by_depth: (nodes, sum of their successes) at depth 0, 1, ...
  """

  path: pathlib.Path
  line: int
  offset: int
  size: int
  step: int
  group: int
  task: str
  difficulty: str
  success: float
  nodes: int
  delegating: int
  sampled: int
  critical: int | None
  by_depth: tuple[tuple[int, float], ...]

  @property
  def id(self) -> str:
    return f"{self.path.stem}/{self.line}"

  @property
  def source(self) -> str:
    return self.path.stem

  @property
  def depth(self) -> int:
    return len(self.by_depth) - 1

  @property
  def solved(self) -> bool:
    return self.success >= 1

  @property
  def rollouts_of(self) -> tuple:
    """The same for the rollouts of one group."""
    return self.path, self.step, self.group, self.task


@dataclasses.dataclass(frozen=True)
class Dumps:
  """The trees of one run's dumps, in the order of the files, and how many lines could not be read."""

  trees: list[Facts] = dataclasses.field(default_factory=list)
  unreadable: int = 0

  def latest(self) -> list[Facts]:
    """Those of the last step that was dumped."""
    last = max((tree.step for tree in self.trees), default=None)
    return [tree for tree in self.trees if tree.step == last]

  @property
  def partial(self) -> bool:
    """Whether success is a score: some root has neither 0 nor 1."""
    return any(0 < tree.success < 1 for tree in self.trees)


def read_dumps(paths: Iterable[pathlib.Path]) -> Dumps:
  """Valid trees are kept. A line that is no tree, such as one that a kill cut short, is counted."""
  found, unreadable = [], 0
  for path in paths:
    offset = 0
    with path.open("rb") as file:
      for number, line in enumerate(file):
        tree = parse(line)
        if tree is None:
          unreadable += 1
        elif tree["valid"]:
          found.append(_facts(tree, path, number, offset, len(line)))
        offset += len(line)
  return Dumps(found, unreadable)


def read_tree(facts: Facts) -> dict[str, Any]:
  """The whole tree, as `parse` gives it."""
  with facts.path.open("rb") as file:
    file.seek(facts.offset)
    return parse(file.read(facts.size))


def find(trees: Sequence[Facts], asked: str) -> Facts:
  """The tree with this id; `31/2` stands for `step_000031/2`. A ValueError says which there are."""
  source, _, line = asked.rpartition("/")
  sources = {source, f"step_{int(source):06d}" if source.isdecimal() else source}
  for tree in trees:
    if tree.source in sources and str(tree.line) == line:
      return tree
  if not trees:
    raise ValueError(f"there is no tree {asked}: the run has dumped none, see config.log.trees_every")
  lines = {source: [tree.line for tree in some] for source, some in itertools.groupby(trees, lambda tree: tree.source)}
  known = ", ".join(f"{source}/{some[0]}..{some[-1]}" for source, some in lines.items())
  raise ValueError(f"there is no tree {asked}: there are {known}")


def parse(line: bytes) -> dict[str, Any] | None:
  """A tree with its nodes in path order, parents before children; None if the line holds none.

  A node without a path or depth gets those that its parent implies.
  """
  try:
    tree = json.loads(line)
    nodes = [dict(node) for node in tree["nodes"]]
    parents = [node.get("parent", -1) for node in nodes]
    children, paths = collections.Counter(), [()] * len(nodes)
    for i, (node, parent) in enumerate(zip(nodes, parents)):
      if (parent < 0) != (i == 0) or parent >= i:
        return None  # no tree, or not a parent first
      own = node.get("path") or ()
      paths[i] = () if i == 0 else (*paths[parent], own[-1] if own else children[parent])
      children[parent] += 1
    order = sorted(range(len(nodes)), key=paths.__getitem__)
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    return None
  place = {i: k for k, i in enumerate(order)} | {-1: -1}
  nodes = [nodes[i] | {"parent": place[parents[i]], "path": list(paths[i]), "depth": len(paths[i])} for i in order]
  return tree | {"nodes": nodes, "valid": tree.get("valid", True)} if nodes else None


def success_of(node: dict[str, Any]) -> float:
  return float(node.get("success") or 0)


def critical_path(nodes: Sequence[dict[str, Any]]) -> int | None:
  """Tokens sampled along the longest chain of agents that wait for each other; None without `wave`.

  L(x) = sampled tokens of x + sum over the waves of its launches of max L(child of the wave): see rollout/summary.py.
  """
  if any(node.get("wave") is None for node in nodes[1:]):
    return None
  longest = [collections.defaultdict(int) for _ in nodes]  # of each node: wave -> longest child
  for node, waves in zip(reversed(nodes), reversed(longest)):
    length = (node.get("sampled") or 0) + sum(waves.values())
    if node["parent"] >= 0:
      wave = tuple(node["wave"])
      longest[node["parent"]][wave] = max(longest[node["parent"]][wave], length)
  return length


def _facts(tree: dict[str, Any], path: pathlib.Path, line: int, offset: int, size: int) -> Facts:
  nodes = tree["nodes"]
  by_depth = [[0, 0.0] for _ in range(1 + max(node["depth"] for node in nodes))]
  for node in nodes:
    by_depth[node["depth"]][0] += 1
    by_depth[node["depth"]][1] += success_of(node)
  return Facts(
    path,
    line,
    offset,
    size,
    step=tree.get("step") or 0,
    group=tree.get("group", line),
    task=str(tree.get("task", "")),
    difficulty=str(tree.get("difficulty", "")),
    success=success_of(nodes[0]),
    nodes=len(nodes),
    delegating=len({node["parent"] for node in nodes[1:]}),
    sampled=sum(node.get("sampled") or 0 for node in nodes),
    critical=critical_path(nodes),
    by_depth=tuple((n, s) for n, s in by_depth),
  )
