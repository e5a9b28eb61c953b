"""The state that the policy-gradient stage starts from: random, pretrained, or cloned. Impure."""

import pathlib
import shutil
import time

import numpy as np

from rao_jax import command, interrupt
from rao_jax.build import Run, demonstration_tasks, demonstrator
from rao_jax.checkpoint import Checkpointer
from rao_jax.learn.state import TrainState, with_optimizer
from rao_jax.learn.step import FiniteGuard, Learner
from rao_jax.learn.warmstart import clone
from rao_jax.metrics import MetricWriter
from rao_jax.processes import end_at_once, first
from rao_jax.rollout.engine import record
from rao_jax.rollout.scripted import demonstrate
from rao_jax.rollout.summary import tree_metrics
from rao_jax.screen import Screen
from rao_jax.traces import read_traces, records
from rao_jax.tree.buffer import TreeRecord, build
from rao_jax.workdir import CLONING


def warm_start(
  run: Run, learner: Learner, workdir: pathlib.Path, writer: MetricWriter, screen: Screen
) -> tuple[TrainState, int]:
  """The state that the policy-gradient stage starts from, kept in `warm_start/`, and the tokens it has read.

  A run that ended after its warm start finds it there; one that ended within goes on from `cloning/`.
  """
  with Checkpointer(workdir / "warm_start") as own, end_at_once():
    restored = own.restore(learner.abstract)
    if restored is not None:
      _, state, meta = restored
      read, row = meta["warm_start_tokens"], meta.get("row")  # older versions kept none
      screen.line(f"going on from the warm start, {read} tokens")
    else:
      state, read, row = first_state(run, learner, workdir, screen)
      own.save(0, state, {"warm_start_tokens": read, "row": row})
  if row:
    writer.write(0, row)
  if first():
    shutil.rmtree(workdir / CLONING, ignore_errors=True)
  return state, read


def first_state(
  run: Run, learner: Learner, workdir: pathlib.Path, screen: Screen
) -> tuple[TrainState, int, dict[str, float]]:
  """The state, the tokens it has read, and a row of metrics if it is cloned here."""
  w = run.config.warm_start
  if w.from_workdir:
    with Checkpointer(pathlib.Path(w.from_workdir) / "warm_start") as other:
      restored = other.restore(learner.abstract)
    if restored is None:
      raise FileNotFoundError(f"config.warm_start.from_workdir={w.from_workdir} has no warm start: train it first")
    _, state, meta = restored
    return state, meta["warm_start_tokens"], {}
  if w.tokens == 0:
    return run.init_state(learner.optimizer), 0, {}
  with Checkpointer(workdir / CLONING, max_to_keep=2) as unfinished, end_at_once():
    state, read, row = clone_demonstrations(run, unfinished, screen)
  return with_optimizer(state, learner.optimizer, learner.layout), read, row


def clone_demonstrations(
  run: Run, unfinished: Checkpointer, screen: Screen
) -> tuple[TrainState, int, dict[str, float]]:
  """Demonstrates, reads traces, then clones; every process has all of both, which are the same.

  The state is saved at each tenth of the tokens, and when the run is asked to end.
  """
  c, w = run.config, run.config.warm_start
  demonstrated, shown = make_demonstrations(run, screen) if w.tasks else ([], {})
  recorded, counted = use_traces(run, screen) if w.traces else ([], {})
  buffer, shown = build([*demonstrated, *recorded]), shown | counted
  learner = run.cloning_learner()
  restored = unfinished.restore(learner.abstract)
  if restored is None:
    read, state = 0, run.init_state(learner.optimizer)
    meta = {"losses": [], "skipped_in_a_row": 0, "seconds": 0.0}
  else:
    read, state, meta = restored
    screen.line(f"going on with the warm start, {read} of {w.tokens} tokens read")
  bar = screen.bar(w.tokens, "warm start", initial=read, unit="tok")
  guard, losses, since = FiniteGuard(c.learn.max_skipped), meta["losses"], time.monotonic() - meta["seconds"]
  guard.in_a_row = meta["skipped_in_a_row"]
  updates = clone(state, learner, buffer, w.tokens, w.tokens_per_update, c.seed, done=read)
  for state, now, metrics in updates:
    guard.count(metrics)
    guard.check(f"warm start, {now} tokens", "config.warm_start.rate")
    losses = [*losses[-99:], float(metrics["loss"])]
    loss = float(np.mean(losses))
    bar.update(now - read)
    bar.set_postfix_str(f"loss {loss:.3f}")
    tenth = now * 10 // w.tokens > read * 10 // w.tokens
    if screen.quiet and tenth:
      screen.line(f"warm start {now}/{w.tokens} tokens  loss {loss:.3f}")
    read, seconds = now, time.monotonic() - since
    meta = {"losses": losses, "skipped_in_a_row": guard.in_a_row, "seconds": seconds}
    try:
      interrupt.check()
    except interrupt.Interrupted as e:
      unfinished.save(read, state, meta)
      e.add_note(f"the warm start is saved as far as it came, {read} tokens: the same command goes on from there")
      raise
    if tenth and read < w.tokens:
      unfinished.save(read, state, meta)
  bar.close()
  screen.line(f"warm start: {read} tokens in {seconds:.0f} s, loss of the last {len(losses)} updates {loss:.3f}")
  return state, read, shown | {"warmstart/loss": loss, "warmstart/tokens": read, "time/warm_start": seconds}


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
