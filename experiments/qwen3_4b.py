"""The paper's TextCraft setting (arXiv 2605.06639): Qwen3-4B-Instruct-2507 learns to recurse on medium tasks.

  pip download --no-deps --only-binary=:all: --python-version 3.12 -d runs/data/downloads/manual \
    platoon-textcraft==0.3.0
  python -m rao_jax.train --config=experiments/qwen3_4b.py --config.policy.path=/models/Qwen3-4B-Instruct-2507 \
    --workdir=runs/qwen3_4b
  python -m rao_jax.train --config=experiments/qwen3_4b.py:lora --config.policy.path=... --workdir=runs/qwen3_4b_lora

Theirs: 8 trees of each of 16 published medium tasks a step, 25 turns an agent, depth 6, window 8,192, temperature 1,
lambda 0, CISPO up to 5 in one update; all parameters at 3e-6, or LoRA of rank 32 at 3e-5 without decay and clipping.
Ours: 128 nodes a tree at most, and success of sub-agents by `produced`, which equals their rule at roots
(`environment.options.success="delta"` is theirs). Parameters are float32 in training and bfloat16 in use, but for the
base of LoRA, which is bfloat16. NOT RUN WITH THE REAL MODEL, for want of an accelerator: the same code is tested from
end to end with `--config.policy.preset=qwen3_tiny`, random weights and small numbers; docs/scaling.md says on which
chips it fits.
"""

from rao_jax.config import base_config

WINDOW = 8192


def get_config(trained: str = "full"):
  c = base_config()
  c.environment.options = dict(data_dir="runs/data", dataset="canonical", refuse_ancestor_goals=False)
  c.protocol = "chat"
  c.mesh.data = 1
  c.mesh.fsdp = -1
  c.mesh.tensor = 4

  c.policy.preset = "qwen3_4b_instruct_2507"  # the folder at policy.path must agree with it
  c.policy.dtype = "bfloat16"
  c.policy.remat = True

  c.caps.max_depth = 6
  c.caps.max_turns = 25
  c.caps.window = WINDOW
  c.caps.turn_tokens = 1024
  c.caps.output_tokens = 1024
  c.rollout.row_ladder = (16, 64)
  c.rollout.cache_ladder = (2048, WINDOW + 128)
  c.rollout.chunk = 512
  c.rollout.slots = 64

  c.steps = 530  # ten times through the medium tasks
  c.rollouts_per_task = 8
  c.tasks.train = dict(train_medium=16)
  c.tasks.dev = dict(val_easy=34, val_medium=33, val_hard=33)
  c.evaluation.every = 10
  c.learn.final = 1.0
  c.learn.warmup = 1
  c.learn.row_lengths = (2048, WINDOW)
  c.learn.tokens_per_microbatch = WINDOW * 4
  c.loss.surrogate = "cispo"
  c.update(dict(full=full, lora=lora)[trained]())
  return c


def full():
  return dict(learn=dict(rate=3e-6, weight_decay=0.017))


def lora():
  return dict(policy=dict(param_dtype="bfloat16", lora_rank=32), learn=dict(rate=3e-5, clip=1e12))
