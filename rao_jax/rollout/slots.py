"""Who holds the slots of the cache pool, and the caches that wait in host memory. Host side, no device code."""

import numpy as np

from rao_jax.rollout.engine import Node, Status, Tree


class Slots:
  """The slots of the pool, in equal parts for the parts of the mesh's row axes; each part has one slot for padding.

  A node's slot is of the part that its tree belongs to, so its cache never moves between devices.

  Args:
    shards: parts of the row axes.
    each: slots of a part, the one for padding not counted.
  """

  def __init__(self, shards: int, each: int):
    self.shards, self.each = shards, each
    self._free = [list(range(at, at + each))[::-1] for at in range(0, shards * (each + 1), each + 1)]
    self._holders: list[dict[int, Node]] = [{} for _ in range(shards)]

  @property
  def free(self) -> int:
    return sum(map(len, self._free))

  @property
  def padding(self) -> int:
    """The slot of padding rows, counted within its part as `local` does."""
    return self.each

  def local(self, slot: int) -> int:
    """A slot counted within its part: what programs read."""
    return slot % (self.each + 1)

  def give(self, node: Node, shard: int) -> bool:
    """Gives a node a free slot, if there is one; nothing is in it, and the node knows what it shares alone."""
    if not self._free[shard]:
      return False
    node.slot, node.fed = self._free[shard].pop(), node.prefix
    self._holders[shard][node.slot] = node
    return True

  def idle(self, shard: int) -> Node | None:
    """A node that holds a slot and does not act: best one that waits for children."""
    idle = [node for node in self._holders[shard].values() if node.status is not Status.ACTING]
    return next((node for node in idle if node.status is Status.WAITING), idle[0] if idle else None)

  def release(self, node: Node) -> None:
    shard = node.slot // (self.each + 1)
    self._free[shard].append(node.slot)
    del self._holders[shard][node.slot]
    node.slot, node.fed = None, 0

  def release_ended(self) -> None:
    for holders in self._holders:
      for node in [node for node in holders.values() if node.status is Status.ENDED]:
        self.release(node)


class Admission:
  """Lets a tree begin only if its part of the pool has a slot for each of the nodes that it may come to have."""

  def __init__(self, shards: int, each: int):
    self._each, self._admitted = each, [{} for _ in range(shards)]

  def __call__(self, tree: Tree) -> bool:
    admitted = self._admitted[tree.row_shard]
    if tree not in admitted:
      for done in [other for other in admitted if other.done]:
        del admitted[done]
      if tree.caps.max_nodes > self._each:
        raise ValueError(
          f"a tree of up to {tree.caps.max_nodes} nodes can never begin with {self._each} slots: raise them"
        )
      if sum(admitted.values()) + tree.caps.max_nodes > self._each:
        return False
      admitted[tree] = tree.caps.max_nodes
    return True


class HostCaches:
  """Caches of suspended nodes in host memory, the filled positions only.

  Args:
    position_bytes: of one position, keys and values of all layers.
    budget: bytes that they may take together.
  """

  def __init__(self, position_bytes: int, budget: int):
    self._position_bytes, self.budget = position_bytes, budget
    self._kept: dict[Node, tuple[int, list[np.ndarray]]] = {}  # positions, and the arrays once they are read
    self.bytes = 0

  def __len__(self) -> int:
    return len(self._kept)

  def __contains__(self, node: Node) -> bool:
    return node in self._kept

  def reserve(self, node: Node, positions: int) -> bool:
    """Makes room for a cache, if the budget has it; `fill` brings it."""
    size = positions * self._position_bytes
    if not positions or self.bytes + size > self.budget:
      return False
    self.bytes += size
    self._kept[node] = positions, []
    return True

  def fill(self, node: Node, *arrays: np.ndarray) -> None:
    """Keys and values [L, K, positions, Q]."""
    self._kept[node][1].extend(arrays)

  def take(self, node: Node) -> tuple[int, list[np.ndarray]]:
    """Hands out a cache: (positions, [keys, values])."""
    positions, arrays = self._kept.pop(node)
    self.bytes -= positions * self._position_bytes
    return positions, arrays

  def drop_ended(self) -> None:
    for node in [node for node in self._kept if node.status is Status.ENDED]:
      self.take(node)
