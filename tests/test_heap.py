"""Freed memory stays in the process: counted in pages that the system had to clear."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

PAGES = """
import resource, sys
import jax, jax.numpy as jnp
from rao_jax.heap import keep_memory

def pages():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if backend := sys.argv[1]:
  found, jax.default_backend = jax.default_backend, lambda: backend
  keep_memory()
  jax.default_backend = found
# A temporary array of 64 MiB on every device.
program = jax.jit(lambda rows, columns: (rows[:, None] * columns) @ jnp.ones((4096, 2)))
mesh = jax.make_mesh((jax.device_count(),), ("rows",), (jax.sharding.AxisType.Auto,))
split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
rows = jax.device_put(jnp.ones(4096 * jax.device_count()), split)
columns = jax.device_put(jnp.ones(4096), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
cleared = []
for _ in range(15):
  before = pages()
  program(rows, columns).block_until_ready()
  cleared.append(pages() - before)
print(min(cleared))  # calls of two devices fall together in other ways, until the heap has room for all of them
"""


def cleared(backend: str, devices: int = 1) -> int:
  """Pages that a call of a program clears at least, if memory is kept for this backend; "" is without."""
  env = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
  run = subprocess.run([sys.executable, "-c", PAGES, backend], capture_output=True, text=True, env=env)
  assert run.returncode == 0, run.stderr
  return int(run.stdout)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_process_that_computes_on_the_cpu_keeps_the_memory_of_its_programs(devices):
  assert cleared("cpu", devices) < cleared("", devices) / 10


def test_beside_an_accelerator_the_heap_is_left_alone():
  assert cleared("gpu") > cleared("") / 2
