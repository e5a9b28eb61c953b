import dataclasses
import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest

from rao_jax.policy import from_pretrained, save_pretrained
from rao_jax.policy.tensor_file import INDEX, SINGLE, read_file, read_folder, write_file
from rao_jax.policy.weights import EMBED, HEAD, ParamTensors, load_params, name_table
from tests.policy.make_fixtures import FIXTURES
from tests.tiny import TINY, random_params

QWEN = dataclasses.replace(TINY, qk_norm=True, tied=False)
MOE = dataclasses.replace(QWEN, experts=3, experts_per_token=2, mlp=10)


def tensors_of(config):
  return {name: np.array(tensor) for name, tensor in ParamTensors(config, random_params(config)).items()}


def test_a_matrix_of_a_file_is_out_by_in_with_heads_side_by_side():
  params, tensors = random_params(TINY), tensors_of(TINY)
  q = tensors["model.layers.1.self_attn.q_proj.weight"]
  assert q.shape == (32, 32) and q[2 * 8 + 3, 5] == params["blocks"]["q"][1, 5, 2, 3]
  o = tensors["model.layers.0.self_attn.o_proj.weight"]
  assert o.shape == (32, 32) and o[5, 2 * 8 + 3] == params["blocks"]["o"][0, 2, 3, 5]
  down = tensors["model.layers.1.mlp.down_proj.weight"]
  assert down.shape == (32, 64) and down[5, 40] == params["blocks"]["down"][1, 40, 5]
  assert tensors[EMBED][7, 3] == params["embed"][7, 3]


@pytest.mark.parametrize("config", [TINY, QWEN, MOE], ids=["llama", "qwen", "moe"])
def test_table_covers_every_number_once(config):
  params = random_params(config)
  assert sum(np.prod(entry.file_shape) for entry in name_table(config).values()) == sum(
    x.size for x in jax.tree.leaves(params)
  )
  again = load_params(config, tensors_of(config))
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_all_missing_and_surplus_names_are_listed_at_once():
  tensors = tensors_of(TINY)
  del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
  tensors["model.layers.0.self_attn.q_norm.weight"] = np.ones(8, np.float32)
  expected = (
    "missing 2: model.layers.1.mlp.up_proj.weight, model.norm.weight; surplus 1: model.layers.0.self_attn.q_norm.weight"
  )
  with pytest.raises(ValueError, match=re.escape(expected)):
    load_params(TINY, tensors)


def test_a_tensor_of_another_shape_is_named_with_both_shapes():
  tensors = tensors_of(TINY)
  tensors["model.layers.1.mlp.up_proj.weight"] = np.zeros((48, 32), np.float32)
  with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight has shape \[48, 32\].*asks for \[64, 32\]"):
    load_params(TINY, tensors)


def test_a_tied_head_may_be_in_the_file_if_it_is_the_embedding():
  tensors = tensors_of(TINY)
  tensors[HEAD] = tensors[EMBED].copy()
  jax.tree.map(np.testing.assert_array_equal, load_params(TINY, tensors), random_params(TINY))
  tensors[HEAD][3, 3] += 1
  with pytest.raises(ValueError, match=r"ties the output head to the embedding, but lm_head\.weight differs"):
    load_params(TINY, tensors)


def test_an_untied_head_must_be_in_the_file():
  tensors = tensors_of(QWEN)
  del tensors[HEAD]
  with pytest.raises(ValueError, match=r"missing 1: lm_head\.weight"):
    load_params(QWEN, tensors)


def test_fused_expert_tensors_are_the_per_expert_ones():
  tensors = tensors_of(MOE)
  fused = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
  for layer in range(MOE.layers):
    prefix = f"model.layers.{layer}.mlp.experts"
    take = lambda kind, prefix=prefix: [tensors[f"{prefix}.{e}.{kind}_proj.weight"] for e in range(MOE.experts)]
    pairs = [np.concatenate(pair) for pair in zip(take("gate"), take("up"))]
    fused[f"{prefix}.gate_up_proj"], fused[f"{prefix}.down_proj"] = np.stack(pairs), np.stack(take("down"))
  jax.tree.map(np.testing.assert_array_equal, load_params(MOE, fused), random_params(MOE))


