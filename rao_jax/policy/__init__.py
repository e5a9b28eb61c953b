"""The policy: one transformer for training, prefill and decode; published models in and out."""

from rao_jax.policy.pretrained import from_pretrained, save_pretrained
from rao_jax.policy.transformer import PolicyConfig, forward, init_params

__all__ = ["PolicyConfig", "forward", "from_pretrained", "init_params", "save_pretrained"]
