"""The state that the policy-gradient stage starts from: random, pretrained, or cloned from demonstrations. Impure."""

import pathlib
import time

import numpy as np

from rao_jax import interrupt
from rao_jax.build import Run, demonstration_tasks, demonstrator
from rao_jax.checkpoint import Checkpointer
from rao_jax.learn.state import TrainState, with_optimizer
from rao_jax.learn.step import FiniteGuard, Learner
from rao_jax.learn.warmstart import clone
from rao_jax.metrics import MetricWriter
from rao_jax.rollout.engine import record
from rao_jax.rollout.scripted import demonstrate
from rao_jax.rollout.summary import tree_metrics
from rao_jax.screen import Screen
from rao_jax.tree.buffer import build


def warm_start(
  run: Run, learner: Learner, workdir: pathlib.Path, writer: MetricWriter, screen: Screen
) -> tuple[TrainState, int]:
  """The state that the policy-gradient stage starts from, kept in `warm_start/`, and the tokens it has read."""
  c = run.config
  w = c.warm_start
  if w.from_workdir:
    with Checkpointer(pathlib.Path(w.from_workdir) / "warm_start") as other:
      restored = other.restore(learner.abstract)
    if restored is None:
      raise FileNotFoundError(f"config.warm_start.from_workdir={w.from_workdir} has no warm start: train it first")
    _, state, meta = restored
    read = meta["warm_start_tokens"]
  elif w.tokens == 0:
    state, read = run.init_state(learner.optimizer), 0
  else:
    state, read = clone_demonstrations(run, writer, screen)
    state = with_optimizer(state, learner.optimizer, learner.layout)
  with Checkpointer(workdir / "warm_start") as own:
    own.save(0, state, {"warm_start_tokens": read})
  return state, read


def clone_demonstrations(run: Run, writer: MetricWriter, screen: Screen) -> tuple[TrainState, int]:
  """Demonstrates, then clones; every process makes all demonstrations, which are the same."""
  c, w = run.config, run.config.warm_start
  tasks = demonstration_tasks(c, run.environment)
  trees = []
  bar = screen.bar(len(tasks), "demonstrations")
  for tree in demonstrate(
    tasks, run.environment, demonstrator(c, run.environment), run.caps, run.protocol, run.interpreter, c.seed + 1
  ):
    interrupt.check()
    trees.append(tree)
    bar.update(1)
  bar.close()
  buffer = build([record(tree) for tree in trees])
  shown = tree_metrics(trees, "demonstrations")
  tokens = int(buffer.length.sum())
  screen.line(
    f"{len(trees)} demonstrations, {int(buffer.exists.sum())} nodes, {tokens} tokens, "
    f"{shown['demonstrations/tokens_per_node']:.0f} a node, success {shown['demonstrations/success']:.2f}"
  )
  learner = run.cloning_learner()
  state = run.init_state(learner.optimizer)
  bar = screen.bar(w.tokens, "warm start", unit="tok")
  read, since, guard, losses = 0, time.monotonic(), FiniteGuard(c.learn.max_skipped), []
  updates = clone(state, learner, buffer, w.tokens, w.tokens_per_update, c.seed)
  for state, now, metrics in updates:  # noqa: B007 (the last one is returned)
    interrupt.check()
    guard.count(metrics)
    guard.check(f"warm start, {now} tokens", "config.warm_start.rate")
    losses = [*losses[-99:], metrics["loss"]]
    loss = float(np.mean(losses))
    bar.update(now - read)
    bar.set_postfix_str(f"loss {loss:.3f}")
    if screen.quiet and now * 10 // w.tokens > read * 10 // w.tokens:
      screen.line(f"warm start {now}/{w.tokens} tokens  loss {loss:.3f}")
    read = now
  bar.close()
  seconds = time.monotonic() - since
  writer.write(0, shown | {"warmstart/loss": loss, "warmstart/tokens": read, "time/warm_start": seconds})
  screen.line(f"warm start: {read} tokens in {seconds:.0f} s, loss of the last {len(losses)} updates {loss:.3f}")
  return state, read
