"""The frontier: the acting nodes of all trees, decoded together in padded batches by a few compiled programs.

Owns the cache pool and the ladders of shapes. A node holds a slot while it lives; when slots run out, the slots of
suspended nodes are taken back, and their caches are computed again when they go on. Every program of the ladders is
compiled here at the start; a shape outside them is an error, so nothing compiles later.
"""

import collections
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rao_jax.mesh import Rules
from rao_jax.policy.cache import make_pool
from rao_jax.policy.transformer import Params, PolicyConfig
from rao_jax.rollout.engine import Node, Status, Tree
from rao_jax.rollout.generate import Rows
from rao_jax.rollout.keys import fold_keys
from rao_jax.rollout.programs import lower_rollout


class Frontier:
  """Decodes the acting nodes of many trees.

  Args:
    config: of the policy.
    rules: the rollout rule table over the mesh.
    token_mask: bool[V], tokens that may be sampled.
    end_token: ends a turn.
    row_ladder: rows of a decode batch, ascending; a batch takes the smallest that holds it.
    cache_ladder: cache positions a program reads, ascending; the last must hold the window plus one slice.
    steps: tokens of a decode slice.
    chunk: tokens of a `prefill` or `extend` call, for rows with more than half as many pending.
    slots: cache slots; at least the largest batch.
  """

  def __init__(
    self,
    config: PolicyConfig,
    rules: Rules,
    token_mask: np.ndarray,
    end_token: int,
    row_ladder: Sequence[int],
    cache_ladder: Sequence[int],
    steps: int,
    chunk: int,
    slots: int,
  ):
    self.row_ladder, self.cache_ladder = tuple(sorted(row_ladder)), tuple(sorted(cache_ladder))
    self.steps, self.chunk = steps, chunk
    ways = rules.ways("rows")
    bad = [n for n in self.row_ladder if n % ways]
    if bad:
      raise ValueError(f"rollout.row_ladder={bad} cannot be split over {ways} devices: use multiples of {ways}")
    if slots < self.row_ladder[-1]:
      raise ValueError(f"rollout.slots={slots} is less than the largest batch {self.row_ladder[-1]}: raise it")
    self.slots = slots
    total = -(-(slots + 1) // ways) * ways  # the last slot is scratch, for padding rows
    self._scratch = total - 1
    self._free = list(range(slots))[::-1]
    self._holders: dict[int, Node] = {}
    self._token_mask = jnp.asarray(token_mask)
    self.pool = make_pool(config, total, self.cache_ladder[-1], rules)
    self.counts = collections.Counter()  # decode steps, row steps paid, tokens fed and sampled, slices, evictions
    lowered = lower_rollout(
      config, rules, end_token, self.row_ladder, self.cache_ladder, self.steps, self.chunk, total
    )  # fmt: skip
    self.programs = {name: one.compile() for name, one in lowered.items()}
    fold_keys(np.zeros(2, np.uint32), [0])  # compiles the one program for keys

  # -- slots ---------------------------------------------------------------------------------------------------------

  def _give_slot(self, node: Node) -> bool:
    if not self._free:
      idle = [n for n in self._holders.values() if n.status is not Status.ACTING]
      if not idle:
        return False
      idle = next((n for n in idle if n.status is Status.WAITING), idle[0])
      self.counts["evictions"] += 1
      self.release(idle)
    node.slot, node.fed = self._free.pop(), 0
    self._holders[node.slot] = node
    return True

  def release(self, node: Node) -> None:
    """Takes a node's cache slot back; should it act again, its cache is computed again."""
    if node.slot is not None:
      self._free.append(node.slot)
      del self._holders[node.slot]
      node.slot, node.fed = None, 0

  # -- one tick ------------------------------------------------------------------------------------------------------

  def tick(self, params: Params, work: Sequence[tuple[Tree, Node]], temperature: float) -> None:
    """Moves acting nodes on by one slice, in as many batches as it takes; if slots run out, the first of `work` go."""
    for node in [n for n in self._holders.values() if n.status is Status.ENDED]:
      self.release(node)
    chosen = [(tree, node) for tree, node in work if node.slot is not None or self._give_slot(node)]
    fresh = [node for _, node in chosen if node.key is None]
    if fresh:
      keys = fold_keys(np.stack([node.parent.key for node in fresh]), [node.path[-1] for node in fresh])
      for node, key in zip(fresh, keys):
        node.key = key
    # A chunk costs the same however full it is, so short prompts and outputs go through decode, one token a step.
    long = [node for _, node in chosen if len(node.tokens) - node.fed > self.chunk // 2]
    for some in self._batches([node for node in long if not node.fed], self.row_ladder[0]):
      self._feed(params, some, None)
    longer = [node for node in long if len(node.tokens) - node.fed > self.chunk // 2]
    for bucket, nodes in self._by_cache(longer, self.chunk).items():
      if bucket is not None:
        for some in self._batches(nodes, self.row_ladder[0]):
          self._feed(params, some, bucket)
    tree_of = {id(node): tree for tree, node in chosen}
    for bucket, nodes in self._by_cache([node for _, node in chosen], self.steps).items():
      for some in self._batches(nodes, self.row_ladder[-1]):
        self._decode(params, some, tree_of, bucket, temperature)

  def _by_cache(self, nodes: Sequence[Node], more: int) -> dict[int | None, list[Node]]:
    """Nodes by the smallest cache length that holds `more` tokens beyond what they have fed (None: none does)."""
    out = collections.defaultdict(list)
    for node in nodes:
      out[next((S for S in self.cache_ladder if node.fed + more <= S), None)].append(node)
    return dict(sorted(out.items(), key=lambda item: item[0] or 0))

  def _batches(self, nodes: list[Node], most: int) -> list[list[Node]]:
    return [nodes[at : at + most] for at in range(0, len(nodes), most)]

  def _feed(self, params: Params, nodes: list[Node], S: int | None) -> None:
    """Puts a chunk into the caches of nodes: the first of their tokens (S None), or one that follows S at most."""
    W = self.row_ladder[0]
    slot, length = np.full(W, self._scratch, np.int32), np.zeros(W, np.int32)
    tokens = np.zeros((W, self.chunk), np.int32)
    for i, node in enumerate(nodes):
      part = node.tokens[node.fed : -1][: self.chunk]
      slot[i], length[i], tokens[i, : len(part)] = node.slot, node.fed, part
      node.fed += len(part)
      self.counts["extended"] += len(part)
    if S is None:
      self.pool = self.programs["prefill", W, self.chunk](params, self.pool, slot, tokens)
    else:
      self.pool = self.programs["extend", W, S](params, self.pool, slot, length, tokens)

  def _decode(self, params: Params, nodes: list[Node], tree_of: dict, S: int, temperature: float) -> None:
    C = self.steps
    W = next(w for w in self.row_ladder if w >= len(nodes))
    rows = Rows(
      np.full(W, self._scratch, np.int32), np.zeros(W, np.int32), np.zeros((W, C), np.int32), np.zeros(W, np.int32),
      np.zeros(W, np.int32), np.zeros((W, 2), np.uint32),
    )  # fmt: skip
    for i, node in enumerate(nodes):
      left = len(node.tokens) - node.fed
      rows.slot[i], rows.length[i] = node.slot, node.fed
      rows.pending[i, : min(left, C)] = node.tokens[node.fed : node.fed + C]
      rows.sample_from[i] = min(left - 1, C)
      rows.room[i] = tree_of[id(node)].room(node)
      rows.key[i] = node.key
    self.pool, out = self.programs["decode", W, S](params, self.pool, rows, self._token_mask, np.float32(temperature))
    token, logp, sampled, fed = jax.device_get((out.token, out.logp, out.sampled, out.fed))
    for i, node in enumerate(nodes):
      new = sampled[i]
      node.fed += int(fed[i])
      if new.any():
        tree_of[id(node)].sample(node, token[i][new].tolist(), logp[i][new].tolist())
    self.counts["slices"] += 1
    self.counts["decode_steps"] += C
    self.counts["row_steps"] += W * C
    self.counts["fed"] += int(fed.sum())
    self.counts["sampled"] += int(sampled.sum())
