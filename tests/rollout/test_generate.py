"""Decoding through the frontier, against one forward over the finished tokens.

A tiny world stands in for the sandbox: what a cell does (finish, print, launch) follows from a checksum of its text, so
random parameters grow trees with several turns, short and long outputs, and children.
"""

import contextlib
import dataclasses
import functools
import math
import re
import zlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rao_jax.envs.base import Task
from rao_jax.mesh import ROLLOUT_RULES
from rao_jax.policy import strips, transformer
from rao_jax.policy.params import param_shardings
from rao_jax.policy.sampling import masked_log_softmax
from rao_jax.policy.transformer import forward
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import LAUNCH, Outcome, Tree
from rao_jax.rollout.frontier import Frontier
from rao_jax.rollout.interpreter import CellResult, Launch
from rao_jax.rollout.protocol import CONTROLS, CompactProtocol, token_mask
from tests.tiny import TINY, eight_devices, one_device, random_params

TEMPERATURE = 0.7
NEAR = 1e-3  # perturbed logits closer than this may be drawn either way: float sums differ between batches
CAPS = Caps(
  max_depth=2, max_nodes=7, max_turns=4, launches_per_cell=2, turn_tokens=16, output_tokens=24, window=72, min_turn=4,
  result_tokens=8,
)  # fmt: skip


class Letters:
  """A tokenizer of 59 letters and the control tokens."""

  alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ[].: ,?"
  vocab_size = 64
  not_text = frozenset(range(len(CONTROLS)))

  def encode(self, text):
    return [len(CONTROLS) + max(self.alphabet.find(c), 0) for c in text]

  def decode(self, tokens):
    return "".join(self.alphabet[t - len(CONTROLS)] for t in tokens)

  def control(self, name):
    return CONTROLS.index(name)


