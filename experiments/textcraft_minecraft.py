"""TextCraft with Minecraft's recipes: tags, several recipes for an item, one to three items a task.

Its tasks and recipes come from the benchmark authors' wheel, which is fetched once and neither installed nor unpacked:

  pip download --no-deps --only-binary=:all: --python-version 3.12 -d runs/data/downloads/manual \
    platoon-textcraft==0.3.0
  python -m rao_jax.train --config=experiments/textcraft_minecraft.py --workdir=runs/minecraft

A demonstration that the benchmark trains, not a result: a policy of 0.66 million parameters is cloned from a script and
then trained for a few steps. On two CPU cores that other work shared, `--config.steps=2` took 6 minutes (3 of processor
time), 4 of them the warm start; of the first 50 validation tasks the warm start solves 12 %, after two steps 10 %.
"""

from rao_jax.config import base_config

WINDOW = 1024  # a demonstrating agent needs up to 891 tokens, one that works alone up to 961 (the first 150 tasks)


def get_config():
  c = base_config()
  c.environment.name = "textcraft_minecraft"
  c.environment.options = dict(data_dir="runs/data", compact=True)
  c.compile_cache = "runs/cache"

  c.caps.max_depth = 2  # a task asks for three items at most: the script launches an agent for each
  c.caps.max_nodes = 16
  c.caps.turn_tokens = 96
  c.caps.output_tokens = 384  # 16 colours of wool that a recipe may take
  c.caps.window = WINDOW
  c.caps.result_tokens = 8

  c.policy.qk_norm = True
  c.policy.unroll = True
  c.rollout.row_ladder = (8, 32)
  c.rollout.cache_ladder = (256, WINDOW + 16)
  c.rollout.slots = 128

  c.warm_start.tasks = dict(train=800)
  c.warm_start.tokens = 600_000
  c.warm_start.rate = 2e-3
  c.warm_start.tokens_per_update = WINDOW * 2

  c.steps = 20
  c.rollouts_per_task = 4
  c.tasks.train = dict(train=8)
  c.tasks.dev = dict(val=50)
  c.evaluation.every = 10
  c.learn.warmup = 1  # a run of two steps is a run too
  c.learn.row_lengths = (WINDOW,)
  c.learn.tokens_per_microbatch = WINDOW * 2
  c.loss.surrogate = "reinforce"
  return c
