"""TextCraft-Synth in small on one CPU core: a recursive agent from scratch, trained on easy and medium tasks only."""

from rao_jax.config import base_config


def get_config():
  c = base_config()
  c.steps = 60
  c.environment.options = dict(data_dir="runs/data", dataset="small", compact=True, refuse_ancestor_goals=True)
  c.tasks.train = dict(train_easy=2, train_medium=6)
  c.tasks.dev = dict(dev_easy=30, dev_medium=60, dev_hard=60)
  c.rollouts_per_task = 8
  c.caps.max_depth = 9
  c.caps.max_nodes = 128
  c.caps.max_turns = 25
  c.caps.turn_tokens = 64
  c.caps.output_tokens = 64
  c.caps.window = 320
  c.caps.min_turn = 8
  c.caps.result_tokens = 8
  c.policy.unroll = True
  c.rollout.row_ladder = (8, 32)
  c.rollout.cache_ladder = (128, 336)
  c.rollout.steps = 8
  c.rollout.chunk = 64
  c.rollout.slots = 512
  c.learn.rate = 5e-4
  c.learn.warmup = 5
  c.learn.minibatches = 4
  c.learn.row_lengths = (128, 320)
  c.learn.tokens_per_microbatch = 2560
  c.loss.surrogate = "ppo"
  c.warm_start.tokens = 1_200_000
  c.warm_start.tasks = dict(train_easy=600, train_medium=800)
  c.warm_start.slips = dict(
    delegate=0.4, quantity=0.05, factor=0.05, ingredient=0.05, early=0.02, base=0.03, unknown=0.05, one_by_one=0.3,
    give_up=0.5,
  )  # fmt: skip
  c.warm_start.rate = 2e-3
  c.warm_start.tokens_per_update = 5120
  c.compile_cache = "runs/cache"
  return c
