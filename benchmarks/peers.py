"""One model on three sides, ours, google-tunix's and Hugging Face's, with the same random weights; for .venv-bench."""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from tunix.models.llama3 import model as llama3
from tunix.models.llama3.params import create_model_from_safe_tensors

from benchmarks.ours import POLICY, Ours, random_tokens
from rao_jax.policy.pretrained import save_pretrained
from rao_jax.policy.transformer import forward


class Models(Ours):
  """The model on every side; making it checks that they are the same function."""

  def __init__(self, seed: int = 0):
    super().__init__(seed)
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / "model"
      save_pretrained(path, POLICY, self.params)
      shape = llama3.ModelConfig(
        POLICY.layers, POLICY.vocab_size, POLICY.width, POLICY.mlp, POLICY.heads, POLICY.head_size, POLICY.kv_heads,
        int(POLICY.rope_base), POLICY.norm_eps, weight_tying=True,
      )  # fmt: skip
      self.tunix = create_model_from_safe_tensors(str(path), shape, dtype=jnp.float32)
      self.torch = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    self._check()

  def _check(self) -> None:
    tokens = random_tokens(2, 24, 1)
    at = np.broadcast_to(np.arange(24), (2, 24))
    ours = jax.jit(lambda p, t: forward(p, POLICY, t))(self.params, tokens)
    tunix, _ = self.tunix(jnp.asarray(tokens), jnp.asarray(at), None, jnp.tril(jnp.ones((1, 24, 24), bool)))
    with torch.no_grad():
      hf = self.torch(torch.tensor(tokens)).logits.numpy()
    for name, logits in (("tunix", tunix), ("transformers", hf)):
      far = float(np.abs(np.asarray(logits) - np.asarray(ours)).max())
      if far > 1e-3:
        raise RuntimeError(f"logits of {name} differ from ours by {far}: this compares different models")
