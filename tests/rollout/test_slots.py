"""Books of cache slots and of host memory, worked by hand, and the settings that cannot work."""

import dataclasses

import numpy as np
import pytest

from rao_jax.build import make_run
from rao_jax.config import validate
from rao_jax.mesh import ROLLOUT_RULES
from rao_jax.policy.cache import position_bytes, slots_within
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Node, Status, Tree
from rao_jax.rollout.slots import Admission, HostCaches, Slots
from tests.branches import Branches, get_config
from tests.tiny import TINY, eight_devices, one_device


def node(status=Status.ACTING):
  return Node((), None, None, "", [1, 2, 3], status=status)


def test_slots_are_of_the_part_asked_for_and_come_back_to_it():
  slots, nodes = Slots(shards=2, each=2), [node() for _ in range(4)]
  assert [slots.give(n, 1) for n in nodes[:3]] == [True, True, False]
  assert slots.give(nodes[3], 0)
  assert [n.slot for n in nodes] == [3, 4, None, 0]  # 2 and 5 are for padding
  assert [slots.local(n.slot) for n in (nodes[0], nodes[1], nodes[3])] == [0, 1, 0] and slots.padding == 2
  nodes[1].status = nodes[3].status = Status.ENDED
  slots.release_ended()
  assert slots.free == 3 and nodes[1].slot is None
  assert slots.give(nodes[2], 1) and nodes[2].slot == 4


def test_slots_are_taken_first_from_nodes_that_wait_and_never_from_those_that_act():
  slots = Slots(1, 3)
  acting, ended_turn, waiting = node(), node(Status.TURN_ENDED), node(Status.WAITING)
  slots.give(acting, 0)
  assert slots.idle(0) is None
  slots.give(ended_turn, 0)
  assert slots.idle(0) is ended_turn
  slots.give(waiting, 0)
  assert slots.idle(0) is waiting


def test_trees_are_admitted_while_all_their_nodes_have_a_slot(byte_protocol, interpreter):
  def tree(nodes, shard):
    tree = Tree(Branches(), Branches().tasks("all")[0], Caps(max_nodes=nodes), byte_protocol, interpreter)
    tree.row_shard = shard
    return tree

  admits = Admission(shards=2, each=10)
  first, second, third, other = (tree(n, shard) for n, shard in [(6, 0), (5, 0), (4, 0), (10, 1)])
  assert [admits(t) for t in (first, second, third, other, first)] == [True, False, True, True, True]
  first.close()
  assert admits(second) and not admits(tree(2, 0))


def test_host_memory_is_counted_by_filled_positions():
  caches, nodes = HostCaches(position_bytes=100, budget=1000), [node() for _ in range(3)]
  assert caches.reserve(nodes[0], 7) and not caches.reserve(nodes[1], 4) and caches.reserve(nodes[2], 3)
  assert not caches.reserve(nodes[1], 0) and (caches.bytes, len(caches)) == (1000, 2)
  caches.fill(nodes[2], np.zeros(3), np.ones(3))
  positions, (_, v) = caches.take(nodes[2])
  assert positions == 3 and v.sum() == 3 and nodes[2] not in caches
  nodes[0].status = Status.ENDED
  caches.drop_ended()
  assert (caches.bytes, len(caches)) == (0, 0)


def test_bytes_of_a_device_bound_its_slots():
  # TINY: 2 layers, 2 heads of 8, float32: 256 bytes a position for keys and values, 25,600 a slot of 100.
  assert position_bytes(TINY) == 256
  one, eight = one_device(ROLLOUT_RULES), eight_devices(ROLLOUT_RULES, data=4, tensor=2)
  assert slots_within(TINY, 64, 100, 0, one) == 64
  assert slots_within(TINY, 64, 100, 256_000, one) == 9  # of ten one is for padding
  assert slots_within(TINY, 8, 100, 256_000, one) == 8
  assert slots_within(TINY, 64, 100, 256_000, eight) == 64  # half of the heads each: 19 on each of four
  assert slots_within(TINY, 64, 100, 64_000, eight) == 16
  assert slots_within(TINY, 64, 100, 1000, one) == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  run = make_run(get_config("data=8"), tmp_path_factory.mktemp("slots"))
  yield run
  run.close()


@pytest.mark.parametrize(
  ("group", "changes", "said"),
  [
    (
      "cache",
      dict(bytes=20_000),
      r"config\.cache\.bytes=20000 a device hold 0 cache slots.*largest batch, 8: raise it",
    ),
    ("cache", dict(suspend="keep"), r"each of the 8 nodes .* has 2: set config\.rollout\.slots to 64 or more"),
    ("rollout", dict(slots=20), r"rollout\.slots=20 cannot be split over 8 devices"),
  ],
)
def test_settings_that_leave_too_few_slots_say_what_to_change(run, group, changes, said):
  config = get_config("data=8")
  config[group].update(changes)
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(run, config=config).frontier()


def test_settings_that_mean_nothing_are_refused():
  config = get_config()
  config.cache.suspend = "drop"
  with pytest.raises(ValueError, match=r"config\.cache\.suspend='drop': choose one of"):
    validate(config)
  config.cache.update(dict(suspend="keep", host_bytes=1))
  with pytest.raises(ValueError, match=r"config\.cache\.host_bytes does nothing with config\.cache\.suspend=keep"):
    validate(config)


def test_experts_axis_without_experts_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"config\.mesh\.expert=2 splits experts, and the policy has none"):
    make_run(get_config("data=4,expert=2"), tmp_path)