def test_dtype_is_that_of_the_folder_or_the_one_asked_for(tmp_path):
  config = dataclasses.replace(QWEN, dtype="bfloat16", param_dtype="bfloat16")
  params = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), random_params(QWEN))
  save_pretrained(tmp_path, config, params)
  kept_config, kept = from_pretrained(tmp_path)
  assert kept_config == config
  jax.tree.map(np.testing.assert_array_equal, kept, params)
  wide_config, wide = from_pretrained(tmp_path, dtype="float32")
  assert (wide_config.dtype, wide_config.param_dtype) == ("float32", "float32")
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float32)), wide, params)
  with pytest.raises(ValueError, match="dtype='int8': choose one of"):
    from_pretrained(tmp_path, dtype="int8")


def test_saving_keeps_tokenizer_files_and_token_ids(tmp_path):
  source, out = tmp_path / "source", tmp_path / "out"
  save_pretrained(source, QWEN, random_params(QWEN))
  (source / "tokenizer.json").write_text("{}")
  config = json.loads((source / "config.json").read_text()) | {"eos_token_id": [3, 4]}
  (source / "config.json").write_text(json.dumps(config))
  save_pretrained(out, QWEN, random_params(QWEN, 1), like=source)
  assert (out / "tokenizer.json").read_text() == "{}"
  assert json.loads((out / "config.json").read_text())["eos_token_id"] == [3, 4]
  np.testing.assert_array_equal(from_pretrained(out)[1]["embed"], random_params(QWEN, 1)["embed"])


def test_weights_are_not_written_over(tmp_path):
  save_pretrained(tmp_path, QWEN, random_params(QWEN))
  with pytest.raises(ValueError, match="holds weights already"):
    save_pretrained(tmp_path, QWEN, random_params(QWEN))


def test_no_shard_is_larger_than_asked_for_and_the_index_finds_every_tensor(tmp_path):
  save_pretrained(tmp_path, QWEN, random_params(QWEN), max_shard_size=20_000)
  index = json.loads((tmp_path / INDEX).read_text())
  assert set(index["weight_map"]) == set(name_table(QWEN))
  assert index["metadata"]["total_size"] == 4 * sum(x.size for x in jax.tree.leaves(random_params(QWEN)))
  for name in set(index["weight_map"].values()):
    tensors = read_file(tmp_path / name)
    assert sum(tensor.nbytes for tensor in tensors.values()) <= 20_000
    assert set(tensors) == {tensor for tensor, where in index["weight_map"].items() if where == name}


def test_a_missing_shard_is_named(tmp_path):
  save_pretrained(tmp_path, QWEN, random_params(QWEN), max_shard_size=20_000)
  shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
  shard.unlink()
  with pytest.raises(FileNotFoundError, match=f"lacks {shard.name}"):
    from_pretrained(tmp_path)


def test_a_folder_without_config_or_weights_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
    from_pretrained(tmp_path)
  with pytest.raises(FileNotFoundError, match=rf"lacks {SINGLE}"):
    read_folder(tmp_path)


def test_bytes_of_a_file_are_as_the_format_says(tmp_path):
  write_file(tmp_path / SINGLE, [("a", np.dtype(np.float32), (2,))], lambda _: np.array([1, 2], np.float32))
  raw = (tmp_path / SINGLE).read_bytes()
  size = int.from_bytes(raw[:8], "little")
  assert size % 8 == 0 and raw[8 + size :] == b"\x00\x00\x80\x3f\x00\x00\x00\x40"
  assert json.loads(raw[8 : 8 + size])["a"] == {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize("keep, message", [(-8, r"model\..* should lie at bytes"), (4, "header"), (60, "header")])
def test_a_damaged_file_is_refused(tmp_path, keep, message):
  raw = (FIXTURES / "qwen3" / SINGLE).read_bytes()
  (tmp_path / SINGLE).write_bytes(raw[:keep])
  with pytest.raises(ValueError, match=f"is not a whole safetensors file: {message}|{message}"):
    read_file(tmp_path / SINGLE)


def test_an_unknown_dtype_is_named(tmp_path):
  header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
  (tmp_path / SINGLE).write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
  with pytest.raises(ValueError, match="a has dtype F8_E4M3"):
    read_file(tmp_path / SINGLE)


def test_parameters_do_not_look_into_the_mapped_file(tmp_path):
  save_pretrained(tmp_path, TINY, random_params(TINY))
  _, params = from_pretrained(tmp_path)
  with (tmp_path / SINGLE).open("r+b") as f:
    f.seek(-4096, 2)
    f.write(b"\xff" * 4096)
  jax.tree.map(np.testing.assert_array_equal, params, random_params(TINY))
