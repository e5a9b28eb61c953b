"""The state that the policy-gradient stage starts from: random, pretrained, or cloned. Impure."""

import pathlib
import time

import numpy as np

from rao_jax import command, interrupt
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
from rao_jax.traces import read_traces, records
from rao_jax.tree.buffer import TreeRecord, build


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
  """Demonstrates, reads traces, then clones; every process has all of both, which are the same."""
  c, w = run.config, run.config.warm_start
  demonstrated, shown = make_demonstrations(run, screen) if w.tasks else ([], {})
  recorded, counted = use_traces(run, screen) if w.traces else ([], {})
  buffer, shown = build([*demonstrated, *recorded]), shown | counted
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


def make_demonstrations(run: Run, screen: Screen) -> tuple[list[TreeRecord], dict[str, float]]:
  """The trees of config.warm_start.tasks, worked by the script, and their metrics."""
  c = run.config
  tasks, script = demonstration_tasks(c, run.environment), demonstrator(c, run.environment)
  trees, caps = [], run.demonstration_caps
  bar = screen.bar(len(tasks), "demonstrations")
  for tree in demonstrate(tasks, run.environment, script, caps, run.protocol, run.interpreter, c.seed + 1):
    interrupt.check()
    trees.append(tree)
    bar.update(1)
  bar.close()
  shown = tree_metrics(trees, "demonstrations")
  nodes = [node for tree in trees for node in tree.nodes]
  screen.line(
    f"{len(trees)} demonstrations, {len(nodes)} nodes, {sum(len(node.tokens) for node in nodes)} tokens, "
    f"{shown['demonstrations/tokens_per_node']:.0f} a node, success {shown['demonstrations/success']:.2f}"
  )
  return [record(tree) for tree in trees], shown


def use_traces(run: Run, screen: Screen) -> tuple[list[TreeRecord], dict[str, float]]:
  """The trees of config.warm_start.traces in the run's turn format, and how many of their agents exceed its caps."""
  path, caps = run.config.warm_start.traces, run.caps
  with command.settings():
    trees, left_out = records(read_traces(path), run.protocol, caps)
    nodes = [node for tree in trees for node in tree.nodes if any(node.is_action)]
    over = ", ".join(f"{n} over config.caps.{cap}={getattr(caps, cap)}" for cap, n in left_out.items())
    if not nodes:
      raise ValueError(f"config.warm_start.traces={path}: none of its agents can be cloned ({over or 'no cells'})")
  tokens = sum(len(node.tokens) for node in nodes)
  screen.line(
    f"{len(trees)} traces, {len(nodes)} nodes, {tokens} tokens, {tokens / len(nodes):.0f} a node"
    + f"; left out: {over}" * bool(over)
  )
  return trees, {"traces/nodes": len(nodes), "traces/nodes_left_out": left_out.total()}
