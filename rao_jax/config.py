"""Every setting of a run, with its default and what it means. Experiments change some; an unknown key is an error."""

import dataclasses
import functools
import sys

from ml_collections import ConfigDict

from rao_jax.learn.losses import LossOptions
from rao_jax.learn.state import OPTIMIZERS
from rao_jax.policy.presets import PRESETS
from rao_jax.policy.pretrained import config_of
from rao_jax.policy.transformer import PROJECTIONS, PolicyConfig
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.interpreter import Limits
from rao_jax.tree.credit import CreditOptions

FREE_OF_PRESET = (
  "vocab_size",
  "dtype",
  "param_dtype",
  "unroll",
  "remat",
  "attention",
  "lora_rank",
  "lora_alpha",
  "lora_targets",
)
PROTOCOLS = ("compact", "chat")
SUSPENDED = ("recompute", "host", "keep")
SHARED = ("auto", "all", "rollout", "none")
HOST_BYTES = 8 << 30
# Numbers that must be above 0; all others must be 0 or more, sizes of the mesh apart.
POSITIVE = (
  "rollouts_per_task",
  *(f"policy.{name}" for name in ("layers", "width", "heads", "kv_heads", "head_size", "mlp", "norm_eps", "rope_base",
                                  "rope_factor", "window_rope_base")),
  *(f"sandbox.{field.name}" for field in dataclasses.fields(Limits)),
  *(f"rollout.{name}" for name in ("temperature", "row_ladder", "cache_ladder", "steps", "chunk", "slots")),
  *(f"learn.{name}" for name in ("clip", "eps", "minibatches", "row_lengths", "tokens_per_microbatch", "max_skipped")),
  "loss.ratio_high", "warm_start.tokens_per_update", "checkpoint.every", "judge.endpoint.timeout",
)  # fmt: skip
AT_MOST = {
  "seed": 2**31 - 1, "learn.b1": 0.999999, "learn.b2": 0.999999, "learn.final": 1.0, "warm_start.final": 1.0,
  "loss.clip_low": 1.0,
}  # fmt: skip
# Groups whose keys are of the environment's or the endpoint's choosing.
OPEN = (
  "environment.options", "tasks.train", "tasks.dev", "tasks.test", "judge.request", "warm_start.tasks",
  "warm_start.slips",
)  # fmt: skip
JUDGES = ("rule", "sparse", "policy", "endpoint")


