"""What is known of the chips that a plan can be made for: memory, peak rates, and where each number comes from."""

import dataclasses

G = 1e9
GiB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device as JAX sees it.

  Attributes:
    platform: tpu or cuda.
    memory: bytes that programs and arrays may take. TPU: "available HBM" of the compiler's own out-of-memory error
      (libtpu 0.0.52), less than the data sheet by what the runtime keeps. CUDA: MEMORY_FRACTION of the device.
    flops: peak FLOP/s of bfloat16 products with float32 sums, dense.
    bandwidth: bytes/s of the device's memory.
    per_chip: devices a chip shows; all numbers are of one device.
    source: of the peak rates.
  """

  platform: str
  memory: float
  flops: float
  bandwidth: float
  per_chip: int
  source: str


TPU_DOCS = "docs.cloud.google.com/tpu/docs"
MEMORY_FRACTION = 0.92  # what the scripts of launch/ let JAX take of a GPU (its own default is 0.75)

CHIPS = {
  "v4": Chip("tpu", 30.75 * GiB, 275e12, 1228 * G, 1, f"{TPU_DOCS}/v4, both cores as one device"),
  "v5e": Chip("tpu", 15.75 * GiB, 197e12, 819 * G, 1, f"{TPU_DOCS}/v5e"),
  "v5p": Chip("tpu", 95.73 * GiB, 459e12, 2765 * G, 1, f"{TPU_DOCS}/tpu7x"),
  "v6e": Chip("tpu", 31.24 * GiB, 918e12, 1638 * G, 1, f"{TPU_DOCS}/tpu7x"),
  "tpu7x": Chip("tpu", 94.74 * GiB, 2307e12 / 2, 7380 * G / 2, 2, f"{TPU_DOCS}/tpu7x, halved: two devices a chip"),
  "h100": Chip("cuda", MEMORY_FRACTION * 84_942_979_072, 989.4e12, 3352 * G, 1, "NVIDIA H100 SXM data sheet"),
}
