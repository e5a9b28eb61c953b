"""The frontier: the acting nodes of all trees, decoded together in padded batches by a few compiled programs.

Owns the cache pool and the ladders of shapes. A node holds a slot while it lives; when slots run out, what becomes of
the caches of suspended nodes is for `suspend` to say. Every program of the ladders is compiled here at the start; a
shape outside them is an error, so nothing compiles later.

A tree belongs to one part of the mesh's row axes (`tree.row_shard`): its caches and rows are there, and the process
that holds those devices runs its cells. A tick of several processes: each makes a `plan` for its own trees, they agree
on the rows that each kind of program has to hold, and all `run` the same programs, with empty rows where one has less.
"""

import collections
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from rao_jax.mesh import Rules, call, fetch
from rao_jax.policy.cache import make_pool, position_bytes
from rao_jax.policy.transformer import Params, PolicyConfig
from rao_jax.rollout.engine import Node, Tree
from rao_jax.rollout.generate import Rows
from rao_jax.rollout.keys import fold_keys
from rao_jax.rollout.programs import ProgramName, trace_rollout
from rao_jax.rollout.slots import Admission, HostCaches, Slots

Kind = tuple[str, int]  # of a program, and what its name says of lengths
# What this process wants of a tick: for each kind, by row shard, whom it is for.
Plan = dict[Kind, dict[int, list[tuple]]]


