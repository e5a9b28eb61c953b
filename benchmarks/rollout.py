"""Generation at a fixed shape: ours against google-tunix's `Sampler` and Hugging Face's `generate`, tokens a second.

  make bench-rollout        or: .venv-bench/bin/python -m benchmarks.rollout [--batches=8,32,256] [--rounds=5]

A prompt of 64 tokens, then 128 new ones on every row; 4 layers of width 256, vocabulary 1024, float32, the same random
weights on all sides. Ours is what a training run calls, `collect` over the frontier's programs: sampling at temperature
1, a key a row, with the log-probability of every token; with a device a core, each for its share of the rows, and with
one device, whose threads gain little within products of this size. tunix and Hugging Face (torch on the CPU, batched,
with KV cache) are greedy and keep no log-probabilities. Compiling is not counted. About 5 minutes on two cores.
"""

import argparse
import functools
import os

import numpy as np

from benchmarks.ours import END, PAD, POLICY, Ours, random_tokens
from benchmarks.recorded import NodeTrace, RecordedTree
from benchmarks.sides import Apart, Summary, alternate, medians, print_table, serve
from rao_jax.rollout.collect import collect
from rao_jax.rollout.frontier import Frontier

PROMPT, NEW = 64, 128
STEPS = 32  # of a slice
TARGETS = {"tunix": {8: 1.0, 32: 2.0, 256: 1.0}, "hf": {8: 1.0, 32: 2.5, 256: 1.0}}


class Numbers:
  """The tokenizer that tunix asks for: texts are token ids with spaces between."""

  def encode(self, text: str) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, ids) -> str:
    return " ".join(map(str, ids))

  bos_id = pad_id = lambda self: PAD
  eos_id = lambda self: END


def ours(models: Ours, batch: int):
  mask = np.arange(POLICY.vocab_size) != PAD
  frontier = Frontier(
    POLICY, models.rollout_rules, mask, END, (batch,), range(PROMPT + STEPS, PROMPT + NEW + 1, STEPS), STEPS, PROMPT,
    batch,
  )  # fmt: skip
  row = [NodeTrace([(PROMPT, NEW)], [[]])]

  def run():
    trees = [RecordedTree(row, POLICY.vocab_size, number) for number in range(batch)]
    collect(models.params, trees, frontier, 1.0)
    if any(sum(tree.root.is_action) != NEW or not all(tree.root.logp[PROMPT:]) for tree in trees):
      raise RuntimeError(f"a row did not sample {NEW} tokens, or one of them has no log-probability")

  return run


def tunix(models, batch: int):
  from tunix.generate.sampler import CacheConfig, Sampler

  sampler = Sampler(
    models.tunix, Numbers(), CacheConfig(PROMPT + NEW, POLICY.layers, POLICY.kv_heads, POLICY.head_size)
  )
  prompts = [" ".join(map(str, row)) for row in random_tokens(batch, PROMPT, 2)]

  def run():
    out = sampler(prompts, NEW, max_prompt_length=PROMPT, eos_tokens=[END])
    if any(len(row) != NEW for row in out.tokens):
      raise RuntimeError(f"a row of tunix has not {NEW} new tokens")

  return run


def hugging_face(models, batch: int):
  import torch

  prompts = torch.tensor(random_tokens(batch, PROMPT, 2))
  models.torch.generation_config.eos_token_id = None

  def run():
    with torch.inference_mode():
      out = models.torch.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=NEW, do_sample=False, pad_token_id=PAD
      )
    if out.shape[1] != PROMPT + NEW:
      raise RuntimeError(f"transformers stopped after {out.shape[1] - PROMPT} new tokens")

  return run


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--batches", default="8,32,256")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
  o = parser.parse_args()
  if o.serve:
    serve(lambda: ours(Ours(), o.serve))
    return
  from benchmarks.peers import Models  # not above: `sides.serve` says why

  models, summary = Models(), Summary()
  for batch in map(int, o.batches.split(",")):
    own = functools.partial(Apart, "-m", "benchmarks.rollout", f"--serve={batch}")
    sides = {
      "ours": own(devices=os.cpu_count()),
      "ours, one device": own(devices=1),
      "tunix": tunix(models, batch),
      "hf": hugging_face(models, batch),
    }
    rate = {name: batch * NEW / s for name, s in medians(alternate(sides, o.rounds)).items()}
    summary.medians |= {f"{name}_{batch}": value for name, value in rate.items()}
    for peer, targets in TARGETS.items():
      summary.ratio(f"{peer}_{batch}", rate["ours"] / rate[peer], targets.get(batch))
    print_table([f"{batch} rows", "tokens/s", "ours over it"], [[n, r, rate["ours"] / r] for n, r in rate.items()])
  summary.print()


if __name__ == "__main__":
  main()
