"""From a config to the parts of a run: what training and evaluation share."""

import dataclasses
import importlib
import logging
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rao_jax.config import credit_options, loss_options, policy_config
from rao_jax.envs.base import Environment, Task
from rao_jax.learn.losses import LossOptions
from rao_jax.learn.state import TrainState, abstract_state, make_optimizer, make_schedule
from rao_jax.learn.step import Learner
from rao_jax.mesh import ROLLOUT_RULES, TRAIN_RULES, Rules, make_mesh
from rao_jax.policy.transformer import PolicyConfig
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.frontier import Frontier
from rao_jax.rollout.interpreter import Limits, MontyInterpreter
from rao_jax.rollout.keys import fold_keys
from rao_jax.rollout.protocol import CONTROLS, CUT_MARK, CompactProtocol
from rao_jax.rollout.scripted import demonstrate, texts
from rao_jax.tokenizer import SentencePieceTokenizer, train_sentencepiece
from rao_jax.tree.credit import CreditOptions

TOKENIZER_FILE = "tokenizer.model"
TOKENIZER_TREES = 64  # demonstrations that a tokenizer is trained on

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Run:
  """The parts of a run that stay fixed while the policy learns."""

  config: ConfigDict
  environment: Environment
  caps: Caps
  protocol: CompactProtocol
  interpreter: MontyInterpreter
  policy: PolicyConfig
  mesh: Mesh
  token_mask: np.ndarray  # bool[V]
  root_key: jax.Array

  @property
  def train_rules(self) -> Rules:
    return Rules.of(self.mesh, TRAIN_RULES)

  @property
  def rollout_rules(self) -> Rules:
    return Rules.of(self.mesh, ROLLOUT_RULES)

  def frontier(self) -> Frontier:
    """The rollout's programs, compiled."""
    r = self.config.rollout
    return Frontier(
      self.policy, self.rollout_rules, self.token_mask, self.protocol.end, r.row_ladder, r.cache_ladder, r.steps,
      r.chunk, r.slots,
    )  # fmt: skip

  def learner(self, rate: float, warmup: int, final: float, updates: int, options: LossOptions) -> Learner:
    """A training step, compiled, with a learning rate that runs over `updates`."""
    c = self.config.learn
    schedule = make_schedule(rate, warmup, updates, final)
    optimizer = make_optimizer(schedule, c.clip, c.b1, c.b2, c.eps, c.weight_decay)
    return Learner(
      self.policy, self.train_rules, optimizer, schedule, options, self.token_mask, self.config.rollout.temperature,
      tuple(c.row_lengths), c.tokens_per_microbatch,
    )  # fmt: skip

  def policy_gradient_learner(self) -> Learner:
    c = self.config.learn
    return self.learner(c.rate, c.warmup, c.final, self.config.steps * c.minibatches, loss_options(self.config))

  def cloning_learner(self) -> Learner:
    w = self.config.warm_start
    updates = -(-w.tokens // w.tokens_per_update)
    return self.learner(
      w.rate, min(w.warmup, updates - 1), w.final, updates, LossOptions(surrogate="reinforce", report_entropy=False)
    )

  def abstract_state(self) -> TrainState:
    """Shapes and shardings of the policy-gradient stage's state: what its checkpoints are restored onto."""
    c = self.config.learn
    optimizer = make_optimizer(lambda _: c.rate, c.clip, c.b1, c.b2, c.eps, c.weight_decay)
    return abstract_state(self.policy, optimizer, self.train_rules)

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
  def credit_options(self) -> CreditOptions:
    return credit_options(self.config)

  def close(self) -> None:
    self.interpreter.close()


def load_attribute(path: str):
  """`module:name` as in config.environment.factory."""
  module, _, name = path.partition(":")
  if not name:
    raise ValueError(f"{path!r} must read module:name")
  return getattr(importlib.import_module(module), name)


def make_environment(config: ConfigDict) -> Environment:
  return load_attribute(config.environment.factory)(**config.environment.options.to_dict())


def make_run(config: ConfigDict, workdir: pathlib.Path) -> Run:
  """Builds the parts; trains and saves a tokenizer if the workdir has none and the config names none."""
  mesh = make_mesh(**config.mesh.to_dict())
  environment = make_environment(config)
  caps = Caps(**config.caps.to_dict())
  interpreter = MontyInterpreter(Limits(**config.sandbox.to_dict()))
  tokenizer = _tokenizer(config, workdir, environment, caps, interpreter)
  protocol = CompactProtocol(tokenizer)
  policy = policy_config(config, tokenizer.vocab_size)
  return Run(
    config=config,
    environment=environment,
    caps=caps,
    protocol=protocol,
    interpreter=interpreter,
    policy=policy,
    mesh=mesh,
    token_mask=protocol.token_mask(policy.vocab_size),
    root_key=jax.random.key(config.seed),
  )


def _tokenizer(config, workdir, environment, caps, interpreter) -> SentencePieceTokenizer:
  own = workdir / TOKENIZER_FILE
  if own.exists():
    return SentencePieceTokenizer.load(own)
  if config.tokenizer.path:
    tokenizer = SentencePieceTokenizer.load(config.tokenizer.path)
  elif config.warm_start.from_workdir:
    tokenizer = SentencePieceTokenizer.load(pathlib.Path(config.warm_start.from_workdir) / TOKENIZER_FILE)
  else:
    tokenizer = train_tokenizer(config, environment, caps, interpreter)
  tokenizer.save(own)
  return tokenizer


def train_tokenizer(config, environment, caps, interpreter) -> SentencePieceTokenizer:
  """A tokenizer for the demonstrations: a first one, of bytes and the environment's pieces, renders the sample."""
  if not config.warm_start.tasks:
    raise ValueError(
      "config.tokenizer.path is empty and config.warm_start.tasks names no demonstrations to train a tokenizer on: "
      "set one of them"
    )
  wide = dataclasses.replace(caps, window=1 << 20, turn_tokens=1 << 14, output_tokens=1 << 14)
  pieces = (*environment.pieces, CUT_MARK)
  first = CompactProtocol(train_sentencepiece([], CONTROLS, pieces, 0))
  tasks = demonstration_tasks(config, environment, TOKENIZER_TREES)
  trees = demonstrate(tasks, environment, demonstrator(config, environment), wide, first, interpreter, config.seed)
  return train_sentencepiece(texts(list(trees)), CONTROLS, pieces, config.tokenizer.learned)


def demonstrator(config: ConfigDict, environment: Environment):
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
