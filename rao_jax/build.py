"""From a config to the parts of a run: what training and evaluation share."""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rao_jax import envs
from rao_jax.config import credit_options, loss_options, policy_config
from rao_jax.envs.base import Environment, Task
from rao_jax.hf_tokenizer import JSON_FILE, MODEL_FILE, HFTokenizer, load_tokenizer
from rao_jax.judge.base import Ask, Verdicts
from rao_jax.judge.calls import Calls
from rao_jax.judge.endpoint import Endpoint
from rao_jax.judge.policy import PolicyJudge, VerdictWorld
from rao_jax.learn.losses import LossOptions
from rao_jax.learn.state import (
  TrainState,
  abstract_state,
  init_state,
  make_optimizer,
  make_schedule,
  state_shardings,
  with_optimizer,
)  # fmt: skip
from rao_jax.learn.step import Learner
from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES, Rules, make_mesh
from rao_jax.plugin import load_function
from rao_jax.policy.cache import slots_within
from rao_jax.policy.lora import frozen, join, trained, without_adapters
from rao_jax.policy.params import cast_params, param_shardings
from rao_jax.policy.pretrained import load_weights
from rao_jax.policy.transformer import Params, PolicyConfig, init_params
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.chat import ChatProtocol
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.frontier import Frontier
from rao_jax.rollout.guard import GuardedInterpreter
from rao_jax.rollout.instructions import system_text
from rao_jax.rollout.interpreter import Interpreter, Limits
from rao_jax.rollout.keys import fold_keys
from rao_jax.rollout.protocol import CONTROLS, CUT_MARK, CompactProtocol, TurnProtocol, token_mask
from rao_jax.rollout.scripted import demonstrate, texts
from rao_jax.tokenizer import SentencePieceTokenizer, Tokenizer, train_sentencepiece
from rao_jax.traces import read_traces
from rao_jax.traces import texts as trace_texts
from rao_jax.tree.credit import CreditOptions