class Frontier:
  """Decodes the acting nodes of many trees.

  Args:
    config: of the policy.
    rules: the rollout rule table over the mesh.
    token_mask: bool[V], tokens that may be sampled.
    end_token: ends a turn.
    row_ladder: rows of a decode batch, ascending; a batch takes the smallest that holds it.
    cache_ladder: cache positions a program reads, ascending; the last must hold the window plus one slice.
    steps: tokens of a decode slice at most.
    chunk: tokens of a `prefill` or `extend` call, for rows with more than half as many pending.
    slots: cache slots; at least the largest batch.
    suspend: when slots run out, `recompute` takes those of suspended nodes, whose caches are computed again when they
      go on; `host` keeps copies of them in this machine's memory, as far as host_bytes go; `keep` takes none: trees
      begin only when there is a slot for every node that they may have.
    host_bytes: of the copies, for this process.
    prefix: tokens that nodes start with; for those that do they are computed once for all of a `begin`.
    least_busy: share of a batch's rows; with fewer still at work its slice ends early.
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
    suspend: str = "recompute",
    host_bytes: int = 0,
    prefix: Sequence[int] = (),
    least_busy: float = 0.75,
  ):
    self.row_ladder, self.cache_ladder = tuple(sorted(row_ladder)), tuple(sorted(cache_ladder))
    self.steps, self.chunk = steps, chunk
    self.shards = rules.ways("rows")
    self._owners = rules.row_owners
    self._own_shards = self._owners.count(jax.process_index())
    for name, sizes in (("row_ladder", self.row_ladder), ("slots", [slots])):
      bad = [n for n in sizes if n % self.shards]
      if bad:
        raise ValueError(
          f"rollout.{name}={bad if name == 'row_ladder' else slots} cannot be split over {self.shards} devices: use "
          f"multiples of {self.shards}"
        )
    if slots < self.row_ladder[-1]:
      raise ValueError(f"rollout.slots={slots} is less than the largest batch {self.row_ladder[-1]}: raise it")
    self._slots = Slots(self.shards, slots // self.shards)
    self._admits = Admission(self.shards, self._slots.each) if suspend == "keep" else lambda tree: True
    self.host_caches = HostCaches(position_bytes(config), host_bytes if suspend == "host" else 0)
    self._token_mask = rules.replicate(token_mask)
    total = slots + self.shards
    self.pool = make_pool(config, total, self.cache_ladder[-1], rules)
    # Row steps paid, those of them that held no node, tokens fed and sampled, evictions, copies to and from the host:
    # of this process while trees are at work; `collect` makes them those of all.
    self.counts = collections.Counter()
    self.decode_steps = 0  # run one after the other, the same on all processes
    traced = trace_rollout(
      config, rules, end_token, self.row_ladder, self.cache_ladder, self.steps, least_busy, self.chunk,
      total, suspend == "host", prefix,
    )  # fmt: skip
    self.programs = self._compiled(traced)
    order = {kind: i for i, kind in enumerate(("save", "load", "prefill", "extend", "decode"))}
    kinds = {(kind, S) for kind, _, S in self.programs if kind in order}
    self._kinds: list[Kind] = sorted(kinds, key=lambda k: (order[k[0]], k[1]))
    self._prefix, self._shared = list(prefix), None
    self._left_out: set[Node] = set()  # by the last plan, though they were ready
    fold_keys(np.zeros(2, np.uint32), [0])  # compiles the one program for keys

  def _compiled(self, traced: dict[ProgramName, jax.stages.Traced]) -> dict[ProgramName, Callable]:
    return {name: one.lower().compile() for name, one in traced.items()}

  def begin(self, params: Params) -> tuple[Params, Params]:
    """Computes what all runs up to the next `begin` share: the prefix, and the parameters as each program reads them.

    Returns:
      what `run` takes: the parameters for chunks, and for decoding.
    """
    if self._prefix:
      self._shared = call(self.programs["prefix", 1, len(self._prefix)], params)
    arrange = self.programs.get(("decode_params", 0, 0))
    return params, call(arrange, params) if arrange else params

  def owner(self, tree: Tree) -> int:
    """The process that works the tree."""
    return self._owners[tree.row_shard]

  @property
  def free_slots(self) -> int:
    return self._slots.free

  def release_ended(self) -> None:
    """Takes back slots and host memory of nodes that have ended."""
    self._slots.release_ended()
    self.host_caches.drop_ended()

  # -- what this process wants ---------------------------------------------------------------------------------------

  def plan(self, work: Sequence[tuple[Tree, Node]]) -> Plan:
    """What it takes to move acting nodes of own trees on by one slice; if slots run out, the first of `work` go.

    What the plan feeds counts as fed from here on.
    """
    plan = collections.defaultdict(lambda: collections.defaultdict(list))
    self.release_ended()
    chosen = [(tree, node) for tree, node in work if node.slot is not None or self._activate(tree, node, plan)]
    fresh = [node for _, node in chosen if node.key is None]
    if fresh:
      keys = fold_keys(np.stack([node.parent.key for node in fresh]), [node.path[-1] for node in fresh])
      for node, key in zip(fresh, keys):
        node.key = key
    ready = collections.defaultdict(list)
    for tree, node in chosen:
      shard = tree.row_shard
      # A chunk costs the same however full it is, so short prompts and outputs go through decode, one token a step.
      if node.fed == node.prefix and self._takes_chunk(node):
        plan["prefill", self.chunk][shard].append(self._feed(node))
      if self._takes_chunk(node):
        plan["extend", self._bucket(node.own_fed + self.chunk)][shard].append(self._feed(node))
      ready[shard].append((tree, node))
    left_out, self._left_out = self._left_out, set()
    for shard, rows in ready.items():
      for S, batch in self._batches(sorted(rows, key=lambda row: row[1] not in left_out)):
        plan["decode", S][shard] += batch
    return plan

  def _batches(self, rows: list[tuple[Tree, Node]]) -> list[tuple[int, list[tuple[Tree, Node]]]]:
    """The rows of a shard that are decoded now, in batches: (cache positions that a batch needs, its rows).

    With more than a full batch, only full ones: who is left out comes first the next time, with others that are ready
    then. Long rows share a batch, which short ones fill up.
    """
    each = self.row_ladder[-1] // self.shards
    full = len(rows) // each * each or len(rows)
    self._left_out.update(node for _, node in rows[full:])
    length = lambda row: self._bucket(row[1].own_fed + self.steps)
    now = sorted(rows[:full], key=length, reverse=True)
    return [(length(now[at]), now[at : at + each]) for at in range(0, full, each)]

  def _takes_chunk(self, node: Node) -> bool:
    return len(node.tokens) - node.fed > self.chunk // 2 and node.own_fed + self.chunk <= self.cache_ladder[-1]

  def _bucket(self, length: int) -> int:
    return next(S for S in self.cache_ladder if length <= S)

  def _feed(self, node: Node) -> tuple[int, int, int, list[int]]:
    """The next chunk of a node: (slot, tokens in the shared prefix, position in the slot, tokens)."""
    start, part = node.own_fed, node.tokens[node.fed : -1][: self.chunk]
    node.fed += len(part)
    self.counts["extended"] += len(part)
    return node.slot, node.prefix, start, part

  def _activate(self, tree: Tree, node: Node, plan: Plan) -> bool:
    """Gives a node a slot, and what the host has of its cache; False if it has to wait."""
    shard = tree.row_shard
    if not self._admits(tree):
      return False
    known = len(self._prefix)
    node.prefix = known if len(node.tokens) > known and node.tokens[:known] == self._prefix else 0
    if not self._slots.give(node, shard):
      idle = self._slots.idle(shard)
      if idle is None:
        return False
      self.counts["evictions"] += 1
      if self.host_caches.reserve(idle, idle.own_fed):
        self.counts["saved"] += 1
        plan["save", self._bucket(idle.own_fed)][shard].append((idle.slot, idle.own_fed, idle))
      self._slots.release(idle)
      self._slots.give(node, shard)
    if node in self.host_caches:
      self.counts["loaded"] += 1
      filled, arrays = self.host_caches.take(node)
      node.fed += filled
      plan["load", self._bucket(filled)][shard].append((node.slot, filled, arrays))
    return True

  # -- what all processes run ----------------------------------------------------------------------------------------

  def rows(self, plan: Plan | None) -> list[int]:
    """For each kind of program the most rows that the plan has in a shard: what processes have to agree on."""
    if plan is None:
      return [0] * len(self._kinds)
    return [max(map(len, plan[kind].values()), default=0) if kind in plan else 0 for kind in self._kinds]

  def run(
    self, params: tuple[Params, Params], plan: Plan, rows: Sequence[int], temperature: float
  ) -> list[tuple[Tree, Node, list[int], list[float]]]:
    """Runs a plan in as many batches as `rows`, the agreed numbers of rows a shard, take; `params` are of `begin`.

    Returns:
      (tree, node, tokens sampled, their log-probabilities) of this process's nodes that sampled any.
    """
    sampled, (for_chunks, for_decode) = [], params
    for (kind, S), most in zip(self._kinds, rows):
      widest = {"decode": self.row_ladder[-1], "save": self.shards, "load": self.shards}.get(kind, self.row_ladder[0])
      each, wanted = widest // self.shards, plan.get((kind, S), {})
      for at in range(0, most, each):
        W = widest
        if kind == "decode":
          W = next(W for W in self.row_ladder if min(most - at, each) * self.shards <= W)
        batch = [
          (shard * (W // self.shards) + i, item)
          for shard, items in wanted.items()
          for i, item in enumerate(items[at : at + each])
        ]
        if kind == "decode":
          sampled += self._decode(for_decode, batch, W, S, temperature)
        elif kind == "save":
          self._save(batch, S)
        elif kind == "load":
          self._load(batch, S)
        else:
          self._extend(for_chunks, batch, kind, W, S)
    return sampled

  def _padding(self, W: int) -> np.ndarray:
    return np.full(W, self._slots.padding, np.int32)

  def _extend(self, params: Params, batch: list[tuple], kind: str, W: int, S: int) -> None:
    """Puts chunks into caches: the first of their tokens (prefill), or ones that follow S positions at most."""
    slot, tokens = self._padding(W), np.zeros((W, self.chunk), np.int32)
    prefix, length = np.zeros((2, W), np.int32)
    for row, (at, known, start, part) in batch:
      slot[row], prefix[row], length[row], tokens[row, : len(part)] = self._slots.local(at), known, start, part
    rows = (slot, prefix, tokens) if kind == "prefill" else (slot, prefix, length, tokens)
    self.pool = call(self.programs[kind, W, S], params, self.pool, self._shared, *rows)

  def _decode(self, params: Params, batch: list[tuple], W: int, S: int, temperature: float) -> list[tuple]:
    C = self.steps
    none = functools.partial(np.zeros, W, np.int32)
    rows = Rows(
      self._padding(W), none(), none(), np.zeros((W, C), np.int32), none(), none(), np.zeros((W, 2), np.uint32)
    )
    for row, (tree, node) in batch:
      left = len(node.tokens) - node.fed
      rows.slot[row], rows.prefix[row], rows.length[row] = self._slots.local(node.slot), node.prefix, node.own_fed
      rows.pending[row, : min(left, C)] = node.tokens[node.fed : node.fed + C]
      rows.sample_from[row] = min(left - 1, C)
      rows.room[row] = tree.room(node)
      rows.key[row] = node.key
    self.pool, out = call(
      self.programs["decode", W, S], params, self.pool, self._shared, rows, self._token_mask, np.float32(temperature)
    )
    out = fetch(out)
    brought = []
    for row, (tree, node) in batch:
      new = out.sampled[row]
      node.fed += int(out.fed[row])
      if new.any():
        brought.append((tree, node, out.token[row][new].tolist(), out.logp[row][new].tolist()))
    own, ran = W // self.shards * self._own_shards, int(out.steps)
    self.decode_steps += ran
    self.counts["row_steps"] += own * ran
    self.counts["empty_steps"] += (own - len(batch)) * ran
    self.counts["fed"] += int(out.fed.sum())
    self.counts["sampled"] += int(out.sampled.sum())
    return brought

  def _save(self, batch: list[tuple], S: int) -> None:
    """Copies caches to the host, a slot of each shard."""
    slot = self._padding(self.shards)
    for row, (at, *_) in batch:
      slot[row] = self._slots.local(at)
    copied = call(self.programs["save", self.shards, S], self.pool, slot)
    if batch:
      k, v = fetch((copied.k, copied.v))
      for row, (_, length, node) in batch:
        self.host_caches.fill(node, k[:, row, :, :length].copy(), v[:, row, :, :length].copy())

  def _load(self, batch: list[tuple], S: int) -> None:
    """Copies caches back from the host, a slot of each shard."""
    slot, start = self._padding(self.shards), np.zeros(self.shards, np.int32)
    L, _, K, _, Q = self.pool.k.shape
    chunk = type(self.pool)(*(np.zeros((L, self.shards, K, S, Q), self.pool.k.dtype) for _ in range(2)))
    for row, (at, length, (k, v)) in batch:
      slot[row] = self._slots.local(at)
      chunk.k[:, row, :, :length], chunk.v[:, row, :, :length] = k, v
    self.pool = call(self.programs["load", self.shards, S], self.pool, slot, start, chunk)
