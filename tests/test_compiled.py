"""The programs of training and rollout compiled for chips that are not here: their kernels, and what they move."""

import dataclasses
import functools
import math
import os
import re

import jax
import jax.numpy as jnp
import pytest

from rao_jax.learn.losses import LossOptions
from rao_jax.learn.state import make_optimizer, make_schedule
from rao_jax.learn.step import trace_step
from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES, Rules, make_mesh
from rao_jax.plan.targets import find_target
from rao_jax.policy.experts import mixture
from rao_jax.policy.transformer import PolicyConfig
from rao_jax.rollout.programs import trace_rollout

pytestmark = pytest.mark.plan

TPU, GPU = "v5e:2x2", "h100:4"
SMALL = PolicyConfig(
  vocab_size=1024, layers=2, width=256, heads=8, kv_heads=4, head_size=128, mlp=512, dtype="bfloat16", remat=True
)
SLOTS, ROWS, CACHE, CHUNK, ROW = 16, 8, 1024, 256, 256
SPLASH, CUDNN = "tpu_custom_call", "__cudnn$fmha"
COLLECTIVE = re.compile(r" = (.*?) (?:all-gather|all-to-all|all-reduce|collective-permute|reduce-scatter)(?:-start)?\(")
HOST = re.compile(r" (infeed|outfeed|send|recv)\(|callback|host_transfer")


def mesh_of(topology, **sizes):
  try:
    devices = find_target(topology).devices
  except ImportError as e:
    if os.environ.get("RAO_FULL"):
      raise
    pytest.skip(str(e))
  return make_mesh(devices=devices, **sizes)


@functools.cache
def compiled(kind, topology=TPU, config=SMALL, **sizes):
  """One of the programs accumulate, prefill, extend, decode."""
  mesh = mesh_of(topology, **(sizes or {"fsdp": 2, "tensor": 2}))
  if kind == "accumulate":
    schedule = make_schedule(1e-3, 1, 10, 0.1)
    optimizer = make_optimizer(schedule, 1.0, 0.9, 0.95, 1e-8, 0.0)
    programs = trace_step(config, Rules.of(mesh, TRAIN_RULES), optimizer, schedule, LossOptions(), (ROW,), 2 * ROW)
    return programs[kind, ROW].lower().compile()
  programs = trace_rollout(config, Rules.of(mesh, ROLLOUT_RULES), 0, (ROWS,), (CACHE,), 16, 0.75, CHUNK, SLOTS)
  return next(traced for (name, *_), traced in programs.items() if name == kind).lower().compile()


def moved(text):
  """Elements of the largest array that a collective gives."""
  shapes = (dims for results in COLLECTIVE.findall(text) for dims in re.findall(r"\w\[([\d,]*)\]", results))
  return max(math.prod(map(int, filter(None, dims.split(",")))) for dims in shapes)


def test_packed_training_on_tpu_runs_splash_forward_and_backward():
  # Forward, forward again for the backward pass (remat), gradients of queries, gradients of keys and values.
  assert compiled("accumulate").as_text().count(SPLASH) == 4


def test_first_prompt_on_tpu_runs_splash_and_later_chunks_and_decoding_do_not():
  assert [compiled(kind).as_text().count(SPLASH) for kind in ("prefill", "extend", "decode")] == [1, 0, 0]


def test_policy_attention_xla_takes_no_kernel():
  assert SPLASH not in compiled("prefill", config=dataclasses.replace(SMALL, attention="xla")).as_text()


@pytest.mark.parametrize(("kind", "kernels"), [("accumulate", 8), ("prefill", 2)])
@pytest.mark.parametrize(("kv_heads", "head_size"), [(1, 256), (2, 64)])
def test_splash_takes_windows_other_head_sizes_and_keys_that_the_mesh_cannot_split(kv_heads, head_size, kind, kernels):
  config = dataclasses.replace(SMALL, kv_heads=kv_heads, head_size=head_size, window=128, window_pattern="SF")
  # Both kinds of layer are compiled, and a layer runs one.
  assert compiled(kind, config=config, tensor=4).as_text().count(SPLASH) == kernels


@pytest.mark.parametrize("kind", ["decode", "prefill", "extend"])
@pytest.mark.parametrize(("kv_heads", "sizes"), [(4, {"data": 2, "tensor": 2}), (1, {"tensor": 4})])
def test_cache_is_donated_stays_where_it_is_and_nothing_goes_to_the_host(kind, kv_heads, sizes):
  program = compiled(kind, config=dataclasses.replace(SMALL, kv_heads=kv_heads), **sizes)
  text = program.as_text()
  ways = 4 if kv_heads == 4 else 1  # slots and heads are split; a single head is on every device
  pool = 2 * 2 * SMALL.layers * SLOTS * kv_heads * CACHE * SMALL.head_size // ways  # bytes of keys and values
  assert program.memory_analysis().alias_size_in_bytes == pool
  assert not HOST.search(text)
  if kind == "decode":  # activations of a step are moved, not as much as the keys of one head of one slot
    assert moved(text) < CACHE * SMALL.head_size


def test_experts_on_tpu_are_one_ragged_product_forward_and_backward():
  rules = Rules.of(mesh_of(TPU, fsdp=2, tensor=2), TRAIN_RULES)
  B, P, D, E, F = 4, 256, 256, 16, 128
  arrays = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((B, P, D), (D, E), (E, D, F), (E, D, F), (E, F, D))]
  loss = lambda *arrays: mixture(*arrays, 2, True, jax.nn.silu, rules).astype(jnp.float32).sum()
  forward, both = (jax.jit(f).lower(*arrays).compile().as_text() for f in (loss, jax.grad(loss, range(5))))
  # Gate, up and down; then each again (their results are not kept), for its input and for its weights.
  assert 3 <= forward.count('"is_ragged_dot":true') < both.count('"is_ragged_dot":true')


def test_half_precision_on_gpu_runs_cudnn_in_training_and_for_the_first_prompt():
  assert "__cudnn$fmhaScaleBiasSoftmaxBackward" in compiled("accumulate", GPU).as_text()
  assert "__cudnn$fmhaSoftmax" in compiled("prefill", GPU).as_text()


def test_float32_on_gpu_falls_back_to_xla_with_one_line(caplog):
  config = dataclasses.replace(SMALL, dtype="float32")
  for kind in ("prefill", "accumulate"):
    assert CUDNN not in compiled(kind, GPU, config).as_text()
  assert [r.message for r in caplog.records if "attention by XLA" in r.message] == [
    "attention by XLA: cuDNN needs config.policy.dtype=bfloat16 or float16, not float32"
  ]