TOKENIZER_TREES = 64  # demonstrations that a tokenizer is trained on
LEAST_SHARED = 32  # tokens that all prompts start with, for which sharing them pays

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Run:
  """The parts of a run that stay fixed while the policy learns."""

  config: ConfigDict
  environment: Environment
  caps: Caps
  protocol: TurnProtocol
  interpreter: Interpreter
  policy: PolicyConfig
  mesh: Mesh
  token_mask: np.ndarray  # bool[V]
  root_key: jax.Array
  judge: Ask | None  # None where the environment's grades stand

  @property
  def train_rules(self) -> Rules:
    return Rules.of(self.mesh, TRAIN_RULES)

  @property
  def rollout_rules(self) -> Rules:
    return Rules.of(self.mesh, ROLLOUT_RULES)

  def frontier(self) -> Frontier:
    """The rollout's programs, compiled."""
    r, c = self.config.rollout, self.config.cache
    slots = slots_within(self.policy, r.slots, max(r.cache_ladder), c.bytes, self.rollout_rules)
    if slots < min(max(r.row_ladder), r.slots):
      raise ValueError(
        f"config.cache.bytes={c.bytes} a device hold {slots} cache slots, less than the largest batch, "
        f"{max(r.row_ladder)}: raise it, or lower config.rollout.row_ladder or the last of config.rollout.cache_ladder"
      )
    parts, nodes = self.rollout_rules.ways("rows"), max(self.caps.max_nodes, self.evaluation_caps.max_nodes)
    if c.suspend == "keep" and slots // parts < nodes:
      raise ValueError(
        f"config.cache.suspend=keep needs a slot for each of the {nodes} nodes that a tree may have, but its part of "
        f"the devices has {slots // parts}: set config.rollout.slots to {nodes * parts} or more, lower "
        "config.caps.max_nodes, or choose recompute or host"
      )
    return Frontier(
      self.policy, self.rollout_rules, self.token_mask, self.protocol.end, r.row_ladder, r.cache_ladder, r.steps,
      r.chunk, slots, c.suspend, c.host_bytes, self.shared_prefix("rollout"), r.least_busy,
    )  # fmt: skip

  def shared_prefix(self, where: str) -> list[int]:
    """Tokens that all nodes start with and that are worked once for all, in `rollout` or `training`; [] for none."""
    share, prefix = self.config.share_prefix, self.protocol.prefix
    if share == "auto":
      kernel = self.policy.attention == "auto" and self.mesh.devices.flat[0].platform != "cpu"
      share = "rollout" if kernel else "all"
    return prefix if share in ("all", where) and len(prefix) >= LEAST_SHARED else []

  def learner(
    self, rate: float, warmup: int, final: float, updates: int, options: LossOptions, optimizer: str = "adamw"
  ) -> Learner:
    """A training step, compiled, with a learning rate that runs over `updates`."""
    c = self.config.learn
    schedule = make_schedule(rate, warmup, updates, final)
    transform = make_optimizer(schedule, c.clip, c.b1, c.b2, c.eps, c.weight_decay, optimizer)
    return Learner(
      self.policy, self.train_rules, transform, schedule, options, self.token_mask, self.config.rollout.temperature,
      tuple(c.row_lengths), c.tokens_per_microbatch, self.frozen, self.shared_prefix("training"),
    )  # fmt: skip

  def policy_gradient_learner(self) -> Learner:
    c = self.config.learn
    return self.learner(c.rate, c.warmup, c.final, self.config.steps * c.minibatches, loss_options(self.config))

  def cloning_learner(self) -> Learner:
    w = self.config.warm_start
    updates = -(-w.tokens // w.tokens_per_update)
    options = LossOptions(surrogate="reinforce", report_entropy=False)
    return self.learner(w.rate, min(w.warmup, updates - 1), w.final, updates, options, w.optimizer)

  def abstract_state(self) -> TrainState:
    """Shapes and shardings of the policy-gradient stage's state: what its checkpoints are restored onto."""
    c = self.config.learn
    optimizer = make_optimizer(lambda _: c.rate, c.clip, c.b1, c.b2, c.eps, c.weight_decay)
    return abstract_state(self.policy, optimizer, self.train_rules)

  @property
  def _init_key(self) -> jax.Array:
    return jax.random.fold_in(self.root_key, 1 << 21)

  @functools.cached_property
  def frozen(self) -> Params:
    """The parameters below the adapters, random or those at config.policy.path; {} if all parameters are trained."""
    if not self.policy.lora_rank:
      return {}
    if path := self.config.policy.path:
      return load_weights(path, without_adapters(self.policy), self.train_rules)
    layout = frozen(param_shardings(self.policy, self.train_rules), self.policy)
    return jax.jit(lambda key: frozen(init_params(self.policy, key), self.policy), out_shardings=layout)(self._init_key)

  def init_state(self, optimizer: optax.GradientTransformation) -> TrainState:
    """A fresh state, of random parameters or of those at config.policy.path."""
    path = self.config.policy.path
    if not path or self.policy.lora_rank:
      return init_state(self.policy, optimizer, self.train_rules, self._init_key)
    params = load_weights(path, self.policy, self.train_rules)
    layout = state_shardings(self.policy, optimizer, self.train_rules)
    return with_optimizer(TrainState(params, (), (), ()), optimizer, layout)

  def rollout_params(self, params: Params) -> Params:
    """What a rollout reads, from a state's parameters: in its layout and compute dtype, the frozen part moved once."""
    return join(self._frozen_in_rollout, self._to_rollout(params))

  @functools.cached_property
  def _frozen_in_rollout(self) -> Params:
    layout = frozen(param_shardings(self.policy, self.rollout_rules), self.policy)
    return jax.device_put(cast_params(self.frozen, self.policy), layout)

  @functools.cached_property
  def _to_rollout(self):
    layout = trained(param_shardings(self.policy, self.rollout_rules), self.policy)
    return jax.jit(functools.partial(cast_params, config=self.policy), out_shardings=layout)

  def trees(self, tasks: Sequence[Task], rollouts: int, stream: int, caps: Caps | None = None) -> list[Tree]:
    """Fresh trees, `rollouts` of each task as one group. Root keys follow from the seed and `stream` alone."""
    key = fold_keys(np.asarray(jax.random.key_data(self.root_key)), [stream])[0]
    keys = fold_keys(key, range(len(tasks) * rollouts))
    return [
      Tree(self.environment, task, caps or self.caps, self.protocol, self.interpreter, keys[g * rollouts + i], group=g)
      for g, task in enumerate(tasks)
      for i in range(rollouts)
    ]

  @property
  def evaluation_caps(self) -> Caps:
    """The caps of evaluations: those of training, but where config.evaluation sets others."""
    e = self.config.evaluation
    return dataclasses.replace(
      self.caps, max_depth=e.max_depth or self.caps.max_depth, max_nodes=e.max_nodes or self.caps.max_nodes
    )

  @property
  def demonstration_caps(self) -> Caps:
    """The caps of demonstrations: those of training, but where config.warm_start sets another."""
    return dataclasses.replace(self.caps, max_nodes=self.config.warm_start.max_nodes or self.caps.max_nodes)

  @property
  def credit_options(self) -> CreditOptions:
    return credit_options(self.config)

  def verdicts(self, children: bool = True) -> Verdicts | None:
    """For one batch of trees; without `children`, as in evaluations, only roots are judged, if they are at all."""
    j = self.config.judge
    if self.judge is None or not (children or j.roots):
      return None
    # A verdict of the policy fails as any tree does.
    return Verdicts(self.judge, j.roots, children, "invalid" if j.kind == "policy" else j.unreachable)

  def close(self) -> None:
    if isinstance(self.judge, Calls):
      self.judge.close()
    self.interpreter.close()


def make_environment(config: ConfigDict) -> Environment:
  return envs.make(config.environment.name, config.environment.options.to_dict())


def make_run(config: ConfigDict, workdir: pathlib.Path) -> Run:
  """Builds the parts; makes and saves a tokenizer if the workdir has none and the config names none."""
  judge = called_judge(config)
  mesh = make_mesh(**config.mesh.to_dict())
  environment = make_environment(config)
  caps = Caps(**config.caps.to_dict())
  interpreter = GuardedInterpreter(Limits(**config.sandbox.to_dict()))
  tokenizer = _tokenizer(config, workdir, environment, caps, interpreter)
  protocol = make_protocol(config, tokenizer, environment, caps, config.chat.system)
  policy = policy_config(config, tokenizer.vocab_size)
  if mesh.shape["expert"] > 1 and not policy.experts:
    raise ValueError(f"config.mesh.expert={mesh.shape['expert']} splits experts, and the policy has none: set it to 1")
  j = config.judge
  if j.kind == "policy":
    told = make_protocol(config, tokenizer, VerdictWorld(), dataclasses.replace(caps, max_depth=0))
    judge = PolicyJudge(caps, told, interpreter, j.instruction, j.max_chars, j.verdict_tokens)
  return Run(
    config=config,
    environment=environment,
    caps=caps,
    protocol=protocol,
    interpreter=interpreter,
    policy=policy,
    mesh=mesh,
    token_mask=token_mask(protocol, policy.vocab_size),
    root_key=jax.random.key(config.seed),
    judge=judge,
  )


def called_judge(config: ConfigDict) -> Calls | None:
  """The judge that config.judge.kind names, if it is one to call."""
  j = config.judge
  if j.kind == "endpoint":
    e = j.endpoint
    judge = Endpoint(
      j.model, j.instruction, j.max_chars, j.request.to_dict(), e.base_url, e.api_key_variable, e.timeout,
      e.max_retries, e.asks,
    )  # fmt: skip
  elif ":" in j.kind:
    judge = load_function(j.kind, f"config.judge.kind={j.kind!r}")
  else:
    return None
  return Calls(judge, j.in_flight)


def make_protocol(
  config: ConfigDict, tokenizer: Tokenizer, environment: Environment, caps: Caps, system: str = ""
) -> TurnProtocol:
  """The turn format of agents in `environment`; `system` replaces what it tells a chat model."""
  if config.protocol == "compact":
    return CompactProtocol(tokenizer)
  protocol = ChatProtocol(tokenizer, system or system_text(environment, caps))
  if caps.output_tokens < protocol.frame + 2:
    raise ValueError(
      f"config.caps.output_tokens={caps.output_tokens} must be at least {protocol.frame + 2}: {protocol.frame} tokens "
      "are around every output, and it needs some text"
    )
  return protocol


def _tokenizer(config, workdir, environment, caps, interpreter) -> Tokenizer:
  """The workdir's own; else the one that the config names or implies, of which the workdir keeps a copy."""
  for name in (JSON_FILE, MODEL_FILE):
    if (workdir / name).exists():
      return load_tokenizer(workdir / name)
  # Parameters from another run are those of its tokenizer.
  path = config.tokenizer.path or config.warm_start.from_workdir or config.policy.path
  tokenizer = load_tokenizer(path) if path else make_tokenizer(config, environment, caps, interpreter)
  tokenizer.save(workdir / (JSON_FILE if isinstance(tokenizer, HFTokenizer) else MODEL_FILE))
  return tokenizer


def make_tokenizer(config, environment, caps, interpreter) -> SentencePieceTokenizer:
  """A tokenizer of bytes and the environment's pieces; where there are demonstrations, it learns more from a sample."""
  pieces = (*getattr(environment, "pieces", ()), CUT_MARK)
  first = train_sentencepiece([], CONTROLS, pieces, 0)
  read = []
  if config.warm_start.tasks:
    wide = dataclasses.replace(caps, window=1 << 20, turn_tokens=1 << 14, output_tokens=1 << 14)
    tasks = demonstration_tasks(config, environment, TOKENIZER_TREES)
    script = demonstrator(config, environment)
    read += texts(list(demonstrate(tasks, environment, script, wide, CompactProtocol(first), interpreter, config.seed)))
  if config.warm_start.traces:
    traces = read_traces(config.warm_start.traces)
    read += trace_texts(traces[:: -(-len(traces) // TOKENIZER_TREES)])
  if not read:
    return first
  return train_sentencepiece(read, CONTROLS, pieces, config.tokenizer.learned, config.tokenizer.prose)


def demonstrator(config: ConfigDict, environment: Environment):
  if not hasattr(environment, "demonstrator"):
    raise ValueError(
      f"config.environment.name={config.environment.name!r} has no demonstrator to clone: set "
      "config.warm_start.tokens=0 and leave config.warm_start.tasks empty"
    )
  return environment.demonstrator(config.warm_start.demonstrator, **config.warm_start.slips.to_dict())


def demonstration_tasks(config: ConfigDict, environment: Environment, most: int | None = None) -> list[Task]:
  """The tasks to demonstrate, splits mixed evenly, so that the first few are a fair sample."""
  wanted = config.warm_start.tasks.to_dict()
  places = sorted(((i + 0.5) / n, split, i) for split, n in wanted.items() for i in range(n))
  sources = {split: environment.tasks(split) for split in wanted}
  for split, n in wanted.items():
    if n > len(sources[split]):
      raise ValueError(f"config.warm_start.tasks.{split}={n}, but the split has {len(sources[split])} tasks")
  return [sources[split][i] for _, split, i in places[:most]]


def task_indices(seed: int, step: int, count: int, size: int) -> np.ndarray:
  """Which `count` of `size` tasks a step reads: a fresh permutation every epoch, a pure function of (seed, step)."""
  first = step * count
  at = np.arange(first, first + count)
  epochs = {int(e): np.random.default_rng((seed, int(e))).permutation(size) for e in np.unique(at // size)}
  return np.array([epochs[int(i // size)][i % size] for i in at])
