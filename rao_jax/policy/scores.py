"""What training asks of the output distribution at every position, without all logits of a large vocabulary at once."""

import math

import jax
import jax.numpy as jnp

from rao_jax.mesh import Rules
from rao_jax.policy.sampling import entropy, token_logprobs
from rao_jax.policy.transformer import Params, PolicyConfig, logits_of

# Logits that a device holds at once, 256 MiB of them; beyond that, positions are worked in chunks.
MOST_LOGITS = 1 << 26


def chunks_of(config: PolicyConfig, rows: int, length: int, rules: Rules | None, most: int = MOST_LOGITS) -> int:
  """Into how many chunks the positions of rows [B, S] are cut; a divisor of S, 1 if all logits fit."""
  split = rules.ways("rows") * rules.ways("vocab") if rules else 1
  wanted = math.ceil(rows * length * config.vocab_size / split / most)
  return next(n for n in range(min(wanted, length), length + 1) if length % n == 0)


def token_scores(
  params: Params, config: PolicyConfig, hidden: jax.Array, tokens: jax.Array, token_mask: jax.Array, temperature,
  spread: str, rules: Rules | None = None, most: int = MOST_LOGITS,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
  """Log-probabilities of given tokens under the sampling distribution, and its entropy.

  A chunk's logits are computed again in the backward pass, so neither pass holds more than one chunk of them.

  Args:
    params, config: of the policy.
    hidden: [B, S, D], hidden states where the tokens are chosen.
    tokens: i32[B, S].
    token_mask: bool[V]; temperature: as in `sampling`.
    spread: entropy with its gradient (`train`), without one (`report`), or zeros (`none`).
    rules: sharding rules; None for one device.
    most: logits that a device holds at once.
  Returns:
    (f32[B, S], f32[B, S]).
  """

  def score(hidden, tokens):
    logits = logits_of(params, hidden)
    logp = token_logprobs(logits, tokens, token_mask, temperature)
    if spread == "none":
      return logp, jnp.zeros_like(logp)
    return logp, entropy(logits if spread == "train" else jax.lax.stop_gradient(logits), token_mask, temperature)

  B, S, _ = hidden.shape
  chunks = chunks_of(config, B, S, rules, most)
  if chunks == 1:
    return score(hidden, tokens)
  cut = lambda x: jnp.moveaxis(x.reshape(B, chunks, S // chunks, *x.shape[2:]), 1, 0)
  join = lambda x: jnp.moveaxis(x, 0, 1).reshape(B, S)
  _, scores = jax.lax.scan(lambda _, part: (None, jax.checkpoint(score)(*part)), None, (cut(hidden), cut(tokens)))
  return jax.tree.map(join, scores)
