"""A system prompt of 1,000 tokens that all nodes share: rollout and update with and without sharing it, and the least.

  .venv-bench/bin/python -m benchmarks.prefix [--rounds=5]

32 nodes of 150 tokens of their own (22 read, 128 sampled) behind the prompt, at the model of `ours.py`. Sides: ours
with the prompt shared; ours without; and the arithmetic minimum, as the sum of three parts, each timed by itself: the
same without any prompt, one pass over the prompt (forward; in the update forward and backward), and the attention of
the nodes' own tokens to the prompt (two products and a softmax a layer; in the update their gradients as well).
About 4 minutes on two cores.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.ours import END, PAD, POLICY, random_tokens
from benchmarks.recorded import NodeTrace, RecordedTree
from benchmarks.sides import Summary, alternate, medians, print_table
from rao_jax.learn.losses import LossOptions, normalisers
from rao_jax.learn.state import init_state, make_optimizer, make_schedule
from rao_jax.learn.step import Learner
from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES, Rules, make_mesh
from rao_jax.policy.attention import attend
from rao_jax.policy.transformer import init_params
from rao_jax.rollout.collect import collect
from rao_jax.rollout.frontier import Frontier
from rao_jax.tree.buffer import NodeRecord, TreeRecord, build

SHARED, READ, NEW, NODES = 1000, 22, 128, 32
OWN = READ + NEW
PREFIX = random_tokens(1, SHARED, 0)[0].tolist()
STEPS = 32  # of a slice
MASK = np.arange(POLICY.vocab_size) != PAD
MOST, SAVES = 1.25, 2.0  # targets: cost over the minimum, unshared over shared


class Prefixed(RecordedTree):
  """A recorded tree whose prompts begin with PREFIX."""

  def _read(self, count: int) -> list[int]:
    return (PREFIX + self._tokens)[:count]


def rollout(tree: type[RecordedTree], prompt: int, prefix: list[int]):
  rules = Rules.of(make_mesh(devices=jax.devices()[:1]), ROLLOUT_RULES)
  params = jax.jit(lambda key: init_params(POLICY, key))(jax.random.key(0))
  own = prompt - len(prefix)
  first = own + STEPS + (-own - STEPS) % STEPS
  ladder = range(first, own + NEW + STEPS, STEPS)
  frontier = Frontier(
    POLICY, rules, MASK, END, (NODES,), ladder, STEPS, min(256, own), NODES, prefix=prefix
  )  # fmt: skip
  trace = [NodeTrace([(prompt, NEW)], [[]])]

  def run():
    trees = [tree(trace, POLICY.vocab_size, number) for number in range(NODES)]
    collect(params, trees, frontier, 1.0)
    if any(len(tree.root.tokens) != prompt + NEW for tree in trees):
      raise RuntimeError("a node did not come to its end")

  once = lambda: jax.block_until_ready((frontier.begin(params), frontier._shared))
  return run, once


def update(behind: int, prefix: list[int]):
  """An update on 32 nodes of `behind` + OWN tokens, and the pass through the shared prefix, if there is one."""
  rules = Rules.of(make_mesh(devices=jax.devices()[:1]), TRAIN_RULES)
  schedule = make_schedule(1e-4, 1, 1000, 0.1)
  optimizer = make_optimizer(schedule, 1.0, 0.9, 0.95, 1e-8, 0.0)
  length = behind + OWN - len(prefix)
  learner = Learner(
    POLICY, rules, optimizer, schedule, LossOptions(surrogate="reinforce", report_entropy=False), MASK, 1.0, (length,),
    max(length, NODES * OWN // length * length), prefix=prefix,
  )  # fmt: skip
  rng, own = np.random.default_rng(0), random_tokens(NODES, OWN, 1)
  is_action = np.arange(behind + OWN) >= behind + READ
  records = [
    NodeRecord(np.array([*PREFIX[:behind], *row]), is_action, np.full(len(is_action), -6.0), -1, 0, 0.0) for row in own
  ]
  buffer = build([TreeRecord([node], i, True) for i, node in enumerate(records)], num_nodes=NODES)
  advantage = rng.normal(size=NODES).astype(np.float32)
  parts = learner.microbatches(buffer, np.arange(NODES), advantage, np.ones(NODES, np.float32))
  scales = normalisers("trajectory", NODES, NODES * NEW)
  box = [init_state(POLICY, optimizer, rules, jax.random.key(0))]

  def run():
    box[0], _ = learner.update(box[0], parts, scales)
    jax.block_until_ready(box[0].params)

  def through():
    acc = learner.programs["start", 0]()
    jax.block_until_ready(learner.programs["through", 0](box[0].params, {}, acc).loss)

  return run, through


def attention(queries: int, backward: bool):
  """Attention of own tokens to the prefix alone: `queries` at a time on every row, OWN of a row in all, all layers."""
  L, H, K, Q = POLICY.layers, POLICY.heads, POLICY.kv_heads, POLICY.head_size
  draw = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)
  q, k, v = draw(0, OWN // queries, NODES, queries, H, Q), draw(1, L, K, Q, SHARED), draw(2, L, K, SHARED, Q)
  seen = jnp.ones((NODES, queries, SHARED), bool)

  def total(q, k, v):
    step = lambda x: sum(attend(x, [(k[layer], v[layer], seen)]).sum() for layer in range(L))
    return jax.lax.scan(lambda s, x: (s + step(x), None), 0.0, q)[0]

  run = jax.jit(jax.grad(total, argnums=(0, 1, 2)) if backward else total)
  return lambda: jax.block_until_ready(run(q, k, v))


def rollout_sides():
  shared, once = rollout(Prefixed, SHARED + READ, PREFIX)
  return {
    "shared": shared,
    "unshared": rollout(Prefixed, SHARED + READ, [])[0],
    "no prompt": rollout(RecordedTree, READ, [])[0],
    "prompt once": once,
    "attention to it": attention(1, backward=False),
  }


def update_sides():
  shared, through = update(SHARED, PREFIX)
  return {
    "shared": shared,
    "unshared": update(SHARED, [])[0],
    "no prompt": update(0, [])[0],
    "prompt once": through,
    "attention to it": attention(OWN, backward=True),
  }


SIDES = {"rollout": rollout_sides, "update": update_sides}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--parts", default="rollout,update")
  o = parser.parse_args()
  summary, rows = Summary(), []
  for name in o.parts.split(","):
    s = medians(alternate(SIDES[name](), o.rounds))
    least = sum(s[part] for part in ("no prompt", "prompt once", "attention to it"))
    summary.medians |= {f"{name} {part}": value for part, value in s.items()}
    over, saves = s["shared"] / least, s["unshared"] / s["shared"]
    summary.ratios |= {f"{name} shared / minimum": round(over, 3), f"{name} unshared / shared": round(saves, 3)}
    summary.targets_met |= {
      f"{name} at most {MOST} x the minimum": over <= MOST, f"{name} at most half of unshared": saves >= SAVES
    }  # fmt: skip
    rows.append([name, *s.values(), least, over, saves])
  parts = ("shared", "unshared", "no prompt", "prompt once", "attention to it", "minimum")
  print_table(["", *(f"{part}, s" for part in parts), "shared / minimum", "unshared / shared"], rows)
  summary.print()


if __name__ == "__main__":
  main()
