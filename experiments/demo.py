r"""The demo: a recursive agent against agents that may not delegate, on two CPU cores.

  make demo                                             all of it, with the report
  python -m rao_jax.train --config=experiments/demo.py:recursive --workdir=runs/recursive      one agent

Of the same agents, depth, context, delegation under other caps, and wall clock:

  python -m rao_jax.evaluate --workdir=runs/demo/recursive --max_depth=14 --max_nodes=512 --nosingle \
    --split=test_easy:30,test_medium:60,test_hard:60,test_extreme:30
  python -m rao_jax.evaluate --workdir=runs/demo/recursive --context=192 --nosingle \
    --split=test_medium:100,test_hard:100 --trees=runs/demo/recursive/evaluations/192.jsonl  also 256, 768; also single
  python -m rao_jax.evaluate --workdir=runs/demo/recursive --max_depth=2 --nosingle \
    --split=test_medium:100,test_hard:100 --trees=runs/demo/recursive/evaluations/depth_2.jsonl
  python -m benchmarks.wall_clock --recursive=runs/demo/recursive --single=runs/demo/single_4x

Agents: `recursive`; `single` (max_depth=0: no `launch_subagent`), same size, data, window and RL; `single_4x`, the
single agent with four times the window, from the same warm start.

Seen on two cores of an AMD EPYC, seeds 0, 1, 2: 531 (with installation), 495, 490 s. On medium and hard test tasks the
recursive agent solves 0.97, 0.98, 0.94 and 0.98, 1.00, 0.85 (its warm start 0.52, 0.67, 0.57 and 0); single 0.60, 0.49,
0.55 and 0, with four times the window 0.68, 0.56, 0.65 and 0.01 at most. The studies took 4 minutes a seed on one core.
"""

from rao_jax.config import base_config

WINDOW = 384  # by the table of `script_by_window`: a perfect single agent fits >= 0.75 of medium, <= 0.10 of hard

# The single agent samples at least as much in RL: the recursive one stops at the step that brings it to its number, and
# a step of 64 trees samples less than the difference.
RECURSIVE_TOKENS = 380_000
SINGLE_TOKENS = 440_000


def get_config(agent: str = "recursive"):
  c = base_config()
  c.environment.options = dict(data_dir="runs/data", dataset="small", compact=True, refuse_ancestor_goals=True)
  c.compile_cache = "runs/cache"
  window = WINDOW * (4 if agent == "single_4x" else 1)

  # Small trees of short nodes: a perfect node takes 62 to 66 tokens on average, a perfect hard tree 25 nodes (median).
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
  c.rollout.row_ladder = (2, 4, 8, 16)
  c.rollout.cache_ladder = (128, WINDOW + 16) if window == WINDOW else (128, WINDOW + 16, window + 16)
  c.rollout.slots = 512 if window == WINDOW else 128

  c.warm_start.demonstrator = "recursive" if agent == "recursive" else "inline"
  c.warm_start.tasks = dict(train_easy=800, train_medium=1200)
  c.warm_start.slips = dict(
    delegate=0.4, quantity=0.01, factor=0.01, ingredient=0.01, early=0.01, base=0.01, unknown=0.02, one_by_one=0.3,
    give_up=0.8,
  )  # fmt: skip
  c.warm_start.tokens = 1_200_000
  c.warm_start.rate = 2e-3
  c.warm_start.tokens_per_update = WINDOW * 2
  if agent == "single_4x":
    c.warm_start.from_workdir = "runs/demo/single"

  c.steps = {"recursive": 40, "single": 80, "single_4x": 30}[agent]
  c.sampled_tokens = {"recursive": RECURSIVE_TOKENS, "single": SINGLE_TOKENS, "single_4x": SINGLE_TOKENS // 3}[agent]
  c.tasks.train = dict(train_easy=2, train_medium=6)
  c.tasks.dev = dict(dev_easy=20, dev_medium=40, dev_hard=40)
  c.evaluation.every = 20
  c.learn.rate = 3e-4
  c.learn.warmup = 5
  c.learn.minibatches = 1
  c.learn.row_lengths = (WINDOW,) if window == WINDOW else (WINDOW, window)
  c.learn.tokens_per_microbatch = WINDOW * (2 if window == WINDOW else 4)
  c.credit.depth_weight_cap = 4.0  # a stray node at a depth of its own would weigh as much as all roots together
  c.loss.surrogate = "reinforce"
  return c
