"""A pretrained chat model on two CPU cores: SmolLM2-135M-Instruct, real weights, works TextCraft by the chat protocol.

python -m rao_jax.policy.smollm2                                     (fetches the 98 MB GGUF file, once)
python -m rao_jax.train --config=experiments/smollm2_cpu.py --workdir=runs/smollm2

Adapters of rank 16 are trained (4.9 of 139 million parameters), in the warm start too. Seen on two cores that other
work shared (load 5 to 10): 20,717 warm-start tokens in 509 s (loss 0.24); two steps of 16 trees in 795 and 1,150 s, 4
and 4 of them solved, no tree with a fault; 3 of 10 easy development tasks solved before, 4 of 10 after, which is no
difference at this size. The workdir takes 147 MB; `python -m rao_jax.export` wrote a folder that transformers loads.
Training every parameter (`policy.lora_rank=0`, rates 2e-4 and 1e-5) took 354 s, 624 and 353 s on a quieter machine,
reached 2 and 4 of 10, and 3.8 GB.
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
  c.policy.lora_rank = 16

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
  c.warm_start.rate = 1e-3
  c.warm_start.warmup = 3
  c.warm_start.tokens_per_update = 2 * WINDOW

  c.steps = 2
  c.rollouts_per_task = 4
  c.tasks.train = dict(train_easy=4)
  c.tasks.dev = dict(dev_easy=10)
  c.evaluation.every = 2
  c.learn.rate = 1e-4
  c.learn.warmup = 1
  c.learn.row_lengths = (WINDOW,)
  c.learn.tokens_per_microbatch = WINDOW
  c.loss.surrogate = "reinforce"
  c.log.trees_every = 1
  return c