def base_config() -> ConfigDict:
  """The defaults. An experiment's `get_config` starts from here and sets what differs."""
  c = ConfigDict()
  c.seed = 0  # of everything that is drawn: parameters, tasks, tokens, demonstrations
  c.steps = 100  # policy-gradient steps; a step is one batch of trees
  c.sampled_tokens = 0  # stop at the step that brings the tokens sampled in training to this; 0 is no limit
  c.rollouts_per_task = 8  # G: trees of one root task, each the baseline of the others
  c.max_seconds = 0.0  # stop after so many seconds of training, evaluations included; 0 is no limit

  c.environment = ConfigDict()
  c.environment.name = "textcraft_synth"  # a world of rao_jax/envs/__init__.py, or module:function of your own
  c.environment.options = ConfigDict()  # keyword arguments of the function

  c.tasks = ConfigDict()
  c.tasks.train = ConfigDict()  # split -> root tasks of it in every step
  c.tasks.dev = ConfigDict()  # split -> tasks of it in every evaluation
  c.tasks.test = ConfigDict()  # split -> tasks of the final comparison of `agents`

  # Agents of the same experiment file to train side by side and compare on tasks.test, the first against the others:
  # `get_config(agent)` gives the config of each, below WORKDIR/agent. Empty trains this config alone.
  c.agents = ()

  c.mesh = ConfigDict()
  c.mesh.data = -1  # devices along each axis; -1 for the rest
  c.mesh.fsdp = 1  # parameters and optimizer state are split along it, rows too
  c.mesh.tensor = 1  # heads and mlp are split along it
  c.mesh.expert = 1  # shares of a layer's experts, see policy/experts.py

  c.policy = ConfigDict()
  # A published model to start from: a folder with config.json and safetensors, or a GGUF file. Its numbers hold, as
  # those of a preset do, and its tokenizer, unless config.tokenizer.path names another.
  c.policy.path = ""
  # Numbers of a published model, see policy/presets.py; those below that describe it stay unset. With a path: what the
  # model there has to be.
  c.policy.preset = ""
  c.policy.vocab_size = 0  # rows of the embedding; 0 takes the preset's, or the tokenizer's up to a multiple of 64
  c.policy.layers = 3
  c.policy.width = 128
  c.policy.heads = 4
  c.policy.kv_heads = 1
  c.policy.head_size = 32
  c.policy.mlp = 384
  c.policy.rope_base = 10_000.0
  c.policy.qk_norm = False
  c.policy.tied = True
  c.policy.norm_eps = 1e-6  # of RMSNorm
  c.policy.dtype = "float32"
  c.policy.param_dtype = "float32"  # of parameters
  for field in dataclasses.fields(PolicyConfig):  # what published models add; see policy/transformer.py
    if field.name not in c.policy and field.default is not dataclasses.MISSING:
      c.policy[field.name] = field.default
  c.policy.unroll = False  # unroll the layers: faster for a few small ones on a CPU, slower to compile
  c.policy.remat = False  # recompute activations in the backward pass
  c.policy.attention = "auto"  # the platform's kernel where it can be used, see docs/accelerators.md; or xla
  c.policy.lora_rank = 0  # of adapters, which are then all that is trained; 0 trains every parameter
  c.policy.lora_alpha = 32.0  # adapters are scaled by lora_alpha / lora_rank
  c.policy.lora_targets = PROJECTIONS  # the projections that have one; experts cannot

  c.tokenizer = ConfigDict()
  # A tokenizer.json, a sentencepiece model, a folder with one of them, or a GGUF file. Empty: that of policy.path, or
  # one that is made of the environment's pieces.
  c.tokenizer.path = ""
  c.tokenizer.learned = 16  # pieces learned beyond those, from the demonstrations of a warm start if there is one
  c.tokenizer.prose = False  # those may hold a space: for worlds with real text

  c.protocol = "compact"  # turns between control tokens of our own; "chat": the turns of a pretrained chat model
  c.chat = ConfigDict()
  c.chat.system = ""  # text of the system's turn; empty: the environment's instructions, the Python, how to answer

  # Where the tokens that all prompts start with (the system's turn of a chat model) are worked once for all nodes:
  # in rollouts and training (all), rollout, or none. auto: all, but rollout where training has an attention kernel of
  # its platform, which takes no prefix.
  c.share_prefix = "auto"

  c.caps = ConfigDict()  # hard limits; see rollout/budget.py
  for field in dataclasses.fields(Caps):
    c.caps[field.name] = field.default
  c.sandbox = ConfigDict()  # limits of one cell; see rollout/interpreter.py
  for field in dataclasses.fields(Limits):
    c.sandbox[field.name] = field.default

  c.rollout = ConfigDict()
  c.rollout.temperature = 1.0  # of sampling in training
  c.rollout.row_ladder = (16, 64)  # rows of a decode batch
  c.rollout.cache_ladder = (2048, 8256)  # cache positions read; the last holds the window and one slice
  c.rollout.steps = 16  # tokens decoded between two looks of the host, at most
  c.rollout.least_busy = 0.75  # with a smaller share of a batch's rows still at work the host looks earlier
  c.rollout.chunk = 64  # tokens of one prefill call
  c.rollout.slots = 256  # nodes whose cache is kept; beyond that suspended nodes give theirs up

  c.cache = ConfigDict()
  # When slots run out, what becomes of the caches of nodes that wait for their children, or for others of their level.
  # recompute: given up, and computed again when the node goes on. host: copied to this machine's memory and back.
  # keep: they stay, and a tree begins only when there is a slot for each of its caps.max_nodes.
  c.cache.suspend = "recompute"
  c.cache.bytes = 0  # of a device, for caches: fewer slots than rollout.slots, if these take more; 0 is no limit
  c.cache.host_bytes = HOST_BYTES  # of a process, for copies; what does not fit is computed again

  c.credit = ConfigDict()  # the paper's rule by default; see tree/credit.py
  c.credit.delegation_bonus = 0.0  # lambda
  c.credit.bonus = "rate"  # of the children that succeed; "count", their number, rewards launching for its own sake
  c.credit.baseline = "leave_one_out"
  c.credit.leaf_scale = False
  c.credit.depth_weighting = True
  c.credit.depth_weight_cap = 0.0  # 0 is no cap

  c.judge = ConfigDict()  # who says whether a node below the roots succeeded; evaluations ask about roots only
  # rule: the environment. sparse: nodes take their root's success. policy: itself, in the same batches. endpoint: a
  # model over HTTP. module:function: your own, see judge/base.py. The last three: 0 for a node without finish message.
  c.judge.kind = "rule"
  c.judge.roots = False  # it judges roots too, in evaluations as well
  c.judge.instruction = "Judge an agent by its record: did it meet its goal?"  # to a model; followed by how to answer
  c.judge.max_chars = 8000  # of the record that a model is shown; the policy's window binds as well
  c.judge.verdict_tokens = 64  # tokens that a verdict of the policy may sample
  c.judge.model = ""  # of the endpoint
  c.judge.request = ConfigDict()  # more fields of a request, e.g. max_tokens; temperature is 0 if not among them
  # Of `endpoint` and `module:function`; what follows may change on resuming.
  c.judge.in_flight = 8  # calls at a time, of each process
  c.judge.unreachable = "stop"  # without a verdict the run stops with a checkpoint; "invalid" drops the tree
  c.judge.endpoint = ConfigDict()
  c.judge.endpoint.base_url = ""  # e.g. http://localhost:8000/v1
  c.judge.endpoint.api_key_variable = "OPENAI_API_KEY"  # environment variable of the key; empty where none is needed
  c.judge.endpoint.timeout = 60.0  # seconds
  c.judge.endpoint.max_retries = 8  # of a request, with backoff: about 40 s without the time-outs
  c.judge.endpoint.asks = 3  # requests for a reply that holds a score

  c.loss = ConfigDict()  # see learn/losses.py
  c.loss.surrogate = "cispo"  # or reinforce, ppo
  c.loss.clip_low = 0.2
  c.loss.clip_high = 0.2
  c.loss.ratio_low = 0.0
  c.loss.ratio_high = 5.0
  c.loss.truncation = 0.0  # reinforce: bound of truncated importance sampling; 0 is none
  c.loss.kl_coefficient = 0.0
  c.loss.entropy_coefficient = 0.0
  c.loss.report_entropy = True  # False saves about a tenth of an update
  c.loss.normaliser = "trajectory"  # the sum over tokens by the number of trajectories; "token": by that of tokens

  c.learn = ConfigDict()
  c.learn.rate = 3e-4  # peak learning rate
  c.learn.warmup = 10  # updates of linear warm-up
  c.learn.final = 0.1  # of the peak, at the last update
  c.learn.clip = 1.0  # global norm
  c.learn.b1 = 0.9  # of Adam, as b2 and eps
  c.learn.b2 = 0.95  # of Adam
  c.learn.eps = 1e-8  # of Adam
  c.learn.weight_decay = 0.0  # of AdamW
  c.learn.minibatches = 1  # updates per batch of trees, each on a part of the nodes
  c.learn.row_lengths = (8192,)  # packed row lengths; the last holds the window
  c.learn.tokens_per_microbatch = 8192  # worked on at once, on all devices together; at least the longest row
  c.learn.max_skipped = 3  # non-finite updates in a row that stop the run

  c.warm_start = ConfigDict()  # behaviour cloning before step 1
  c.warm_start.tokens = 0  # to train on; 0 skips the warm start
  c.warm_start.tasks = ConfigDict()  # split -> demonstrations of it
  c.warm_start.traces = ""  # JSONL file, or pattern with *, of traces to clone as well; see docs/traces.md
  c.warm_start.demonstrator = "recursive"  # a name the environment knows
  c.warm_start.slips = ConfigDict()  # how it falls short
  # Node cap of demonstrations, 0 takes that of training. Only a cap that binds shows what to do with a refused launch.
  c.warm_start.max_nodes = 0
  c.warm_start.optimizer = "adamw"  # or muon, which takes the same rates; of the policy gradient it is adamw
  c.warm_start.rate = 1e-3  # peak learning rate
  c.warm_start.warmup = 20  # updates of linear warm-up
  c.warm_start.final = 0.1  # of the peak, at the last update
  c.warm_start.tokens_per_update = 8192  # rounded to whole microbatches
  c.warm_start.from_workdir = ""  # take tokenizer and parameters from step 0 of another run in place of cloning

  c.evaluation = ConfigDict()
  c.evaluation.every = 10  # steps; 0 never
  c.evaluation.temperature = 0.0  # 0 is greedy
  c.evaluation.max_depth = 0  # depth cap of evaluations, 0 takes that of training
  c.evaluation.max_nodes = 0  # node cap of evaluations, 0 takes that of training

  c.checkpoint = ConfigDict()
  c.checkpoint.every = 10  # steps; the last one is always saved
  c.checkpoint.keep = 3  # newest ones; the best is kept beside them

  c.log = ConfigDict()
  c.log.tensorboard = True  # scalars in the workdir
  c.log.wandb_project = ""  # for Weights & Biases, if it is installed; empty is none
  c.log.trees_every = 10  # steps between dumps of trees for the report; 0 never
  c.log.trees = 8  # trees of a dump
  c.log.report = True  # write report.html at the end
  c.compile_cache = ""  # folder of the persistent compilation cache; empty is none

  c.lock()  # a misspelt key in an experiment is an error; the groups below have keys of the environment's choosing
  for group in OPEN:
    functools.reduce(ConfigDict.__getitem__, group.split("."), c).unlock()
  return c


