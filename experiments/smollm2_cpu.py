"""A pretrained chat model on two CPU cores: SmolLM2-135M-Instruct, real weights, works TextCraft by the chat protocol.

python -m rao_jax.policy.smollm2                                     (fetches the 98 MB GGUF file, once)
python -m rao_jax.train --config=experiments/smollm2_cpu.py --workdir=runs/smollm2

Seen on two cores that other work shared: 20,717 warm-start tokens in 354 s (loss 0.18); two steps of 16 trees in
624 and 353 s, 8 and 1 of them solved, no tree with a fault; 2 of 10 easy development tasks solved before, 4 of 10
after, which is no difference at this size. All parameters are trained; the workdir takes 3.8 GB.
"""

from rao_jax.config import base_config
from rao_jax.policy import smollm2

WINDOW = 512

# The environment's own instructions take 800 tokens; all else that an agent reads and writes on these tasks takes 160.
SYSTEM = """\
Make the items you are asked for. Answer with one cell in <python></python>.
get_info(["item"]) shows item*made={"part":units}. craft({"part":units},("item",units)) makes it, in multiples of made.
await launch_subagent({"part":units}) has a part made that is not base. finish("done") when it is made."""


def get_config():
  c = base_config()
  c.environment.options = dict(data_dir="runs/data", compact=True)
  c.compile_cache = "runs/cache"
  c.protocol = "chat"
  c.chat.system = SYSTEM
  c.policy.path = str(smollm2.location())

  c.caps.max_depth = 2
  c.caps.max_nodes = 8
  c.caps.max_turns = 6
  c.caps.turn_tokens = 96
  c.caps.output_tokens = 96
  c.caps.window = WINDOW
  c.caps.min_turn = 24
  c.rollout.row_ladder = (8,)
  c.rollout.cache_ladder = (WINDOW + 16,)
  c.rollout.slots = 32

  c.warm_start.tasks = dict(train_easy=60)
  c.warm_start.tokens = 20_000
  c.warm_start.rate = 2e-4
  c.warm_start.warmup = 3
  c.warm_start.tokens_per_update = 2 * WINDOW

  c.steps = 2
  c.rollouts_per_task = 4
  c.tasks.train = dict(train_easy=4)
  c.tasks.dev = dict(dev_easy=10)
  c.evaluation.every = 2
  c.learn.rate = 1e-5
  c.learn.warmup = 1
  c.learn.row_lengths = (WINDOW,)
  c.learn.tokens_per_microbatch = WINDOW
  c.loss.surrogate = "reinforce"
  c.log.trees_every = 1
  return c
