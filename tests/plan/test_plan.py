"""The planner on the tests' own eight devices, taken for chips of a memory of our choosing; its compilers elsewhere."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from rao_jax.config import base_config
from rao_jax.mesh import make_mesh
from rao_jax.plan import remedies
from rao_jax.plan.chips import CHIPS
from rao_jax.plan.programs import make_plan, parts_of
from rao_jax.plan.remedies import Remedy, find_remedy
from rao_jax.plan.table import as_json, remedy_text, text
from rao_jax.plan.targets import Target, find_target
from rao_jax.plan.verdict import judge_all, wanted_bytes

ROOT = pathlib.Path(__file__).parents[2]
L, D, H, K, Q, F, V = 2, 64, 4, 2, 16, 128, 512  # qwen3_tiny
NORMS = L * (2 * D + 2 * Q) + D
SPLIT = L * (D * Q * (2 * H + 2 * K) + 3 * D * F) + V * D  # parameters that the mesh splits


def config(**settings):
  c = base_config()
  c.policy.preset = "qwen3_tiny"
  c.policy.dtype = "bfloat16"
  c.tasks.train = dict(easy=2)
  c.evaluation.every = 0
  c.mesh.data, c.mesh.fsdp, c.mesh.tensor = 2, 2, 2
  c.caps.window, c.caps.output_tokens = 256, 64
  c.rollout.row_ladder, c.rollout.cache_ladder, c.rollout.slots = (4, 8), (384,), 64
  c.rollout.chunk = 128
  c.learn.row_lengths, c.learn.tokens_per_microbatch = (256,), 256 * 16
  c.update_from_flattened_dict(settings)
  return c


def target(memory: float = 1e9) -> Target:
  return Target("here:8", dataclasses.replace(CHIPS["v5e"], memory=memory), jax.devices())


def quiet(_):
  pass


def made(**settings):
  return make_plan(config(**settings), parts_of(config(**settings), jax.devices()), tokens_per_tree=1000)


@pytest.fixture(scope="module")
def plan():
  return made()


@pytest.fixture(scope="module")
def verdicts(plan):
  return judge_all(plan, target(), quiet)


def program(plan, start):
  return next(p for p in plan.programs if p.name.startswith(start))


def test_arrays_of_a_training_state_are_split_over_fsdp_and_tensor_those_of_the_rollout_over_tensor(plan):
  assert plan.parameters == SPLIT + NORMS
  trained = 4 * (SPLIT / 4 + NORMS)  # float32 over 2 x 2; norms are everywhere
  used = 2 * SPLIT / 2 + 4 * NORMS  # bfloat16 over 2, but norms stay float32
  update, decode = program(plan, "gradients"), program(plan, "decode")
  assert update.resident["parameters"] == trained and update.resident["gradients"] == trained
  assert decode.resident["parameters"] == trained + used and decode.resident["gradients"] == 0
  moments = update.resident["optimiser"]
  assert 2 * trained <= moments <= 2 * trained + 64  # and the counters of the schedule


def test_cache_is_split_over_rows_and_heads_and_has_a_slot_for_padding_in_every_part(plan):
  slots, length = 64 + 4, 384
  assert program(plan, "decode").resident["cache"] == 2 * 2 * L * (slots / 4) * (K / 2) * length * Q


def test_flops_of_the_update_are_those_of_its_tokens(plan):
  tokens = 4096
  matmuls = 2 * tokens * SPLIT
  attention = 4 * tokens * 256 * H * Q * L
  assert program(plan, "gradients").cost.flops == 3 * (matmuls + attention)
  remat = made(**{"policy.remat": True})
  head = 2 * tokens * V * D
  last = 2 * tokens * D * F * L  # the last product of a layer is not read again
  assert program(remat, "gradients").cost.flops == 4 * (matmuls + attention) - head - last


def test_flops_of_a_slice_are_those_of_its_steps(plan):
  rows, steps, cache = 8, 16, 384
  per_step = 2 * rows * SPLIT + 4 * rows * (cache + steps) * H * Q * L
  assert program(plan, "decode").cost.flops == steps * per_step


def test_calls_of_a_step_follow_from_its_tokens(plan):
  assert plan.tokens == 2 * 8 * 1000
  assert program(plan, "decode").calls == 16_000 / (8 * 16) and program(plan, "gradients").calls == 4


def test_adapters_leave_optimiser_and_gradients_to_themselves_and_the_base_in_both_layouts():
  plan = made(**{"policy.lora_rank": 4, "policy.param_dtype": "bfloat16"})
  update = program(plan, "gradients")
  assert update.resident["optimiser"] < 0.2 * update.resident["parameters"]
  assert update.resident["parameters"] > 2 * (SPLIT / 4 + SPLIT / 2)


def test_every_program_fits_if_the_memory_is_large_and_the_parts_sum_to_the_total(plan, verdicts):
  assert [v.name for v in verdicts] == [p.name for p in plan.programs] and all(v.fits for v in verdicts)
  assert all(sum(v.memory.values()) == v.total for v in verdicts)
  assert {v.bound for v in verdicts} <= {"compute", "memory"} and all(v.seconds > 0 for v in verdicts)


def test_table_and_json_say_the_same_and_what_they_cannot_show(plan, verdicts):
  said = text("a.py", plan, target(), verdicts)
  assert "a.py on here:8: 8 chips, mesh data=2 fsdp=2 tensor=2; 106,880 parameters; 16,000 tokens a step" in said
  assert said.count("|  yes |") == len(verdicts) and "never run" in said and "collectives" in said
  record = json.loads(json.dumps(as_json(plan, target(), verdicts, None)))
  assert record["fits"] and record["programs"][0]["memory"] == verdicts[0].memory
  assert "numerics" in record["not_shown"]


def test_remedy_is_the_first_change_that_fits_and_names_what_was_tried(plan, verdicts):
  worst = max(verdicts, key=lambda v: v.total)  # the update, by its activations
  assert worst.name.startswith("gradients")
  small, failed = target(worst.total - 1), ["gradients"]
  remedy = find_remedy(config(), plan.parts, small, 1000, failed, tries=4, say=quiet)
  assert isinstance(remedy, Remedy) and remedy.settings == {"policy.remat": True} and not remedy.tried
  assert "--config.policy.remat=True" in remedy_text(remedy)


def test_changes_whose_arrays_alone_are_too_much_are_not_compiled(plan, monkeypatch):
  monkeypatch.setattr(remedies, "MOST_CHANGES", 1)
  alone = max(sum(p.resident.values()) for p in plan.programs)
  found = find_remedy(config(), plan.parts, target(alone / 50), 1000, [], tries=0, say=quiet)
  assert len(found) > 5 and all("too much by accounting" in line or "not possible" in line for line in found)


def test_size_of_the_compilers_refusal_is_read_from_its_words():
  said = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (16.50G) exceeds available HBM (15.75G). HLO module: jit_extend."
  )
  assert wanted_bytes(said) == 16.5 * 2**30 and wanted_bytes("no idea") is None


# -- targets and the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v5e", "v9:4x4", "v5e:4by4", "h100", "v5litepod-16", "v5e:"])
def test_words_that_are_no_topology_are_refused_with_examples(name):
  with pytest.raises(ValueError, match=r"not a topology\. It reads CHIP:SHAPE, e\.g\. v5e:4x4"):
    find_target(name)


@pytest.mark.parametrize(
  "package,name,extra", [("libtpu", "v5e:2x2", "plan"), ("jax_cuda12_plugin", "h100:8", "plan-cuda")]
)
def test_missing_compiler_names_what_to_install(monkeypatch, package, name, extra):
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  with pytest.raises(ImportError, match=extra):
    find_target(name)


def test_mesh_that_the_devices_do_not_divide_into_names_both_numbers():
  with pytest.raises(ValueError, match=r"needs 12 devices, found 8"):
    made(**{"mesh.data": 3})


def test_policy_without_a_vocabulary_says_what_to_set():
  with pytest.raises(ValueError, match=r"set --config\.policy\.vocab_size"):
    made(**{"policy.preset": ""})


EXPERIMENT = """
import sys
sys.path.insert(0, {root!r})
from tests.plan.test_plan import config as get_config
"""


def command(tmp_path: pathlib.Path, *words: str) -> subprocess.CompletedProcess:
  experiment = tmp_path / "tiny.py"
  experiment.write_text(EXPERIMENT.format(root=str(ROOT)))
  words = (f"--config={experiment}", *words)
  path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
  return subprocess.run(
    [sys.executable, "launch/plan.py", *words],
    cwd=ROOT,
    env=os.environ | dict(PYTHONPATH=path),
    capture_output=True,
    text=True,
    timeout=600,
  )


def needs(package: str) -> None:
  if importlib.util.find_spec(package) is None and not os.environ.get("RAO_FULL"):
    pytest.skip(f"no {package}: see the extras plan and plan-cuda")


@pytest.mark.plan
def test_command_compiles_the_run_for_a_tpu_slice(tmp_path):
  needs("libtpu")
  out = command(tmp_path, "--topology=v5e:2x4", "--topology=v6e:2x4", f"--json={tmp_path}/plan.json")
  assert out.returncode == 0, out.stderr[-3000:]
  v5e, v6e = json.loads((tmp_path / "plan.json").read_text())
  assert v5e["fits"] and v6e["fits"] and v5e["devices"] == 8 and v5e["parameters"] == SPLIT + NORMS
  for a, b in zip(v5e["programs"], v6e["programs"]):
    assert a["flops"] == b["flops"] and a["bytes"] == b["bytes"] and a["seconds"] > b["seconds"] > 0
  assert out.stdout.count(" on v5e:2x4: 8 chips") == 1


@pytest.mark.plan
def test_tpu_compiler_refuses_what_does_not_fit_and_the_remedy_is_found(tmp_path):
  needs("libtpu")
  # A slot takes 48 KiB in 4 parts: 18.3 GiB a device, and half of that with half as many.
  words = [
    "--config.rollout.slots=1600000",
    "--config.policy.remat=True",
    "--topology=v5e:2x4",
    f"--json={tmp_path}/plan.json",
  ]
  out = command(tmp_path, *words)
  assert out.returncode == 3, out.stderr[-3000:]
  (plan,) = json.loads((tmp_path / "plan.json").read_text())
  assert not plan["fits"] and any("RESOURCE_EXHAUSTED" in p["note"] for p in plan["programs"])
  assert set(plan["remedy"]["settings"]) == {"rollout.slots"}


@pytest.mark.plan
def test_command_compiles_the_run_for_gpus_and_says_that_their_memory_is_not_checked(tmp_path):
  needs("jax_cuda12_plugin")
  attention = "auto" if importlib.util.find_spec("nvidia.cudnn") else "xla"
  out = command(tmp_path, "--topology=h100:8", f"--config.policy.attention={attention}")
  assert out.returncode == 0, out.stderr[-3000:]
  assert "Compiled for sm_90a without a GPU; never run" in out.stdout and out.stdout.count("|  yes |") == 6


@pytest.mark.plan
def test_slice_that_does_not_exist_is_refused_with_the_compilers_words(tmp_path):
  needs("libtpu")
  out = command(tmp_path, "--topology=v5e:3x3")
  assert out.returncode == 1 and "no plan: --topology=v5e:3x3: v5e has no slice 3x3" in out.stderr


@pytest.mark.plan
def test_mesh_that_the_axes_of_a_slice_do_not_give_keeps_its_groups_on_hosts():
  needs("libtpu")
  mesh = make_mesh(data=1, fsdp=-1, tensor=4, devices=find_target("v6e:8x8").devices)
  assert mesh.shape["fsdp"] == 16
  assert all(len({d.process_index for d in group}) == 1 for group in mesh.devices.reshape(16, 4))