def policy_config(c: ConfigDict, vocab_size: int) -> PolicyConfig:
  """The policy that config.policy describes, for a tokenizer of `vocab_size` tokens.

  With a preset or a path, only FREE_OF_PRESET may differ from it: other numbers are an error, not overruled.
  """
  values = c.policy.to_dict()
  preset, path = values.pop("preset"), values.pop("path")
  rows = -(-vocab_size // 64) * 64
  if preset or path:
    if preset and preset not in PRESETS:
      raise ValueError(f"config.policy.preset={preset!r}: choose one of {tuple(PRESETS)}")
    numbers = dataclasses.asdict(config_of(path) if path else PRESETS[preset])
    if preset and path:
      expected = dataclasses.asdict(PRESETS[preset])
      for name, value in numbers.items():
        if value != expected[name] and name not in (*FREE_OF_PRESET, "vocab_size", "context"):
          raise ValueError(
            f"config.policy.path={path} says {name}={value}, config.policy.preset={preset} {expected[name]}: it is "
            "another model; leave out the preset, or change the path"
          )
    unset, source = base_config().policy, f"path={path}" if path else f"preset={preset}"
    for name, value in values.items():
      if name not in FREE_OF_PRESET and value not in (unset[name], numbers[name]):
        raise ValueError(
          f"config.policy.{name}={value}, but config.policy.{source} says {numbers[name]}: leave it unset, or leave "
          f"out the {source.partition('=')[0]} and set every number"
        )
    rows = numbers["vocab_size"]
    values = numbers | {name: values[name] for name in FREE_OF_PRESET}
  values["vocab_size"] = c.policy.vocab_size or rows
  values["lora_targets"] = tuple(values["lora_targets"])  # a list, if it comes from a workdir
  policy = PolicyConfig(**values)
  if policy.vocab_size < vocab_size:
    if path:
      raise ValueError(f"the tokenizer has {vocab_size} tokens, config.policy.path={path} {policy.vocab_size} only")
    raise ValueError(
      f"config.policy.vocab_size={policy.vocab_size} is less than the tokenizer's {vocab_size}: set it to "
      f"{-(-vocab_size // 64) * 64 if preset else 0}"
    )
  if policy.context and c.caps.window > policy.context:
    raise ValueError(
      f"config.caps.window={c.caps.window} is beyond the {policy.context} positions that the policy was made for: "
      f"set it to {policy.context} or less"
    )
  return policy


def credit_options(c: ConfigDict) -> CreditOptions:
  values = {**c.credit.to_dict(), "depth_weight_cap": c.credit.depth_weight_cap or None}
  return CreditOptions(max_depth=c.caps.max_depth, sparse=c.judge.kind == "sparse", **values)


def loss_options(c: ConfigDict) -> LossOptions:
  values = {**c.loss.to_dict(), "truncation": c.loss.truncation or None}
  del values["normaliser"]
  return LossOptions(**values)


def validate(c: ConfigDict) -> None:
  """Refuses what cannot work, or does nothing, before anything is built."""
  Caps(**c.caps.to_dict())
  credit_options(c)
  loss_options(c)
  validate_judge(c)
  validate_protocol(c)
  validate_numbers(c)
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
  if c.policy.param_dtype != "float32" and not c.policy.lora_rank:
    raise ValueError(
      f"config.policy.param_dtype={c.policy.param_dtype!r} loses updates smaller than 1/512 of a weight: set it to "
      "float32 (config.policy.dtype may be bfloat16), or train adapters by config.policy.lora_rank"
    )
  needed = c.caps.window + c.rollout.steps
  if max(c.rollout.cache_ladder) < needed:
    raise ValueError(
      f"config.rollout.cache_ladder={tuple(c.rollout.cache_ladder)}: its last must hold caps.window + rollout.steps = "
      f"{needed} positions"
    )
  if not 0 <= c.rollout.least_busy <= 1:
    raise ValueError(f"config.rollout.least_busy={c.rollout.least_busy} is a share of a batch's rows: set it to 0 to 1")
  if c.share_prefix not in SHARED:
    raise ValueError(f"config.share_prefix={c.share_prefix!r}: choose one of {SHARED}")
  if c.cache.suspend not in SUSPENDED:
    raise ValueError(f"config.cache.suspend={c.cache.suspend!r}: choose one of {SUSPENDED}")
  if c.cache.host_bytes != HOST_BYTES and c.cache.suspend != "host":
    raise ValueError(
      f"config.cache.host_bytes does nothing with config.cache.suspend={c.cache.suspend}: unset it, or choose host"
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
  if c.evaluation.every and not sum(c.tasks.dev.values()):
    raise ValueError(
      f"config.evaluation.every={c.evaluation.every}, but config.tasks.dev names no split to evaluate on: name one, "
      "e.g. config.tasks.dev.dev_medium = 50, or set it to 0"
    )
  w = c.warm_start
  if w.optimizer not in OPTIMIZERS:
    raise ValueError(f"config.warm_start.optimizer={w.optimizer!r}: choose one of {OPTIMIZERS}")
  if w.tokens and not (w.tasks or w.traces or w.from_workdir):
    raise ValueError(
      f"config.warm_start.tokens={w.tokens}, but config.warm_start.tasks names no demonstrations: name a split, e.g. "
      "config.warm_start.tasks.train_easy = 100, or a file of config.warm_start.traces, or set it to 0"
    )
  if w.traces and (w.from_workdir or not w.tokens):
    why = f"config.warm_start.from_workdir={w.from_workdir}" if w.from_workdir else "config.warm_start.tokens=0"
    raise ValueError(
      f"config.warm_start.traces={w.traces} does nothing with {why}: unset it, or set tokens to those to train on and "
      "leave from_workdir empty"
    )
  if c.agents and not c.tasks.test:
    raise ValueError(f"config.agents={tuple(c.agents)}, but config.tasks.test names no split to compare them on")
  if not sum(c.tasks.train.values()):
    raise ValueError("config.tasks.train names no split to train on, e.g. config.tasks.train.train_medium = 16")
  if c.checkpoint.keep < 2:
    raise ValueError(
      f"config.checkpoint.keep={c.checkpoint.keep} leaves nothing to go back to if the newest is damaged: set 2 or more"
    )


def validate_numbers(c: ConfigDict, prefix: str = "") -> None:
  """Refuses numbers that are not finite, below what they can be, or above it."""
  for name, value in c.items():
    key = prefix + name
    if isinstance(value, ConfigDict):
      if key not in ("mesh", *OPEN) or "tasks" in key:
        validate_numbers(value, f"{key}.")
      continue
    numbers = value if isinstance(value, tuple | list) else (value,)
    if key in POSITIVE and not numbers:
      raise ValueError(f"config.{key} is empty: name at least one")
    for x in numbers:
      if not isinstance(x, int | float) or isinstance(x, bool):
        if "tasks." in key:
          raise ValueError(f"config.{key}={value!r} must be a number of tasks")
        continue
      if key in POSITIVE and not x > 0:
        raise ValueError(f"config.{key}={value} must be above 0")
      if not 0 <= x <= AT_MOST.get(key, sys.float_info.max):
        most = f"at most {AT_MOST[key]}" if key in AT_MOST else "finite"
        raise ValueError(f"config.{key}={value} must be 0 or more, and {most}")


def validate_protocol(c: ConfigDict) -> None:
  if c.protocol not in PROTOCOLS:
    raise ValueError(f"config.protocol={c.protocol!r}: choose one of {PROTOCOLS}")
  if c.protocol == "compact" and (c.policy.path or c.chat.system):
    key = "policy.path" if c.policy.path else "chat.system"
    raise ValueError(f"config.{key} is for chat models: set config.protocol=chat, or leave it empty")
  if c.protocol == "chat" and not (c.policy.path or c.tokenizer.path or c.warm_start.from_workdir):
    raise ValueError(
      "config.protocol=chat needs the tokenizer of a chat model: set config.policy.path, or config.tokenizer.path"
    )


def validate_judge(c: ConfigDict) -> None:
  j = c.judge
  if j.kind not in JUDGES and ":" not in j.kind:
    raise ValueError(f"config.judge.kind={j.kind!r}: choose one of {JUDGES}, or module:function for one of your own")
  if j.unreachable not in ("stop", "invalid"):
    raise ValueError(f"config.judge.unreachable={j.unreachable!r}: choose 'stop' or 'invalid'")
  if j.roots and j.kind in ("rule", "sparse"):
    raise ValueError(f"config.judge.roots does nothing with config.judge.kind={j.kind}: unset it or choose a judge")
  if j.kind == "endpoint" and not (j.endpoint.base_url and j.model):
    raise ValueError(
      "config.judge.kind=endpoint needs config.judge.endpoint.base_url, e.g. http://localhost:8000/v1, and "
      "config.judge.model"
    )
  for name, value, least in (
    ("max_chars", j.max_chars, 256), ("verdict_tokens", j.verdict_tokens, 1), ("in_flight", j.in_flight, 1),
    ("endpoint.asks", j.endpoint.asks, 1), ("endpoint.max_retries", j.endpoint.max_retries, 0),
  ):  # fmt: skip
    if value < least:
      raise ValueError(f"config.judge.{name}={value} must be at least {least}")
  if j.endpoint.timeout <= 0:
    raise ValueError(f"config.judge.endpoint.timeout={j.endpoint.timeout} must be above 0 seconds")
