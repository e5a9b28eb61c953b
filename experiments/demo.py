"""The demo: a recursive agent against agents that may not delegate, on two CPU cores.

  make demo                                             all of it, with the report
  python -m rao_jax.train --config=experiments/demo.py:recursive --workdir=runs/recursive      one agent

Agents: `recursive`; `single` (max_depth=0: no `launch_subagent`), same size, data, window and RL; `single_4x`, the
single agent with four times the window, from the same warm start.
"""

from rao_jax.config import base_config

WINDOW = 384  # by the table of `script_by_window`: a perfect single agent fits >= 0.75 of medium, <= 0.10 of hard


def get_config(agent: str = "recursive"):
  c = base_config()
  c.environment.options = dict(data_dir="runs/data", dataset="small", compact=True, refuse_ancestor_goals=True)
  c.compile_cache = "runs/cache"
  window = WINDOW * (4 if agent == "single_4x" else 1)

  # Small trees of short nodes: a perfect node takes some 80 tokens, a hard task some 15 nodes.
  # Training needs depth 5 and 11 nodes at most; a hard task up to depth 8 and 68 nodes.
  c.caps.max_depth = 6 if agent == "recursive" else 0
  c.caps.max_nodes = 32
  c.evaluation.max_depth = 9 if agent == "recursive" else 0
  c.evaluation.max_nodes = 128
  c.caps.turn_tokens = 64
  c.caps.output_tokens = 64
  c.caps.window = window
  c.caps.result_tokens = 8

  c.policy.mlp = 256
  c.policy.qk_norm = True
  c.policy.unroll = True
  c.rollout.row_ladder = (8, 16)
  c.rollout.cache_ladder = (128, WINDOW + 16) if window == WINDOW else (128, WINDOW + 16, window + 16)
  c.rollout.steps = 8
  c.rollout.slots = 512

  c.warm_start.demonstrator = "recursive" if agent == "recursive" else "inline"
  c.warm_start.tasks = dict(train_easy=800, train_medium=1200)
  c.warm_start.slips = dict(
    delegate=0.4, quantity=0.03, factor=0.02, ingredient=0.03, early=0.02, base=0.03, unknown=0.1, one_by_one=0.3,
    give_up=0.5,
  )  # fmt: skip
  c.warm_start.tokens = 1_000_000
  c.warm_start.rate = 2e-3
  c.warm_start.tokens_per_update = WINDOW * 2
  if agent == "single_4x":
    c.warm_start.from_workdir = "runs/demo/single"

  c.steps = 60
  c.tasks.train = dict(train_easy=2, train_medium=6)
  c.tasks.dev = dict(dev_easy=30, dev_medium=60, dev_hard=60)
  c.learn.rate = 3e-4
  c.learn.warmup = 5
  c.learn.minibatches = 2
  c.learn.row_lengths = (WINDOW,) if window == WINDOW else (WINDOW, window)
  c.learn.tokens_per_microbatch = WINDOW * (2 if window == WINDOW else 4)
  c.credit.depth_weight_cap = 4.0  # a stray node at a depth of its own would weigh as much as all roots together
  c.loss.surrogate = "ppo"
  return c
