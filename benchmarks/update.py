"""One policy-gradient update with AdamW: ours against google-tunix's GRPO step and a torch step; seconds.

  make bench-update         or: .venv-bench/bin/python -m benchmarks.update [--rounds=5]

Even batch: 32 rows of 192 tokens, 128 of them sampled; 4 layers of width 256, vocabulary 1024, float32, the same random
weights on all sides. Ours is `Learner.update` with the default loss (clipped ratio, entropy reported), in a process as
a run has it, with one device and with a device a core; tunix's is the jitted step of its trainer with `grpo_loss_fn`,
torch's a Hugging Face Llama, a ratio loss and fused AdamW.

Matrix products: the time of all products of the step by themselves, as XLA runs them in such a process, one after
another; the share of the step's time that they would take is how close the step comes to the machine.

Tree batch: the agents of the recording `warm` (308 nodes of 30 to 384 tokens). Ours packs them into rows of 384. tunix
gets them sorted by length, 32 rows at a time, padded to the longest of the 32. Compared in tokens of nodes a second.
Compiling is not counted. About 7 minutes on two cores.
"""

import argparse
import functools
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.ours import END, PAD, POLICY, Ours, random_tokens
from benchmarks.recorded import NodeTrace, load
from benchmarks.sides import Apart, Summary, alternate, medians, print_table, serve
from rao_jax.learn.losses import LossOptions
from rao_jax.learn.packing import fill, microbatches
from rao_jax.learn.state import TrainState, make_optimizer, make_schedule, with_optimizer
from rao_jax.learn.step import Learner
from rao_jax.tree.buffer import NodeRecord, TreeRecord, build

ROWS, LENGTH, PROMPT = 32, 192, 64
LONGEST = 384
RATE = 1e-5
EVEN = [NodeTrace([(PROMPT, LENGTH - PROMPT)], [[]])] * ROWS


def tokens_of(nodes: list[NodeTrace]) -> list[np.ndarray]:
  return [random_tokens(1, node.length, i)[0] for i, node in enumerate(nodes)]


def actions_of(node: NodeTrace) -> np.ndarray:
  return np.repeat([False, True] * len(node.turns), np.ravel(node.turns))


def ours(models: Ours, nodes: list[NodeTrace], row_length: int, rows: int):
  """(a step, how full its rows are)."""
  schedule = make_schedule(RATE, 0, 1000, 1.0)
  optimizer = make_optimizer(schedule, 1.0, 0.9, 0.999, 1e-8, 0.0)
  learner = Learner(
    POLICY, models.train_rules, optimizer, schedule, LossOptions(), np.ones(POLICY.vocab_size, bool), 1.0,
    (row_length,), row_length * rows,
  )  # fmt: skip
  trees = [
    TreeRecord([NodeRecord(tokens, actions_of(node), np.full(node.length, -7.0), -1, 0, 1.0)], i, True)
    for i, (node, tokens) in enumerate(zip(nodes, tokens_of(nodes)))
  ]
  buffer = build(trees, num_nodes=len(nodes))
  advantage = np.random.default_rng(0).normal(size=len(nodes)).astype(np.float32)
  state = with_optimizer(TrainState(jax.tree.map(jnp.copy, models.params), (), (), ()), optimizer, learner.layout)
  pack = lambda: microbatches(
    buffer, np.arange(len(nodes)), advantage, np.ones_like(advantage), learner.row_lengths,
    learner.tokens_per_microbatch,
  )  # fmt: skip

  def run():
    nonlocal state
    state, metrics = learner.update(state, pack(), (1 / len(nodes), 1.0))
    if not metrics["finite"]:
      raise RuntimeError("our update was skipped")

  return run, fill(pack())


def tunix(models, batches: list[list[NodeTrace]]):
  from tunix.rl import algo_core
  from tunix.rl.common import TrainExample
  from tunix.rl.grpo.grpo_learner import GRPOConfig
  from tunix.rl.trainer import Trainer
  from tunix.sft.peft_trainer import TrainingConfig

  grpo = GRPOConfig(beta=0.0)
  grpo.temperature = 1.0  # set by its learner, from the rollout's
  trainer = Trainer(
    models.tunix, optax.adamw(RATE, weight_decay=0.0), TrainingConfig(eval_every_n_steps=1 << 30), lambda: {}
  )
  trainer.with_loss_fn(algo_core.grpo_loss_fn, has_aux=True)
  trainer.with_gen_model_input_fn(lambda x: dict(train_example=x, algo_config=grpo, pad_id=PAD, eos_id=END))
  step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)
  examples = []
  for number, nodes in enumerate(batches):
    prompt = min(node.turns[0][0] for node in nodes)
    longest = max(node.length for node in nodes)
    tokens, sampled = np.full((len(nodes), longest), PAD, np.int32), np.zeros((len(nodes), longest), bool)
    for row, (node, own) in enumerate(zip(nodes, tokens_of(nodes))):
      tokens[row, : node.length], sampled[row, : node.length] = own, actions_of(node)
    advantage = np.random.default_rng(number).normal(size=len(nodes)).astype(np.float32)
    examples.append(
      TrainExample(
        prompt_ids=tokens[:, :prompt],
        prompt_mask=np.ones((len(nodes), prompt), bool),
        completion_ids=tokens[:, prompt:],
        completion_mask=sampled[:, prompt:],
        advantages=advantage,
        ref_per_token_logps=None,
        old_per_token_logps=np.full((len(nodes), longest - prompt), -7.0, np.float32),
      )
    )

  def run():
    losses = [step(example)[0] for example in examples]
    if not np.isfinite(jax.device_get(losses)).all():
      raise RuntimeError("tunix's loss is not finite")
    jax.block_until_ready(jax.tree.leaves(trainer.optimizer.opt_state))

  return run


