"""Questions on plays that do not fit the context window, on two CPU cores.

  python -m rao_jax.train --config=experiments/documents_cpu.py --workdir=runs/documents

trains and tests three agents side by side (one alone: `--config=experiments/documents_cpu.py:recursive`):
`recursive`; `single` (max_depth=0: no `launch_subagent`), same size, data, window and RL; `plain`, a single agent whose
`context` is the text itself, which a line of code can search.

Seen at seed 0 on two cores: 679 s in all. Score on test questions at 0.5, 2, 8 and 32 windows: recursive .87, .72,
.44, .50 (warm start .90, .56, .28, .30); single .86, .56, .23, .34; plain 1.00, 1.00, 1.00, .89. With 24 steps in
place of 16, 967 s, and .85, .72, .52, .55 for the recursive agent. Speeches and names are cut short (data set
`w512`): a policy from nothing has to learn to copy them.
"""

from rao_jax.config import base_config

WINDOW = 512  # the data set's documents are 0.5, 2, 8 and 32 times as long


def get_config(agent: str = ""):
  c = base_config()
  if not agent:
    c.agents = ("recursive", "single", "plain")
  agent = agent or "recursive"
  c.environment.name = "documents"
  c.environment.options = dict(data_dir="runs/data", dataset="w512", plain_text=agent == "plain")
  c.compile_cache = "runs/cache"

  # 32 windows are some 760 lines: cut by four, four times, into leaves of 12 lines or 15 at most.
  c.caps.max_depth = 4 if agent == "recursive" else 0
  c.caps.max_nodes = 32
  c.evaluation.max_depth = 6 if agent == "recursive" else 0
  c.evaluation.max_nodes = 128
  c.caps.turn_tokens = 96
  c.caps.output_tokens = WINDOW // 4  # what one `read` shows at most
  c.caps.window = WINDOW
  c.caps.result_tokens = 8
  c.caps.max_turns = 18

  c.tokenizer.learned = 1000
  c.tokenizer.prose = True
  c.policy.layers = 2
  c.policy.kv_heads = 2
  c.policy.mlp = 256
  c.policy.qk_norm = True
  c.policy.unroll = True
  c.rollout.row_ladder = (8, 16)
  c.rollout.cache_ladder = (256, WINDOW + 16)
  c.rollout.chunk = 32
  c.rollout.slots = 512

  c.warm_start.demonstrator = {"recursive": "recursive", "single": "inline", "plain": "search"}[agent]
  c.warm_start.tasks = dict(train_half=1500, train_2x=1500)
  c.warm_start.slips = dict(lines=1, reads=14, parts=4, delegate=0.4)
  c.warm_start.tokens = 200_000 if agent == "plain" else 1_700_000  # a node of `plain` is a short one
  c.warm_start.rate = 2e-3
  c.warm_start.tokens_per_update = WINDOW * 2

  c.steps = 4 if agent == "plain" else 16
  c.tasks.train = dict(train_2x=8)
  c.tasks.dev = dict(dev_half=20, dev_2x=20, dev_8x=20)
  c.tasks.test = dict(test_half=60, test_2x=100, test_8x=60, test_32x=30)
  c.evaluation.every = 8
  c.learn.rate = 3e-4
  c.learn.warmup = 3
  c.learn.row_lengths = (WINDOW,)
  c.learn.tokens_per_microbatch = WINDOW * 2
  c.credit.depth_weight_cap = 4.0  # a stray node at a depth of its own would weigh as much as all roots together
  c.loss.surrogate = "reinforce"
  return c