class Checksum:
  """A sandbox in which the checksum of a cell decides what it does."""

  def run(self, state, code, names, call):
    number = zlib.crc32(code.encode())
    kind, size = number % 4, number // 4 % 45
    if kind == 0:
      return CellResult("finished", finish=code[:5] + ".")
    if kind == 1 or LAUNCH not in names:
      return CellResult("ended", state=1, stdout=(code + "?") * size)
    goals = [(f"{code}{i}" * 9)[: size + i] for i in range(1 + number // 256 % 2)]
    launches = tuple(Launch(i, (goal,), {}, call_id=i) for i, goal in enumerate(goals))
    return CellResult("waiting", state=2, launches=launches, launch_calls=len(launches))

  def resume(self, state, answers, names, call):
    return CellResult(
      "ended", state=1, stdout=", ".join(answers[i] for i in sorted(answers)), launch_calls=len(answers)
    )

  def discard(self, state):
    pass


class Chatter:
  """The environment, and its own episode: a goal is a text, whoever finishes succeeds."""

  functions = pieces = ()

  def start(self, task):
    self.text = task.data["text"]
    return self

  def root_goal(self):
    return self.text

  def prompt(self, goal):
    return goal

  def begin(self, path, goal):
    pass

  def subgoal(self, path, args, kwargs):
    return args[0]

  def end(self, path, message):
    return float(message is not None)


PROTOCOL = CompactProtocol(Letters())
MASK = token_mask(PROTOCOL, TINY.vocab_size) & (np.arange(TINY.vocab_size) < 14)  # nine letters and the end token

POSITION = 2 * 2 * 2 * 8 * 4  # bytes of a cache position: keys and values of TINY's layers, heads of 8 float32
SPLIT = functools.partial(eight_devices, ROLLOUT_RULES)
COMMON = "abcd"  # begins the goal of every second root
PREFIX = PROTOCOL.prompt(COMMON)[:-1]
# Name: (mesh, row ladder, cache ladder, steps, chunk, slots, what becomes of suspended caches and bytes of the host,
# shared prefix, least share of busy rows). `scarce` and `host` have a slot for three of some twenty live nodes, `keep`
# for those of one tree.
ONE = functools.partial(one_device, ROLLOUT_RULES)
LADDERS = {
  "base": (ONE, (4,), (80,), 4, 16, 64),
  "scarce": (ONE, (1, 3), (32, 80), 3, 8, 3),
  "host": (ONE, (3,), (80,), 4, 8, 3, "host", 1 << 20),
  "keep": (ONE, (3,), (80,), 4, 8, 7, "keep", 0),
  "data8": (functools.partial(SPLIT, data=8), (8, 16), (80,), 4, 16, 64),
  "data2_fsdp2_tensor2": (
    functools.partial(SPLIT, data=2, fsdp=2, tensor=2), (4,), (80,), 8, 16, 8, "host", 1 << 20,
  ),
  "data2_tensor4": (functools.partial(SPLIT, data=2, tensor=4), (4,), (80,), 4, 16, 64),
  "prefix": (ONE, (1, 3), (32, 80), 3, 8, 3, "host", 1 << 20, PREFIX),
  "unrolled": (ONE, (3,), (32, 80), 4, 8, 64, "recompute", 0, PREFIX),
  "unrolled_strips": (ONE, (3,), (32, 80), 4, 8, 64),
  "unrolled_data2_tensor4": (functools.partial(SPLIT, data=2, tensor=4), (4,), (80,), 4, 16, 64),
  "early": (ONE, (1, 3), (32, 80), 8, 8, 64, "recompute", 0, (), 1.0),
  "late": (ONE, (1, 3), (32, 80), 8, 8, 64, "recompute", 0, (), 0.0),
  "prefix_data2_tensor4": (functools.partial(SPLIT, data=2, tensor=4), (4,), (80,), 4, 16, 64, "keep", 0, PREFIX),
}  # fmt: skip
others = pytest.mark.parametrize("name", [name for name in LADDERS if name != "base"])
every = pytest.mark.parametrize("name", list(LADDERS))


@functools.cache
def frontier(name):
  rules, *rest = LADDERS[name]
  config = dataclasses.replace(TINY, unroll=name.startswith("unrolled"))
  with contextlib.ExitStack() as stack:
    if name.endswith("strips"):  # for which TINY is too small
      stack.enter_context(mock.patch.object(transformer, "CACHED", 0))
      stack.enter_context(mock.patch.object(strips, "WIDTH", 16))
    return Frontier(config, rules(), MASK, PROTOCOL.end, *rest)


def place(name, params):
  return jax.device_put(params, param_shardings(TINY, LADDERS[name][0]()))


def plant(seed=0, count=24):
  """Fresh trees with prompts of 1, 7, ... 43 letters, shorter and longer than slices and chunks; some after COMMON."""
  text = Letters.alphabet * 2
  goals = [COMMON * (i % 2) + text[i : i + 1 + 6 * (i % 8)] for i in range(count)]
  tasks = [Task(f"task.{i}", "easy", {"text": goal}) for i, goal in enumerate(goals)]
  keys = [np.asarray(jax.random.key_data(jax.random.key(1000 * seed + i))) for i in range(count)]
  return [Tree(Chatter(), task, CAPS, PROTOCOL, Checksum(), key) for task, key in zip(tasks, keys)]


def grow(name, params=None, temperature=TEMPERATURE, seed=0):
  """Trees worked to their end, and the counts of doing so."""
  f, trees = frontier(name), plant(seed)
  before = f.counts.copy()
  collect(place(name, random_params(TINY) if params is None else params), trees, f, temperature)
  return trees, f.counts - before


grown = functools.cache(grow)


def nodes_of(trees):
  return [node for tree in trees for node in tree.nodes]


@functools.partial(jax.jit, static_argnums=2)
def _judge(params, tokens, temperature, keys):
  logp = masked_log_softmax(forward(params, TINY, tokens), MASK, temperature)[:, :-1]
  at = jnp.arange(1, tokens.shape[1])
  draw = lambda key, i: jax.random.gumbel(jax.random.fold_in(jax.random.wrap_key_data(key), i), (TINY.vocab_size,))
  return logp, jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(keys, at)


def judge(nodes, params, temperature=TEMPERATURE):
  """By one plain forward over finished nodes: log-probabilities and noise [N, S - 1, V] of position i + 1 at i."""
  tokens = np.zeros((-(-len(nodes) // 64) * 64, CAPS.window), np.int32)
  keys = np.zeros((len(tokens), 2), np.uint32)
  for i, node in enumerate(nodes):
    tokens[i, : len(node.tokens)], keys[i] = node.tokens, node.key
  return jax.device_get(_judge(params, tokens, temperature, keys))


def turns_of(node):
  """[start, end) of the stretches that a node sampled."""
  edges = np.flatnonzero(np.diff([0, *node.is_action, 0]))
  return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def assert_keyed_replay(trees, again, params, temperature=TEMPERATURE):
  """Same trees, up to choices that were near ties; returns how many trees part."""
  parted = 0
  for tree, other in zip(trees, again, strict=True):
    mine, theirs = ({node.path: node for node in t.nodes} for t in (tree, other))
    excused = False
    for path in mine.keys() & theirs.keys():
      a, b = mine[path], theirs[path]
      at = next((i for i, (x, y) in enumerate(zip(a.tokens, b.tokens)) if x != y), None)
      if at is None or not (a.is_action[at] and b.is_action[at]):
        continue  # the same, or it was told something else: whoever told it must have an excuse
      np.testing.assert_array_equal(a.key, b.key)
      logp, noise = judge([a], params, temperature)
      perturbed = logp[0, at - 1] + noise[0, at - 1]
      gap = abs(perturbed[a.tokens[at]] - perturbed[b.tokens[at]])
      assert gap < NEAR, f"{tree.task.id} {path}: token {at} differs by a gap of {gap}"
      excused = True
    same = mine.keys() == theirs.keys() and all(mine[path].tokens == theirs[path].tokens for path in mine)
    assert same or excused, f"{tree.task.id}: trees differ, but no choice does"
    parted += not same
  return parted


def test_forest_has_what_the_tests_below_are_about():
  trees, counts = grown("base")
  nodes = nodes_of(trees)
  assert {node.depth for node in nodes} == {0, 1, 2}
  assert {Outcome.FINISHED, Outcome.TRUNCATED, Outcome.CONTEXT_FULL} <= {node.outcome for node in nodes}
  assert max(len(node.turns) for node in nodes) >= 3
  assert counts["extended"] > 100 and counts["evictions"] == 0


@every
def test_recorded_log_probabilities_are_those_of_a_full_forward(name):
  nodes = nodes_of(grown(name)[0])
  logp, _ = judge(nodes, random_params(TINY))
  for i, node in enumerate(nodes):
    at = np.flatnonzero(node.is_action)
    np.testing.assert_allclose(np.array(node.logp)[at], logp[i, at - 1, np.array(node.tokens)[at]], atol=1e-4)


@every
def test_every_token_is_the_draw_of_its_node_key_and_position(name):
  nodes = nodes_of(grown(name)[0])
  logp, noise = judge(nodes, random_params(TINY))
  checked = 0
  for i, node in enumerate(nodes):
    for at in np.flatnonzero(node.is_action):
      perturbed = logp[i, at - 1] + noise[i, at - 1]
      assert perturbed.max() - perturbed[node.tokens[at]] < NEAR, (node.path, at)
      checked += 1
  assert checked > 300


def test_node_key_is_the_parent_key_folded_with_the_launch_index():
  for node in nodes_of(grown("base")[0]):
    if node.parent is not None:
      key = jax.random.fold_in(jax.random.wrap_key_data(node.parent.key), node.path[-1])
      np.testing.assert_array_equal(node.key, jax.random.key_data(key))


@others
def test_other_ladders_slots_and_meshes_replay_the_same_trees(name):
  assert assert_keyed_replay(grown("base")[0], grown(name)[0], random_params(TINY)) <= 1


def test_other_keys_are_no_replay():
  with pytest.raises(AssertionError):
    assert_keyed_replay(grown("base")[0], grow("base", seed=1)[0], random_params(TINY))


def test_other_parameters_are_no_replay():
  with pytest.raises(AssertionError, match="differs by a gap"):
    assert_keyed_replay(grown("base")[0], grow("base", params=random_params(TINY, 1))[0], random_params(TINY))


def test_scarce_slots_evict_and_feed_more_than_once():
  _, plenty = grown("base")
  _, scarce = grown("scarce")
  assert scarce["evictions"] > 20
  assert scarce["sampled"] == plenty["sampled"] == sum(tree.ledger.sampled for tree in grown("base")[0])
  assert scarce["fed"] + scarce["extended"] > plenty["fed"] + plenty["extended"]


@pytest.mark.parametrize("name", ["base", "keep", "host", "data2_fsdp2_tensor2", "prefix", "prefix_data2_tensor4"])
def test_where_no_cache_is_lost_every_token_is_fed_once(name):
  # All but a node's last token, which is sampled and never fed, and those that the prefix has.
  trees, counts = grown(name)
  nodes = nodes_of(trees)
  assert counts["fed"] + counts["extended"] == sum(len(node.tokens) - 1 - node.prefix for node in nodes)
  for node in nodes:
    starts = "prefix" in name and node.tokens[:-1][: len(PREFIX)] == PREFIX
    assert node.prefix == (len(PREFIX) if starts else 0)
  assert "prefix" not in name or {0, len(PREFIX)} == {node.prefix for node in nodes}


def test_slices_end_once_too_few_rows_are_at_work():
  taken = lambda counts: counts["row_steps"] - counts["empty_steps"]
  early, base, late = (grown(name)[1] for name in ("early", "base", "late"))
  assert early["fed"] == taken(early)  # no row ever waits for another
  assert 0.75 * taken(base) <= base["fed"] < taken(base)
  assert late["fed"] < 0.85 * taken(late)


def test_caches_go_to_the_host_and_come_back_as_far_as_its_bytes_go():
  for name in ("host", "data2_fsdp2_tensor2", "prefix"):
    _, counts = grown(name)
    assert counts["evictions"] == counts["saved"] >= counts["loaded"] > 5  # some never act again
  assert grown("keep")[1]["evictions"] == grown("scarce")[1]["saved"] == 0
  caches = frontier("host").host_caches
  whole, caches.budget = caches.budget, 80 * POSITION
  try:
    trees, short = grow("host")
  finally:
    caches.budget = whole
  assert 0 < short["loaded"] <= short["saved"] < short["evictions"]
  assert_keyed_replay(grown("base")[0], trees, random_params(TINY))


@every
def test_no_slot_and_no_host_memory_is_held_after_a_rollout(name):
  grown(name)
  f = frontier(name)
  assert f.host_caches.bytes == len(f.host_caches) == 0 and f.free_slots == LADDERS[name][5]


def test_a_tree_that_fails_gives_back_what_it_holds():
  trees, f = plant(), frontier("host")

  def interrupt(running):
    if len(f.host_caches) > 1:
      raise InterruptedError

  with pytest.raises(InterruptedError):
    collect(place("host", random_params(TINY)), trees, f, TEMPERATURE, interrupt)
  assert f.host_caches.bytes == len(f.host_caches) == 0 and f.free_slots == 3


@every
def test_turns_end_at_the_end_token_or_with_their_room(name):
  for node in nodes_of(grown(name)[0]):
    assert len(node.tokens) <= CAPS.window
    for start, end in turns_of(node):
      turn = node.tokens[start:end]
      room = min(CAPS.turn_tokens, CAPS.window - start)
      assert PROTOCOL.end not in turn[:-1] and len(turn) <= room
      if turn[-1] != PROTOCOL.end:
        assert len(turn) == room and node.outcome is Outcome.TRUNCATED and end == len(node.tokens)


@every
def test_masked_tokens_are_never_sampled(name):
  drawn = {t for node in nodes_of(grown(name)[0]) for t, sampled in zip(node.tokens, node.is_action) if sampled}
  assert drawn <= set(np.flatnonzero(MASK).tolist()) and len(drawn) > 5


def test_temperature_zero_takes_the_most_likely_token_whatever_the_key():
  trees, again = grow("base", temperature=0.0)[0], grow("base", temperature=0.0, seed=1)[0]
  assert [node.tokens for node in nodes_of(trees)] == [node.tokens for node in nodes_of(again)]
  nodes = nodes_of(trees)
  logp, _ = judge(nodes, random_params(TINY), 1.0)
  for i, node in enumerate(nodes):
    for at in np.flatnonzero(node.is_action):
      assert logp[i, at - 1].max() - logp[i, at - 1, node.tokens[at]] < NEAR
      assert abs(node.logp[at] - logp[i, at - 1, node.tokens[at]]) < 1e-4


@pytest.mark.parametrize("name", ["base", "scarce", "prefix"])
def test_caches_of_an_earlier_policy_are_not_read(name):
  params = random_params(TINY, 2)
  grow(name)
  nodes = nodes_of(grow(name, params)[0])
  logp, _ = judge(nodes, params)
  for i, node in enumerate(nodes):
    at = np.flatnonzero(node.is_action)
    np.testing.assert_allclose(np.array(node.logp)[at], logp[i, at - 1, np.array(node.tokens)[at]], atol=1e-4)


def test_only_the_unrolled_matrices_of_one_device_are_in_strips():
  made = {name: frontier(name).programs.get(("decode_params", 0, 0)) for name in LADDERS}
  assert [name for name, one in made.items() if one and "Strips" in str(one.out_tree)] == ["unrolled_strips"]


@every
def test_nothing_compiles_after_construction(name):
  f, trees, params = frontier(name), plant(seed=5), place(name, random_params(TINY))
  _, rows, cache, _, chunk, _, *rest = LADDERS[name]
  others = 2 * len(cache) * ("host" in rest) + (PREFIX in rest) + name.startswith("unrolled")
  assert len(f.programs) == len(rows) * len(cache) + 1 + sum(chunk <= S for S in cache) + others
  compiled = []

  def listen(event, seconds, **_):
    if event.startswith("/jax/core/compile/"):
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    collect(params, trees, f, TEMPERATURE)
    assert not compiled
    jax.jit(lambda x: x * 2 + 1)(1)
    assert compiled  # the listener does hear of compilations
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", ["data8", "data2_fsdp2_tensor2", "data2_tensor4", "prefix_data2_tensor4"])
def test_no_cache_moves_between_devices(name):
  f = frontier(name)
  limit = TINY.layers * f.cache_ladder[0] * TINY.head_size  # the keys of one head of one row
  for program in f.programs.values():
    for line in program.as_text().splitlines():
      if re.search(r" (all-gather|all-reduce|all-to-all|collective-permute)(-start)?\(", line):
        shapes = re.findall(r"\w\[([\d,]*)\]", line)
        assert all(math.prod(int(n) for n in shape.split(",") if n) < limit for shape in shapes), line


def test_rows_that_the_devices_cannot_share_are_refused():
  rules = eight_devices(ROLLOUT_RULES, data=8)
  with pytest.raises(
    ValueError, match=r"rollout\.row_ladder=\[4, 12\] cannot be split over 8 devices: use multiples of 8"
  ):
    Frontier(TINY, rules, MASK, PROTOCOL.end, (4, 8, 12), (80,), 4, 16, 64)


def test_slots_that_the_devices_cannot_share_are_refused():
  rules = eight_devices(ROLLOUT_RULES, data=8)
  with pytest.raises(ValueError, match=r"rollout\.slots=12 cannot be split over 8 devices: use multiples of 8"):
    Frontier(TINY, rules, MASK, PROTOCOL.end, (8,), (80,), 4, 16, 12)


def test_fewer_slots_than_rows_are_refused():
  with pytest.raises(ValueError, match=r"rollout\.slots=3 is less than the largest batch 4: raise it"):
    Frontier(TINY, ONE(), MASK, PROTOCOL.end, (4,), (80,), 4, 16, 3)
