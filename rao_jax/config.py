"""Every setting of a run, with its default and what it means. Experiments change some; an unknown key is an error."""

import dataclasses

from ml_collections import ConfigDict

from rao_jax.learn.losses import LossOptions
from rao_jax.policy.transformer import PolicyConfig
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.interpreter import Limits
from rao_jax.tree.credit import CreditOptions


def base_config() -> ConfigDict:
  """The defaults. An experiment's `get_config` starts from here and sets what differs."""
  c = ConfigDict()
  c.seed = 0  # of everything that is drawn: parameters, tasks, tokens, demonstrations
  c.steps = 100  # policy-gradient steps; a step is one batch of trees
  c.sampled_tokens = 0  # stop at the step that brings the tokens sampled in training to this; 0 is no limit
  c.rollouts_per_task = 8  # G: trees of one root task, each the baseline of the others
  c.max_seconds = 0.0  # stop after so many seconds of training, evaluations included; 0 is no limit

  c.environment = ConfigDict()
  c.environment.factory = "rao_jax.envs.textcraft.factory:make"  # module:function, called with `options`
  c.environment.options = ConfigDict()  # keyword arguments of the factory

  c.tasks = ConfigDict()
  c.tasks.train = ConfigDict()  # split -> root tasks of it in every step
  c.tasks.dev = ConfigDict()  # split -> tasks of it in every evaluation

  c.mesh = ConfigDict()
  c.mesh.data = -1  # devices along each axis; -1 for the rest
  c.mesh.fsdp = 1
  c.mesh.tensor = 1

  c.policy = ConfigDict()
  c.policy.vocab_size = 0  # rows of the embedding; 0 takes the tokenizer's, rounded up to a multiple of 64
  c.policy.layers = 3
  c.policy.width = 128
  c.policy.heads = 4
  c.policy.kv_heads = 1
  c.policy.head_size = 32
  c.policy.mlp = 384
  c.policy.rope_base = 10_000.0
  c.policy.qk_norm = False
  c.policy.tied = True
  c.policy.norm_eps = 1e-6
  c.policy.dtype = "float32"
  c.policy.param_dtype = "float32"
  c.policy.unroll = False  # unroll the layers: faster for a few small ones on a CPU, slower to compile
  c.policy.remat = False  # recompute activations in the backward pass

  c.tokenizer = ConfigDict()
  c.tokenizer.path = ""  # a sentencepiece model with the control tokens; empty trains one on demonstrations
  c.tokenizer.learned = 16  # pieces learned beyond the environment's own and single characters

  c.caps = ConfigDict()  # hard limits; see rollout/budget.py
  for field in dataclasses.fields(Caps):
    c.caps[field.name] = field.default
  c.sandbox = ConfigDict()  # limits of one cell; see rollout/interpreter.py
  for field in dataclasses.fields(Limits):
    c.sandbox[field.name] = field.default

  c.rollout = ConfigDict()
  c.rollout.temperature = 1.0
  c.rollout.row_ladder = (16, 64)  # rows of a decode batch
  c.rollout.cache_ladder = (2048, 8256)  # cache positions read; the last holds the window and one slice
  c.rollout.steps = 16  # tokens decoded between two looks of the host
  c.rollout.chunk = 64  # tokens of one prefill call
  c.rollout.slots = 256  # nodes whose cache is kept; beyond that suspended nodes give theirs up

  c.credit = ConfigDict()  # the paper's rule by default; see tree/credit.py
  c.credit.delegation_bonus = 0.0  # lambda
  c.credit.baseline = "leave_one_out"
  c.credit.sparse = False
  c.credit.leaf_scale = False
  c.credit.depth_weighting = True
  c.credit.depth_weight_cap = 0.0  # 0 is no cap

  c.loss = ConfigDict()  # see learn/losses.py
  c.loss.surrogate = "cispo"
  c.loss.clip_low = 0.2
  c.loss.clip_high = 0.2
  c.loss.ratio_low = 0.0
  c.loss.ratio_high = 5.0
  c.loss.truncation = 0.0  # 0 is none
  c.loss.kl_coefficient = 0.0
  c.loss.entropy_coefficient = 0.0
  c.loss.report_entropy = True  # False saves about a tenth of an update
  c.loss.normaliser = "trajectory"  # or "token"

  c.learn = ConfigDict()
  c.learn.rate = 3e-4  # peak learning rate
  c.learn.warmup = 10  # updates of linear warm-up
  c.learn.final = 0.1  # of the peak, at the last update
  c.learn.clip = 1.0  # global norm
  c.learn.b1 = 0.9
  c.learn.b2 = 0.95
  c.learn.eps = 1e-8
  c.learn.weight_decay = 0.0
  c.learn.minibatches = 1  # updates per batch of trees, each on a part of the nodes
  c.learn.row_lengths = (8192,)  # packed row lengths; the last holds the window
  c.learn.tokens_per_microbatch = 8192
  c.learn.max_skipped = 3  # non-finite updates in a row that stop the run

  c.warm_start = ConfigDict()  # behaviour cloning before step 1
  c.warm_start.tokens = 0  # to train on; 0 skips the warm start
  c.warm_start.tasks = ConfigDict()  # split -> demonstrations of it
  c.warm_start.demonstrator = "recursive"  # a name the environment knows
  c.warm_start.slips = ConfigDict()  # how it falls short
  c.warm_start.rate = 1e-3
  c.warm_start.warmup = 20
  c.warm_start.final = 0.1
  c.warm_start.tokens_per_update = 8192
  c.warm_start.from_workdir = ""  # take tokenizer and parameters from step 0 of another run in place of cloning

  c.evaluation = ConfigDict()
  c.evaluation.every = 10  # steps; 0 never
  c.evaluation.temperature = 0.0  # 0 is greedy
  c.evaluation.max_depth = 0  # depth cap of evaluations, 0 takes that of training
  c.evaluation.max_nodes = 0  # node cap of evaluations, 0 takes that of training

  c.checkpoint = ConfigDict()
  c.checkpoint.every = 10  # steps; the last one is always saved
  c.checkpoint.keep = 3

  c.log = ConfigDict()
  c.log.tensorboard = True
  c.log.wandb_project = ""
  c.log.trees_every = 10  # steps between dumps of trees for the report; 0 never
  c.log.trees = 8  # trees of a dump
  c.log.report = True  # write report.html at the end
  c.compile_cache = ""  # folder of the persistent compilation cache; empty is none

  c.lock()  # a misspelt key in an experiment is an error; the groups below have keys of the environment's choosing
  for group in (c.environment.options, c.tasks.train, c.tasks.dev, c.warm_start.tasks, c.warm_start.slips):
    group.unlock()
  return c


