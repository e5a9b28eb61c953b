"""rao_jax: Recursive Agent Optimization for language-model agents that call themselves, in JAX."""

__version__ = "0.1.0"
