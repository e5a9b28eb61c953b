"""checkpoint.py: what is saved comes back, on any mesh; damage is noticed and the step before is taken."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rao_jax import checkpoint

SPEC = {
  "w": PartitionSpec("data", "tensor"),
  "mu": PartitionSpec("tensor"),
  "key": PartitionSpec(),
  "n": PartitionSpec(),
}


def state(scale, dtype=jnp.float32):
  return {
    "w": scale * jnp.arange(64, dtype=dtype).reshape(8, 8),
    "mu": jnp.arange(16, dtype=jnp.bfloat16) / 8,
    "key": jax.random.key(scale),
    "n": jnp.int32(scale),
  }


def target(shape):
  """Abstract state on a (data, tensor) mesh of that shape."""
  devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
  mesh = jax.sharding.Mesh(devices, ("data", "tensor"))
  abstract = jax.eval_shape(lambda: state(1))
  return {k: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=NamedSharding(mesh, SPEC[k])) for k, v in abstract.items()}


def assert_same(got, expected):
  for key, value in expected.items():
    left, right = got[key], value
    if key == "key":
      left, right = jax.random.key_data(left), jax.random.key_data(right)
    assert left.dtype == right.dtype
    np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def save(folder, steps=(10, 20)):
  with checkpoint.Checkpointer(folder) as checkpoints:
    for step in steps:
      checkpoints.save(step, state(step), {"step": step, "tokens": 2**40 + step})


def data_files(folder):
  """Files with array contents, the largest first."""
  return sorted((p for p in folder.rglob("d/*") if p.is_file()), key=lambda p: -p.stat().st_size)


def test_nothing_saved_restores_none(tmp_path):
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    assert checkpoints.restore(target((1, 1))) is None
    assert checkpoints.restore(target((1, 1)), best=True) is None
    assert checkpoints.best_score is None


def test_round_trip_is_exact_and_keeps_the_newest(tmp_path):
  save(tmp_path, steps=(10, 20, 30, 40))
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    step, restored, meta = checkpoints.restore(target((1, 1)))
  assert (step, meta) == (40, {"step": 40, "tokens": 2**40 + 40})
  assert_same(restored, state(40))
  assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["20", "30", "40"]


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 (virtual) devices")
def test_a_state_saved_on_one_mesh_restores_onto_another(tmp_path):
  on_8 = jax.tree.map(lambda x, t: jax.device_put(x, t.sharding), state(3), target((4, 2)))
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    checkpoints.save(1, on_8, {})
  for shape in [(1, 1), (1, 2), (2, 4)]:
    with checkpoint.Checkpointer(tmp_path) as checkpoints:
      _, restored, _ = checkpoints.restore(target(shape))
    assert_same(restored, state(3))
    assert all(restored[k].sharding == t.sharding for k, t in target(shape).items())


def flip_bit(step):
  file = data_files(step)[0]
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def truncate(step):
  file = data_files(step)[0]
  file.write_bytes(file.read_bytes()[:-1])


def remove_file(step):
  data_files(step)[0].unlink()


def remove_item(step):
  (step / "meta" / "metadata").unlink()


def cut_digests(step):
  file = step / checkpoint.DIGESTS
  file.write_text(file.read_text()[:-10])


def leave_unsealed(step):
  (step / checkpoint.DIGESTS).unlink()


DAMAGE = {
  flip_bit: "changed",
  truncate: "changed",
  remove_file: "missing",
  remove_item: "missing",
  cut_digests: "damaged",
  leave_unsealed: "no digests",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_step_is_named_and_the_step_before_is_taken(tmp_path, damage):
  save(tmp_path)
  damage(tmp_path / "20")
  assert DAMAGE[damage] in checkpoint.find_damage(tmp_path / "20")
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    step, restored, meta = checkpoints.restore(target((1, 1)))
    assert (step, meta["step"]) == (10, 10)
    assert_same(restored, state(10))
    checkpoints.truncate_after(step)  # what a resumed run does
    checkpoints.save(20, state(21), {"step": 20})
    step, restored, _ = checkpoints.restore(target((1, 1)))
  assert step == 20
  assert_same(restored, state(21))


def test_a_damaged_step_can_be_saved_again(tmp_path):
  save(tmp_path)
  flip_bit(tmp_path / "20")
  save(tmp_path, steps=(20,))
  assert checkpoint.find_damage(tmp_path / "20") == ""


def test_without_any_good_step_the_run_does_not_start_anew_in_silence(tmp_path):
  save(tmp_path)
  flip_bit(tmp_path / "10")
  truncate(tmp_path / "20")
  with (
    checkpoint.Checkpointer(tmp_path) as checkpoints,
    pytest.raises(ValueError, match=r"step 20: .*changed.*step 10: .*changed.*remove it"),
  ):
    checkpoints.restore(target((1, 1)))


def test_a_first_save_killed_before_its_seal_is_no_checkpoint(tmp_path):
  save(tmp_path, steps=(10,))
  leave_unsealed(tmp_path / "10")
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    assert checkpoints.restore(target((1, 1))) is None
    checkpoints.save(10, state(10), {})
    assert checkpoints.restore(target((1, 1)))[0] == 10


def test_truncate_after_leaves_earlier_and_best_states(tmp_path):
  save(tmp_path, steps=(10, 20, 30))
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    checkpoints.save_best(30, state(30), {}, 0.5)
    checkpoints.truncate_after(10)
    assert checkpoints.restore(target((1, 1)))[0] == 10
    assert checkpoints.restore(target((1, 1)), best=True)[0] == 30


def test_only_a_better_score_replaces_the_best(tmp_path):
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    saved = [checkpoints.save_best(step, state(step), {}, score) for step, score in [(1, 0.2), (2, 0.5), (3, 0.5)]]
  assert saved == [True, True, False]
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    assert checkpoints.best_score == 0.5
    assert not checkpoints.save_best(4, state(4), {}, 0.4)
    step, restored, meta = checkpoints.restore(target((1, 1)), best=True)
  assert (step, meta) == (2, {"score": 0.5})
  assert_same(restored, state(2))


def test_one_kept_step_is_refused(tmp_path):
  with pytest.raises(ValueError, match="max_to_keep=1"):
    checkpoint.Checkpointer(tmp_path, max_to_keep=1)


def test_a_kill_in_the_middle_of_a_save_leaves_the_step_before(tmp_path):
  child = textwrap.dedent("""
    import sys, jax.numpy as jnp
    from rao_jax import checkpoint
    checkpoints = checkpoint.Checkpointer(sys.argv[1])
    checkpoints.save(10, {"w": jnp.full(2, 10.0)}, {})
    checkpoints.wait()
    checkpoints.save(20, {"w": jnp.full(8_000_000, 20.0)}, {})
    print("writing", flush=True)
    checkpoints.wait()
  """)
  env = os.environ | {"JAX_PLATFORMS": "cpu"}
  process = subprocess.Popen([sys.executable, "-c", child, str(tmp_path)], stdout=subprocess.PIPE, env=env)
  assert process.stdout.readline().strip() == b"writing"
  process.send_signal(signal.SIGKILL)
  process.wait()
  left = {p.name for p in tmp_path.iterdir()} - {"best"}
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    size = 8_000_000 if "20" in left and not checkpoint.find_damage(tmp_path / "20") else 2  # the kill came too late
    step, restored, _ = checkpoints.restore({"w": jnp.zeros(size)})
    assert (step, float(restored["w"][-1])) == ((20, 20.0) if size > 2 else (10, 10.0))
    checkpoints.save(20, {"w": jnp.full(2, 21.0)}, {})  # over whatever the kill left
    assert float(checkpoints.restore({"w": jnp.zeros(2)})[1]["w"][0]) == 21.0
  assert json.loads((tmp_path / "20" / checkpoint.DIGESTS).read_text())


def test_a_step_that_donates_the_state_does_not_reach_into_a_save_under_way(tmp_path):
  update = jax.jit(lambda x: x + 1.0, donate_argnums=0)
  x = jnp.zeros(4_000_000)
  with checkpoint.Checkpointer(tmp_path) as checkpoints:
    checkpoints.save(1, {"x": x}, {})
    for _ in range(20):
      x = update(x)
    _, restored, _ = checkpoints.restore({"x": jnp.zeros(4_000_000)})
  assert not np.asarray(restored["x"]).any()
  assert float(x[0]) == 20.0
