"""Published models in, trained models out: Hugging Face folders, GGUF files. Reads and writes files."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from rao_jax.mesh import TRAIN_RULES, Rules
from rao_jax.policy import gguf
from rao_jax.policy.hf_config import DTYPES, read_config, write_config
from rao_jax.policy.lora import merged
from rao_jax.policy.tensor_file import read_folder, write_folder
from rao_jax.policy.transformer import Params, PolicyConfig
from rao_jax.policy.weights import ParamTensors, load_params

CONFIG = "config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def config_of(path: str | pathlib.Path, dtype: str | None = None) -> PolicyConfig:
  """The policy that a folder or GGUF file holds; dtype None keeps the file's."""
  path = pathlib.Path(path)
  if path.suffix == ".gguf":
    return with_dtype(gguf.read_config(path), dtype)
  if not (path / CONFIG).exists():
    raise FileNotFoundError(f"{path} holds no {CONFIG}: give the folder of a model, or a file that ends in .gguf")
  return with_dtype(read_config(json.loads((path / CONFIG).read_text())), dtype)


def with_dtype(config: PolicyConfig, dtype: str | None) -> PolicyConfig:
  if dtype is None:
    return config
  if jnp.dtype(dtype).name not in DTYPES:
    raise ValueError(f"dtype={dtype!r}: choose one of {DTYPES}")
  return dataclasses.replace(config, dtype=jnp.dtype(dtype).name, param_dtype=jnp.dtype(dtype).name)


def load_weights(path: str | pathlib.Path, config: PolicyConfig, rules: Rules | None = None) -> Params:
  """The parameters that a folder or GGUF file holds, for a config made from its own, born in their sharding."""
  path = pathlib.Path(path)
  if path.suffix == ".gguf":
    return load_params(config, gguf.read_tensors(path), rules)
  return load_params(config, read_folder(path), rules)


def from_pretrained(
  path: str | pathlib.Path, mesh: Mesh | None = None, dtype: str | None = None
) -> tuple[PolicyConfig, Params]:
  """A published model.

  Args:
    path: folder with config.json and safetensors, or a GGUF file, which is dequantised.
    mesh: parameters are born split over it as for training; None puts them on the default device.
    dtype: of parameters and activations; None keeps that of the config (float16 becomes float32).
  Raises:
    FileNotFoundError: a file is missing.
    ValueError: the config asks for what the transformer does not do, or the weights are not the config's.
  """
  config = config_of(path, dtype)
  return config, load_weights(path, config, Rules.of(mesh, TRAIN_RULES) if mesh else None)


def save_pretrained(
  path: str | pathlib.Path,
  config: PolicyConfig,
  params: Params,
  max_shard_size: int = 5 * 10**9,
  like: str | pathlib.Path | None = None,
) -> None:
  """Writes a folder that transformers loads; adapters are merged into the matrices they belong to.

  Args:
    path: folder to make; if it is there, it must hold no weights.
    config, params: of the policy, in the dtype of the parameters.
    max_shard_size: bytes of a file.
    like: the folder that the policy came from: tokenizer and generation files are copied, token ids kept.
  """
  path = pathlib.Path(path)
  if list(path.glob("*.safetensors*")):
    raise ValueError(f"{path} holds weights already: choose another folder, or remove them")
  config, params = merged(params, config)
  values = write_config(config)
  if like is not None:
    found = json.loads((pathlib.Path(like) / CONFIG).read_text())
    values |= {name: found[name] for name in TOKEN_IDS if name in found}
  tensors = ParamTensors(config, params)
  plan = [(name, tensors.dtype(name), entry.file_shape) for name, entry in tensors.table.items()]
  if jax.process_index() == 0:
    path.mkdir(parents=True, exist_ok=True)
    (path / CONFIG).write_text(json.dumps(values, indent=2) + "\n")
    for file in pathlib.Path(like).iterdir() if like is not None else ():
      if file.is_file() and file.name != CONFIG and ".safetensors" not in file.name:
        shutil.copy(file, path / file.name)
    write_folder(path, plan, tensors.__getitem__, max_shard_size)
  else:
    for name, *_ in plan:
      tensors[name]  # takes part in the gathering
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("save_pretrained")