def torch_step(models, nodes: list[NodeTrace]):
  import torch

  model = models.torch
  optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.0, fused=True)
  tokens = torch.tensor(np.stack(tokens_of(nodes)), dtype=torch.long)
  sampled = torch.tensor(np.stack([actions_of(node) for node in nodes]))[:, 1:]
  advantage = torch.randn(len(nodes), 1)

  def run():
    logits = model(tokens, use_cache=False).logits[:, :-1]
    logp = -torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    ratio = torch.exp(logp - logp.detach())
    loss = -(torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) * sampled).sum() / len(nodes)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if not math.isfinite(loss.item()):
      raise RuntimeError("torch's loss is not finite")

  return run


def matrix_products(rows: int, length: int) -> list[tuple[int, str, tuple, tuple]]:
  """The products of a forward and backward pass: (times, einsum, shape, shape). Every one has two gradients."""
  c, N = POLICY, rows * length
  D, HQ, KQ = c.width, c.heads * c.head_size, c.kv_heads * c.head_size
  dense = [(1, D, HQ), (2, D, KQ), (1, HQ, D), (2, D, c.mlp), (1, c.mlp, D)]
  weights = [(c.layers * n, inputs, outputs) for n, inputs, outputs in dense] + [(1, D, c.vocab_size)]
  products = []
  for times, i, o in weights:
    products += [(times, "ni,io->no", (N, i), (i, o)), (times, "no,io->ni", (N, o), (i, o))]
    products += [(times, "ni,no->io", (N, i), (N, o))]
  B, M = rows * c.kv_heads, length * c.heads // c.kv_heads
  scores = ("bmq,btq->bmt", (B, M, c.head_size), (B, length, c.head_size))
  mixed = ("bmt,btq->bmq", (B, M, length), (B, length, c.head_size))
  gathered = ("bmt,bmq->btq", (B, M, length), (B, M, c.head_size))
  # The backward pass gathers the gradients of values and keys, and takes the other two again.
  return products + [(c.layers * 2, *one) for one in (scores, mixed, gathered)]


def operations() -> int:
  """The floating-point operations of the even step's products."""
  count = lambda letters, a, b: 2 * math.prod(dict(zip(letters.split("->")[0].replace(",", ""), (*a, *b))).values())
  return sum(times * count(*product) for times, *product in matrix_products(ROWS, LENGTH))


def products_alone():
  work = []
  for times, letters, *shapes in matrix_products(ROWS, LENGTH):
    left, right = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    work.append((times, jax.jit(functools.partial(jnp.einsum, letters)), left, right))

  def run():
    for times, program, left, right in work:
      for _ in range(times):
        out = program(left, right)
      out.block_until_ready()

  return run


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--serve", choices=("even", "trees", "products"), help=argparse.SUPPRESS)
  o = parser.parse_args()
  nodes = sorted((node for tree in load("warm") for node in tree), key=lambda node: node.length)
  batches = {"even": (EVEN, LENGTH, ROWS), "trees": (nodes, LONGEST, 4)}
  if o.serve:
    serve(lambda: products_alone() if o.serve == "products" else ours(Ours(), *batches[o.serve])[0])
    return
  from benchmarks.peers import Models  # not above: `sides.serve` says why

  own = lambda name, devices=1: Apart("-m", "benchmarks.update", f"--serve={name}", devices=devices)
  summary, models = Summary(), Models()
  sides = {
    "ours": own("even"),
    "ours, a device a core": own("even", os.cpu_count()),
    "tunix": tunix(models, [EVEN]),
    "torch": torch_step(models, EVEN),
    "matrix products alone": own("products"),
  }
  seconds = medians(alternate(sides, o.rounds))
  print_table(
    ["even batch", "seconds", "tokens/s", "GFLOP/s of the products"],
    [[n, s, ROWS * LENGTH / s, operations() / s / 1e9] for n, s in seconds.items()],
  )
  summary.medians |= {f"even_{name}": value for name, value in seconds.items()}
  summary.ratio("tunix", seconds["tunix"] / seconds["ours"], 1.4)
  summary.ratio("torch", seconds["torch"] / seconds["ours"], 0.9)
  summary.ratio("of_matmul_rate", seconds["matrix products alone"] / seconds["ours"], 0.65)

  total = sum(node.length for node in nodes)
  _, full = ours(models, *batches["trees"])
  sides = {
    "ours": own("trees"),
    "ours, a device a core": own("trees", os.cpu_count()),
    "tunix": tunix(models, [nodes[at : at + ROWS] for at in range(0, len(nodes), ROWS)]),
  }
  seconds = medians(alternate(sides, o.rounds))
  print(f"\n{len(nodes)} nodes, {total} tokens; our rows are {full:.1%} full")
  print_table(["tree batch", "seconds", "useful tokens/s"], [[n, s, total / s] for n, s in seconds.items()])
  summary.medians |= {f"trees_{name}": value for name, value in seconds.items()}
  summary.ratio("tunix_trees", seconds["tunix"] / seconds["ours"], 3)
  summary.ratio("row_fill", full, 0.92)
  summary.print()


if __name__ == "__main__":
  main()
