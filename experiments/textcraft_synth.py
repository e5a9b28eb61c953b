"""TextCraft-Synth as the paper trains on it (arXiv 2605.06639, 8k window), for users with an accelerator.

  pip download --no-deps --only-binary=:all: --python-version 3.12 -d runs/data/downloads/manual \
    platoon-textcraft==0.3.0
  python -m rao_jax.train --config=experiments/textcraft_synth.py --workdir=runs/textcraft_synth
  python -m rao_jax.train --config=experiments/textcraft_synth.py:single --workdir=runs/textcraft_synth_single

Taken from the paper and its authors' settings: the published tasks, medium ones for training, 16 of them a step with 8
trees each, 25 turns an agent, depth 6, window 8,192, lambda 0, CISPO up to 5 in one update, learning rate 3e-6 with no
decay. Ours: success by `produced`, which equals the authors' rule at roots (`environment.options.success="delta"` is
theirs for sub-agents too), and the policy: theirs is a pretrained 4B model, this one is born here, of 85 million
parameters, and cloned from scripts. So its figures do not compare with the paper's. NOT RUN TO ITS END, for want of an
accelerator: only its tasks, its settings and two steps with all sizes made small are tested.
"""

from rao_jax.config import base_config

WINDOW = 8192


def get_config(agent: str = "recursive"):
  c = base_config()
  c.environment.name = "textcraft_synth"
  c.environment.options = dict(data_dir="runs/data", dataset="canonical", refuse_ancestor_goals=False)

  c.caps.max_depth = {"recursive": 6, "single": 0}[agent]
  c.caps.max_turns = 25 if agent == "recursive" else 200
  c.caps.window = WINDOW
  c.caps.turn_tokens = 512
  c.caps.output_tokens = 1024

  c.policy.layers = 12
  c.policy.width = 768
  c.policy.heads = 12
  c.policy.kv_heads = 4
  c.policy.head_size = 64
  c.policy.mlp = 2048
  c.policy.qk_norm = True
  c.policy.dtype = "bfloat16"
  c.policy.remat = True
  c.rollout.row_ladder = (64, 256)
  c.rollout.cache_ladder = (2048, WINDOW + 128)
  c.rollout.slots = 512

  c.warm_start.demonstrator = "recursive" if agent == "recursive" else "inline"
  c.warm_start.tasks = dict(train_easy=588, train_medium=852)
  c.warm_start.slips = dict(delegate=0.7, quantity=0.01, unknown=0.01, one_by_one=0.3)
  c.warm_start.tokens = 20_000_000
  c.warm_start.tokens_per_update = WINDOW * 4

  c.steps = 530  # ten times through the medium tasks
  c.rollouts_per_task = 8
  c.tasks.train = dict(train_medium=16)
  c.tasks.dev = dict(val_easy=34, val_medium=33, val_hard=33)
  c.evaluation.every = 10
  c.learn.rate = 3e-6
  c.learn.final = 1.0
  c.learn.warmup = 1
  c.learn.weight_decay = 0.017
  c.learn.row_lengths = (2048, WINDOW)
  c.learn.tokens_per_microbatch = WINDOW * 4
  c.loss.surrogate = "cispo"
  return c