def policy_config(c: ConfigDict, vocab_size: int) -> PolicyConfig:
  rows = c.policy.vocab_size or -(-vocab_size // 64) * 64
  if rows < vocab_size:
    raise ValueError(f"config.policy.vocab_size={rows} is less than the tokenizer's {vocab_size}: set it to 0")
  return PolicyConfig(**{**c.policy.to_dict(), "vocab_size": rows})


def credit_options(c: ConfigDict) -> CreditOptions:
  values = {**c.credit.to_dict(), "depth_weight_cap": c.credit.depth_weight_cap or None}
  return CreditOptions(max_depth=c.caps.max_depth, **values)


def loss_options(c: ConfigDict) -> LossOptions:
  values = {**c.loss.to_dict(), "truncation": c.loss.truncation or None}
  del values["normaliser"]
  return LossOptions(**values)


def validate(c: ConfigDict) -> None:
  """Refuses what cannot work, or does nothing, before anything is built."""
  Caps(**c.caps.to_dict())
  credit_options(c)
  loss_options(c)
  if c.credit.baseline == "leave_one_out" and c.rollouts_per_task < 2:
    raise ValueError(
      f"config.rollouts_per_task={c.rollouts_per_task} leaves no other tree for the leave-one-out baseline: set 2 or "
      "more"
    )
  if c.loss.surrogate == "reinforce" and c.learn.minibatches > 1 and not c.loss.truncation:
    raise ValueError(
      f"config.loss.surrogate=reinforce is on-policy, config.learn.minibatches={c.learn.minibatches} is not: set it to "
      "1, or choose ppo or cispo"
    )
  if c.loss.normaliser not in ("trajectory", "token"):
    raise ValueError(f"config.loss.normaliser={c.loss.normaliser!r}: choose 'trajectory' or 'token'")
  if c.rollout.temperature <= 0:
    raise ValueError(f"config.rollout.temperature={c.rollout.temperature}: training needs a temperature above 0")
  needed = c.caps.window + c.rollout.steps
  if max(c.rollout.cache_ladder) < needed:
    raise ValueError(
      f"config.rollout.cache_ladder={tuple(c.rollout.cache_ladder)}: its last must hold caps.window + rollout.steps = "
      f"{needed} positions"
    )
  if max(c.learn.row_lengths) < c.caps.window:
    raise ValueError(
      f"config.learn.row_lengths={tuple(c.learn.row_lengths)}: its last must hold caps.window={c.caps.window} tokens"
    )
  if c.learn.tokens_per_microbatch < max(c.learn.row_lengths):
    raise ValueError(
      f"config.learn.tokens_per_microbatch={c.learn.tokens_per_microbatch} holds no row of "
      f"config.learn.row_lengths={tuple(c.learn.row_lengths)}: set it to {max(c.learn.row_lengths)} or more"
    )
  if c.evaluation.every and not c.tasks.dev:
    raise ValueError(
      f"config.evaluation.every={c.evaluation.every}, but config.tasks.dev names no split to evaluate on: name one, "
      "e.g. config.tasks.dev.dev_medium = 50, or set it to 0"
    )
  if c.warm_start.tokens and not c.warm_start.tasks and not c.warm_start.from_workdir:
    raise ValueError(
      f"config.warm_start.tokens={c.warm_start.tokens}, but config.warm_start.tasks names no demonstrations: name a "
      "split, e.g. config.warm_start.tasks.train_easy = 100, or set it to 0"
    )
  if not c.tasks.train:
    raise ValueError("config.tasks.train names no split to train on, e.g. config.tasks.train.train_medium = 16")
  if c.learn.minibatches < 1 or c.steps < 0:
    raise ValueError("config.learn.minibatches must be at least 1 and config.steps at least 0")
