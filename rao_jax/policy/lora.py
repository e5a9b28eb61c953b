"""Low-rank adapters (LoRA, arXiv 2106.09685): a matrix W stays as it is, and x W + alpha / rank * (x A) B is learned.

A and B are leaves of the parameter pytree beside their W, stacked by layer like it; here the pytree is taken apart into
what is frozen and what is trained, put together, and adapters are merged into their matrices. Our own, because the
libraries' adapters wrap module calls or einsums of their modules, while our layers are one stacked pytree under a scan
whose products are plain reshaped matmuls; what is left to write is this page.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rao_jax.policy.transformer import LORA, Params, PolicyConfig


def without_adapters(config: PolicyConfig) -> PolicyConfig:
  """The config of the policy below the adapters."""
  unset = {f.name: f.default for f in dataclasses.fields(config) if f.name.startswith("lora_")}
  return dataclasses.replace(config, **unset)


def trained(params: Params, config: PolicyConfig) -> Params:
  """The part of a pytree like the parameters that is trained: the adapters, or all of it if there are none."""
  if not config.lora_rank:
    return params
  return {"blocks": {name: leaf for name, leaf in params["blocks"].items() if LORA in name}}


def frozen(params: Params, config: PolicyConfig) -> Params:
  """What `trained` leaves: everything but the adapters, or nothing, {}, if there are none."""
  if not config.lora_rank:
    return {}
  return params | {"blocks": {name: leaf for name, leaf in params["blocks"].items() if LORA not in name}}


def join(frozen: Params, trained: Params) -> Params:
  """The whole pytree again."""
  return frozen | {"blocks": frozen["blocks"] | trained["blocks"]} if frozen else trained


def merge_adapters(params: Params, config: PolicyConfig) -> Params:
  """Parameters of `without_adapters(config)` that compute the same: W + alpha / rank * A B, in the dtype of W.

  In a dtype below float32 a merged matrix is rounded, so outputs agree to that dtype's precision only.
  """
  blocks = dict(frozen(params, config)["blocks"])
  for name in config.lora_targets:
    a, b, w = (params["blocks"][key] for key in (f"{name}{LORA}a", f"{name}{LORA}b", name))
    L, rank = a.shape[0], config.lora_rank
    change = jnp.einsum("lir,lro->lio", a.reshape(L, -1, rank), b.reshape(L, rank, -1)) * config.lora_scale
    blocks[name] = (w.astype(jnp.float32) + change.reshape(w.shape)).astype(w.dtype)
  return params | {"blocks": blocks}


def merged(params: Params, config: PolicyConfig) -> tuple[PolicyConfig, Params]:
  """A policy without adapters that computes the same, jitted; the policy itself if it has none."""
  if not config.lora_rank:
    return config, params
  return without_adapters(config), jax.jit(merge_adapters, static_argnums=1)(params, config)
