"""A small recursive agent on TextCraft-Synth, for sweeps on a CPU.

  python -m rao_jax.train --config=experiments/textcraft_cpu.py --workdir=runs/textcraft_cpu           one run
  python launch/sweep.py --experiment=experiments/textcraft_cpu.py --slots=2                           the sweep

The recursive agent of experiments/demo.py with half of its warm start and fewer steps of smaller batches, evaluated on
easy and medium tasks. The sweep: three learning rates, two seeds each; every run takes one core.

Seen on two cores of an AMD EPYC: 8 min 56 s for the six, data set and compilation included. Success on 60 development
tasks after 20 steps, seeds 0 and 1: rate 1e-4 0.72, 0.60; 3e-4, the default, 0.93, 0.85; 1e-3 0.77, 0.27.
"""

from rao_jax.config import base_config
from rao_jax.sweep import grid

WINDOW = 384


def get_config():
  c = base_config()
  c.environment.options = dict(data_dir="runs/data", dataset="small", compact=True, refuse_ancestor_goals=True)
  c.compile_cache = "runs/cache"

  c.caps.max_depth = 6
  c.caps.max_nodes = 32
  c.caps.turn_tokens = 64
  c.caps.output_tokens = 64
  c.caps.window = WINDOW
  c.caps.result_tokens = 8

  c.policy.mlp = 256
  c.policy.qk_norm = True
  c.policy.unroll = True
  c.rollout.row_ladder = (8, 16)
  c.rollout.cache_ladder = (128, WINDOW + 16)
  c.rollout.slots = 256

  c.warm_start.tasks = dict(train_easy=400, train_medium=600)
  c.warm_start.slips = dict(delegate=0.4, quantity=0.01, ingredient=0.01, unknown=0.02, one_by_one=0.3, give_up=0.8)
  c.warm_start.tokens = 600_000
  c.warm_start.rate = 2e-3
  c.warm_start.tokens_per_update = WINDOW * 2

  c.steps = 20
  c.tasks.train = dict(train_easy=1, train_medium=3)
  c.tasks.dev = dict(dev_easy=20, dev_medium=40)
  c.evaluation.every = 10
  c.learn.rate = 3e-4
  c.learn.warmup = 3
  c.learn.row_lengths = (WINDOW,)
  c.learn.tokens_per_microbatch = WINDOW * 2
  c.credit.depth_weight_cap = 4.0  # a stray node at a depth of its own would weigh as much as all roots together
  c.loss.surrogate = "reinforce"
  return c


def sweep(add):
  grid(add, **{"learn.rate": (1e-4, 3e-4, 1e-3), "seed": range(2)})
