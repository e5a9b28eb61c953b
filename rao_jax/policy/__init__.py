"""The policy: one transformer for training, prefill and decode."""

from rao_jax.policy.transformer import PolicyConfig, forward, init_params

__all__ = ["PolicyConfig", "forward", "init_params"]
