import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES, Rules, make_mesh


@pytest.fixture(scope="module")
def train():
  return Rules.of(make_mesh(data=2, fsdp=2, tensor=2), TRAIN_RULES)


def test_the_rest_of_the_devices_goes_to_the_axis_of_size_minus_one():
  assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "expert": 1, "tensor": 1}
  assert dict(make_mesh(data=2, fsdp=-1, tensor=2).shape) == {"data": 2, "fsdp": 2, "expert": 1, "tensor": 2}


def test_mesh_of_too_many_devices_names_both_numbers_and_the_remedy():
  with pytest.raises(ValueError, match=r"expert=1, tensor=1\) needs 16 devices, found 8: set config\.mesh\.data"):
    make_mesh(data=4, fsdp=4)


def test_mesh_of_too_few_devices_is_refused_not_cut():
  with pytest.raises(ValueError, match=r"needs 2 devices, found 8"):
    make_mesh(data=2)


def test_rest_that_is_no_whole_number_names_both_numbers_and_the_remedy():
  with pytest.raises(ValueError, match=r"3 does not divide the 8 devices found: change config\.mesh"):
    make_mesh(data=-1, tensor=3)


@pytest.mark.parametrize("sizes", [dict(data=-1, fsdp=-1), dict(data=0), dict(data=-2)])
def test_sizes_that_mean_nothing_are_refused(sizes):
  with pytest.raises(ValueError, match=r"sizes must be positive, and at most one may be -1"):
    make_mesh(**sizes)


def test_spec_follows_the_table_and_rollout_does_not_split_weights_over_fsdp(train):
  assert train.spec((32, 4, 8), ("embed", "heads", None)) == P("fsdp", "tensor", None)
  assert train.spec((8, 5), ("rows", None)) == P(("data", "fsdp"), None)
  rollout = Rules.of(train.mesh, ROLLOUT_RULES)
  assert rollout.spec((32, 4, 8), ("embed", "heads", None)) == P(None, "tensor", None)
  assert (train.ways("rows"), train.ways("heads"), train.ways("act_embed"), train.ways(None)) == (4, 2, 1, 1)


def test_size_that_cannot_be_split_names_axis_size_ways_and_remedy(train):
  with pytest.raises(
    ValueError, match=r"'heads' of size 3 cannot be split 2 ways over mesh axes tensor: choose .* a multiple of 2"
  ):
    train.spec((32, 3, 8), ("embed", "heads", None))
  with pytest.raises(ValueError, match=r"'rows' of size 6 cannot be split 4 ways"):
    train.spec((6,), ("rows",))


def test_kv_heads_are_copied_where_the_mesh_does_not_divide_them(train):
  assert train.spec((32, 1, 8), ("embed", "kv_heads", None)) == P("fsdp", None, None)
  assert train.spec((32, 2, 8), ("embed", "kv_heads", None)) == P("fsdp", "tensor", None)


def test_axes_and_dimensions_must_be_as_many(train):
  with pytest.raises(ValueError):
    train.spec((32, 4, 8), ("embed", "heads"))


def test_constrain_pins_the_layout_and_keeps_the_values(train):
  x = np.arange(32, dtype=np.float32).reshape(8, 4)
  y = jax.jit(lambda x: train.constrain(x, "rows", "mlp"))(jnp.asarray(x))
  assert y.sharding.spec == P(("data", "fsdp"), "tensor") and y.addressable_shards[0].data.shape == (2, 2)
  np.testing.assert_array_equal(y, x)
