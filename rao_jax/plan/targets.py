"""Devices of a named topology that this machine does not have, to compile for."""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from rao_jax.plan.chips import CHIPS, Chip

FORMS = "v5e:4x4, v6e:8x8, v4:2x2x4, v5p:2x2x4, tpu7x:2x2x1, or h100:8 (GPUs in all, 8 a host)"
GPUS_A_HOST = 8

# What XLA's GPU compiler asks of a device, in its own text format. Public figures of the H100 SXM, compute capability
# 9.0a; the names of the fields are those of xla/stream_executor/device_description.proto.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  device_memory_size: 84942979072 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True)
class Target:
  """A topology: its name, what its chip is, and its compile-only devices."""

  name: str
  chip: Chip
  devices: Sequence[jax.Device]

  @property
  def size(self) -> str:
    chips = len(self.devices) // self.chip.per_chip
    return f"{chips} chips" + f", {len(self.devices)} devices" * (self.chip.per_chip > 1)


def find_target(name: str) -> Target:
  """The target called `name`; ValueError if there is none, ImportError if its compiler is not installed."""
  kind, _, shape = name.partition(":")
  if kind not in CHIPS or not re.fullmatch(r"\d+(x\d+){0,2}", shape):
    raise ValueError(f"--topology={name}: not a topology. It reads CHIP:SHAPE, e.g. {FORMS}")
  chip = CHIPS[kind]
  return Target(name, chip, (_gpus if chip.platform == "cuda" else _tpus)(name, kind, shape))


def _tpus(name: str, kind: str, shape: str) -> Sequence[jax.Device]:
  if importlib.util.find_spec("libtpu") is None:
    raise ImportError(f"--topology={name} needs the TPU compiler: pip install 'rao-jax[plan]' (package libtpu)")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # another process may be compiling too
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # this is no TPU VM: do not look for its metadata server
  options = {"chip_config_name": "megacore"} if kind == "v4" else {}
  try:
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
  except jax.errors.JaxRuntimeError as e:
    raise ValueError(f"--topology={name}: {kind} has no slice {shape} ({e}). Such as {FORMS}") from e


def _gpus(name: str, kind: str, shape: str) -> Sequence[jax.Device]:
  if importlib.util.find_spec("jax_cuda12_plugin") is None:
    raise ImportError(
      f"--topology={name} needs the CUDA compiler: pip install 'rao-jax[plan-cuda]' (packages jax-cuda12-plugin and "
      "nvidia-cudnn-cu12)"
    )
  count = int(shape) if shape.isdigit() else 0
  if count < 1 or (count > GPUS_A_HOST and count % GPUS_A_HOST):
    raise ValueError(f"--topology={name}: a number of GPUs up to {GPUS_A_HOST}, or a multiple of it. Such as {FORMS}")
  jax.devices()  # the plugin registers its topologies only when backends are set up
  hosts = -(-count // GPUS_A_HOST)
  description = topologies.get_topology_desc(
    platform="cuda", topology_name=kind, topology=f"1x{hosts}x{count // hosts}", target_config=H100
  )
  return description.devices
