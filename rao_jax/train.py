"""Trains a recursive agent: warm start, then collect -> credit -> update. Impure: owns the workdir and the clock.

python -m rao_jax.train --config=experiments/demo.py:recursive --workdir=runs/a [--config.learn.rate=1e-4 ...]
"""

import contextlib
import json
import logging
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from rao_jax import command, interrupt, processes
from rao_jax.alarms import Watch
from rao_jax.build import Run, make_run, task_indices
from rao_jax.checkpoint import Checkpointer
from rao_jax.compare import Comparison, train_and_compare
from rao_jax.config import validate
from rao_jax.evaluation import evaluate
from rao_jax.heap import keep_memory
from rao_jax.interrupt import Interrupted
from rao_jax.judge.base import JudgeUnreachable
from rao_jax.learn.losses import normalisers
from rao_jax.learn.packing import fill
from rao_jax.learn.state import TrainState
from rao_jax.learn.step import FiniteGuard, Learner
from rao_jax.metrics import MetricWriter, WriteFailed
from rao_jax.policy.transformer import Params
from rao_jax.processes import PeerFailed, end_at_once, first, first_then_others, from_first, known_to_all, together
from rao_jax.report import write_report
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import Tree, record
from rao_jax.rollout.frontier import Frontier
from rao_jax.rollout.summary import tree_line, tree_metrics
from rao_jax.screen import Clock, Screen, final_table
from rao_jax.step_metrics import credit_metrics, funnel, rollout_metrics
from rao_jax.traces import read_traces
from rao_jax.tree.buffer import TreeBuffer, TreeRecord, build, ladder
from rao_jax.tree.credit import Credit, credit
from rao_jax.warm_start import warm_start
from rao_jax.workdir import FINISHED, claim, has_state, refuse_url

log = logging.getLogger(__name__)


def train(
  config: ConfigDict, workdir: str | pathlib.Path, *, quiet: bool = False, dry_run: bool = False,
  profile_steps: Sequence[int] = (), resume: bool = False,
) -> dict[str, Any]:  # fmt: skip
  """Trains to the end of `config`, going on from the workdir's last good checkpoint if it has one.

  Args:
    config: from an experiment's `get_config`.
    workdir: gets config.json, metrics.jsonl, checkpoints/, warm_start/, trees/, tokenizer.model, report.html.
    quiet: plain lines for a log file in place of progress bars.
    dry_run: build and compile everything, say what it needs, and stop.
    profile_steps: steps to write a profiler trace of, below `profile/`.
    resume: it is an error if there is no checkpoint to go on from.
  Returns:
    summary of the run: steps, sampled tokens, warm-start tokens, the last evaluation.
  Raises:
    ValueError, OSError: a setting, or a file that one names, cannot be worked with.
    Interrupted: it was asked to end by SIGTERM, and can be gone on with.
  """
  workdir, asked = pathlib.Path(workdir), str(workdir)
  use_compile_cache(config)
  screen = Screen(quiet, silent=not first())
  with contextlib.ExitStack() as stack:
    with command.settings():
      with together():
        validate(config)
        refuse_url(asked)
        if resume and not has_state(workdir):
          raise FileNotFoundError(
            f"--resume: {workdir} holds no checkpoint to go on from: look for a misspelt --workdir, or leave --resume "
            "out to begin"
          )
        if config.warm_start.traces and not has_state(workdir):
          read_traces(config.warm_start.traces)  # what is wrong in them is said now, not after compiling
      if lock := first_then_others(lambda: claim(workdir, config)):
        stack.callback(lock.close)
      run = first_then_others(lambda: make_run(config, workdir))
      stack.callback(run.close)
      checkpoints = stack.enter_context(Checkpointer(workdir / "checkpoints", max_to_keep=config.checkpoint.keep))
      writer = MetricWriter(
        workdir, tensorboard=config.log.tensorboard, wandb_project=config.log.wandb_project, config=config.to_dict()
      )
      stack.callback(writer.close)
      stack.enter_context(end_at_once())  # before what is above waits for the others
      started = time.monotonic()
      learner, frontier = run.policy_gradient_learner(), run.frontier()
      screen.line(memory_report(run, learner, frontier, time.monotonic() - started))
      if dry_run:
        return {}
      if first():
        (workdir / FINISHED).unlink(missing_ok=True)
      restored = checkpoints.restore(learner.abstract)
    stack.enter_context(interrupt.at_safe_points())
    if restored is None:
      writer.truncate_after(-1)  # rows of a start that was killed before its first checkpoint
      state, read = warm_start(run, learner, workdir, writer, screen)
      step, meta = 0, {"sampled": 0, "warm_start_tokens": read, "seconds": 0.0, "evaluated": -1, "skipped_in_a_row": 0}
    else:
      step, state, meta = restored
      meta = {"evaluated": step, "skipped_in_a_row": 0, "rows": None} | meta  # those of older versions lack them
      dropped = writer.truncate_after(step, meta["rows"])
      checkpoints.truncate_after(step)
      screen.line(
        f"going on from the checkpoint of step {step}" + f" ({dropped} later metric rows dropped)" * bool(dropped)
      )
    reference = None
    if config.loss.kl_coefficient:  # to the policy that the warm start left
      with Checkpointer(workdir / "warm_start") as own:
        reference = own.restore(learner.abstract)[1].params
    loop = Loop(run, learner, frontier, checkpoints, writer, screen, workdir, reference)
    summary = loop.run(state, step, meta, fresh=restored is None, profile_steps=profile_steps)
    screen.line(final_table(summary))
    if config.log.report and first():
      write_report([workdir], workdir / "report.html")
    checkpoints.wait()
    if first():
      (workdir / FINISHED).write_text(json.dumps(summary))
    return summary


class Loop:
  """The policy-gradient stage: one batch of trees, one credit assignment, one or more updates a step."""

  def __init__(
    self, run: Run, learner: Learner, frontier: Frontier, checkpoints: Checkpointer, writer: MetricWriter,
    screen: Screen, workdir: pathlib.Path, reference: Params | None,
  ):  # fmt: skip
    self.run_, self.learner, self.frontier = run, learner, frontier
    self.checkpoints, self.writer, self.screen, self.workdir = checkpoints, writer, screen, workdir
    self.reference = reference
    self.config = run.config
    self._guard = FiniteGuard(self.config.learn.max_skipped)
    self._watches = {"train": Watch("train"), "eval": Watch("eval", patience=1)}
    trees = sum(self.config.tasks.train.values()) * self.config.rollouts_per_task
    self._nodes = ladder(trees * self.config.caps.max_nodes)  # one credit program, whatever the trees grow to
    self._credit([TreeRecord([], 0, False)] * trees)

  def run(
    self, state: TrainState, step: int, meta: dict[str, Any], fresh: bool, profile_steps: Sequence[int]
  ) -> dict[str, Any]:
    """Steps until the config's end, evaluating and saving when they are due; a fresh state is step 0.

    An error outside of an update, such as a judge that stays unreachable, is raised once the state of the last step is
    saved. So is Interrupted; an evaluation that it cut off is made when the run goes on.
    """
    c, last = self.config, {}
    bar = self.screen.bar(c.steps, "step", initial=step)
    saved, written = -1 if fresh else step, step
    self._guard.in_a_row = meta["skipped_in_a_row"]
    try:
      while True:
        over = step >= c.steps or self._spent(meta)
        if c.evaluation.every and meta["evaluated"] < step and (step % c.evaluation.every == 0 or over):
          began = time.monotonic()
          last = self.evaluate(state, step)
          meta["evaluated"] = step
          meta["seconds"] += from_first(time.monotonic() - began)
          if step:
            self.checkpoints.save_best(step, state, meta, score=last["eval/success"])
        if saved < step and (step % c.checkpoint.every == 0 or over):
          self.save(step, state, meta)
          saved = step
        if over:
          break
        interrupt.check()
        began = time.monotonic()
        profiled = step + 1 in profile_steps
        with jax.profiler.trace(str(self.workdir / "profile")) if profiled else contextlib.nullcontext():
          state, metrics, *batch = self.step(state, step, meta)
        step += 1
        meta["seconds"] += from_first(time.monotonic() - began)
        self.write(step, metrics, *batch)
        written = step
        bar.update(1)
        self.screen.step(step, c.steps, metrics)
        self.alarm("train", metrics)
        meta["skipped_in_a_row"] = self._guard.in_a_row
        with together():
          self._guard.check(f"step {step}", "config.learn.rate")
    except Exception as e:
      # A state given away to an update that failed is gone; one without its row would go on without it.
      whole = written == step and not any(x.is_deleted() for x in jax.tree.leaves(state))
      if known_to_all(e) and whole:
        if saved < step:
          self.save(step, state, meta)
          self.checkpoints.wait()
        e.add_note(f"the state of step {step} is saved below {self.workdir}: the same command goes on from there")
      raise
    bar.close()
    return {"steps": step, **meta, "evaluation": last}

  def alarm(self, prefix: str, metrics: dict[str, float]) -> None:
    """Shows which alarms a row raises, and which have cleared."""
    for line in self._watches[prefix].news(metrics):
      self.screen.line(line)

  def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
    """A checkpoint, with the number of metric rows that belong to it."""
    self.checkpoints.save(step, state, meta | {"rows": self.writer.rows})

  def _spent(self, meta: dict[str, Any]) -> bool:
    c = self.config
    return bool(
      (c.sampled_tokens and meta["sampled"] >= c.sampled_tokens) or (c.max_seconds and meta["seconds"] >= c.max_seconds)
    )

  def step(
    self, state: TrainState, step: int, meta: dict[str, Any]
  ) -> tuple[TrainState, dict[str, float], Sequence[Tree], TreeBuffer, Credit]:
    """collect -> credit -> update; `meta["sampled"]` grows by the tokens sampled.

    Of several processes each works its own trees; from there on all do the same.
    """
    c, run = self.config, self.run_
    clock = Clock()
    with together():
      tasks = []
      for split, n in c.tasks.train.items():
        source = run.environment.tasks(split)
        tasks += [source[int(i)] for i in task_indices(c.seed, step, n, len(source))]
      trees = run.trees(tasks, c.rollouts_per_task, step)
      verdicts = run.verdicts()
    before = self.frontier.counts.copy()
    judged = collect(run.rollout_params(state.params), trees, self.frontier, c.rollout.temperature, verdicts=verdicts)
    clock.lap("rollout")
    buffer, assigned = self._credit([record(tree) for tree in trees])
    clock.lap("credit")
    state, learned = self.update(state, buffer, assigned, step)
    clock.lap("update")

    counts = self.frontier.counts - before
    sampled = counts["sampled"] - judged.get("judge/tokens", 0)
    meta["sampled"] += sampled
    metrics = {
      **tree_metrics(trees, "train"),
      **judged,
      **learned,
      **credit_metrics(assigned),
      **funnel(trees, assigned, learned, sampled),
      **clock.metrics(),
      "tokens/sampled_total": meta["sampled"],
      **rollout_metrics(counts),
      "time/sampled_tokens_per_second": counts["sampled"] / max(clock.laps["rollout"], 1e-9),
    }
    return state, metrics, trees, buffer, assigned

  def write(
    self, step: int, metrics: dict[str, float], trees: Sequence[Tree], buffer: TreeBuffer, assigned: Credit
  ) -> None:
    """The files of a finished step."""
    c = self.config
    with together():
      self.writer.write(step, metrics)
      if first() and c.log.trees_every and ((step - 1) % c.log.trees_every == 0 or step == c.steps):
        self.dump(trees[: c.log.trees], step, buffer, assigned)

  def _credit(self, records: Sequence[TreeRecord]) -> tuple[TreeBuffer, Credit]:
    buffer = build(records, num_trees=len(records), num_nodes=self._nodes)
    return buffer, jax.device_get(credit(buffer, self.run_.credit_options))

  def update(
    self, state: TrainState, buffer: TreeBuffer, assigned: Credit, step: int
  ) -> tuple[TrainState, dict[str, float]]:
    """One update for each minibatch of nodes. Advantages, weights and normalisers are those of the whole batch."""
    c, rows = self.config, []
    regularised = c.loss.kl_coefficient or c.loss.entropy_coefficient
    chosen = assigned.weight > 0 if regularised else (assigned.advantage * assigned.weight) != 0
    order = np.random.default_rng((c.seed, 1, step)).permutation(np.flatnonzero(chosen))
    scales = normalisers(
      c.loss.normaliser, assigned.stats.trained_nodes, assigned.stats.action_tokens, c.learn.minibatches
    )
    fills = []
    for part in np.array_split(order, c.learn.minibatches):
      if not len(part):
        continue
      parts = self.learner.microbatches(buffer, part, assigned.advantage, assigned.weight)
      state, metrics = self.learner.update(state, parts, scales, self.reference)
      fills.append(fill(parts))
      rows.append(metrics)
      self._guard.count(metrics)
    if not rows:
      return state, {"funnel/tokens_trained": 0.0, "funnel/tokens_dropped_update": 0.0}
    mean = {f"train/{k}": float(np.mean([r[k] for r in rows])) for k in rows[0] if k not in ("tokens", "finite")}
    for name in ("ratio_max", "log_ratio_max"):
      mean[f"train/{name}"] = max(r[name] for r in rows)
    mean["train/grad_norm_max"] = max(r["grad_norm"] for r in rows)
    mean["train/lr"] = rows[-1]["lr"]
    mean["train/row_fill"] = float(np.mean(fills))
    mean["train/updates_skipped"] = sum(not r["finite"] for r in rows)
    mean["funnel/tokens_trained"] = sum(r["tokens"] for r in rows if r["finite"])
    mean["funnel/tokens_dropped_update"] = sum(r["tokens"] for r in rows if not r["finite"])
    return state, mean

  def evaluate(self, state: TrainState, step: int) -> dict[str, float]:
    """Success on the development splits, written as `eval/...`."""
    c = self.config
    with together():
      tasks = [task for split, n in c.tasks.dev.items() for task in self.run_.environment.tasks(split)[:n]]
      if not tasks:
        raise ValueError(
          "config.evaluation.every is set, but config.tasks.dev names no split: name one, or set it to 0"
        )
    began = time.monotonic()
    trees = evaluate(self.run_, self.frontier, self.run_.rollout_params(state.params), tasks, c.evaluation.temperature)
    metrics = tree_metrics(trees, "eval") | {"time/evaluation_seconds": time.monotonic() - began}
    with together():
      self.writer.write(step, metrics)
    self.screen.evaluation(step, metrics)
    self.alarm("eval", metrics)
    return metrics

  def dump(self, trees: Sequence[Tree], step: int, buffer: TreeBuffer, assigned: Credit) -> None:
    """Writes trees/step_*.jsonl for the report."""
    folder = self.workdir / "trees"
    folder.mkdir(exist_ok=True)
    with (folder / f"step_{step:06d}.jsonl").open("w") as f:
      for number, tree in enumerate(trees):
        at = slice(int(buffer.root[number]), int(buffer.root[number]) + len(tree.nodes))
        values = {name: getattr(assigned, name)[at] for name in ("reward", "advantage", "weight")}
        values["baseline"] = [float(assigned.baseline[number])] * len(tree.nodes)
        f.write(json.dumps(tree_line(tree, step, number, values)) + "\n")


def memory_report(run: Run, learner: Learner, frontier: Frontier, seconds: float) -> str:
  """One line: parameters, programs compiled, bytes a device needs at most, by the compiler's own analysis."""
  count = lambda tree: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
  params = f"{count((learner.abstract.params, run.frozen)):,} parameters"
  if run.frozen:
    params += f" ({count(learner.abstract.params):,} of adapters are trained)"

  def needed(program) -> int:
    m = program.memory_analysis()
    return m.argument_size_in_bytes + m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes

  update = max(needed(p) for p in learner.programs.values())
  rollout = max(needed(p) for p in frontier.programs.values())
  programs = len(frontier.programs) + len(learner.programs)
  return (
    f"{params} on {run.mesh.size} {jax.devices()[0].platform} device(s); {programs} programs compiled in "
    f"{seconds:.0f} s; at most {update / 2**20:.0f} MiB a device in an update, {rollout / 2**20:.0f} MiB in a rollout"
  )


def quieten() -> None:
  """Orbax tells every step of a save at INFO."""
  logging.getLogger().setLevel(logging.WARNING)


def use_compile_cache(config: ConfigDict) -> None:
  if config.compile_cache:
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(config.compile_cache).absolute()))


def compare_agents(f: flags.FlagValues) -> None:
  """Trains and compares the agents that the experiment names; see config.agents."""
  if f.dry_run or f.profile_steps or f.distributed:
    raise app.UsageError(
      f"--dry_run, --profile_steps and --distributed are for one agent: add :{f.config.agents[0]} to --config"
    )
  with command.settings():
    validate(f.config)
  experiment = config_flags.get_config_filename(f["config"]).partition(":")[0]
  words = [f"--config.{key}={value}" for key, value in config_flags.get_override_values(f["config"]).items()]
  tests = f.config.tasks.test.to_dict()
  train_and_compare(Comparison(experiment, tuple(f.config.agents), pathlib.Path(f.workdir), tests, words))


def main(f: flags.FlagValues) -> None:
  quieten()
  if f.config.agents:
    compare_agents(f)
    return
  interrupt.listen()
  processes.start(f)
  keep_memory()
  code = 0
  try:
    with end_at_once():
      train(
        f.config, f.workdir, quiet=f.quiet, dry_run=f.dry_run, profile_steps=[int(n) for n in f.profile_steps],
        resume=f.resume,
      )  # fmt: skip
  except (JudgeUnreachable, PeerFailed, Interrupted, FloatingPointError, WriteFailed) as e:
    print("\n".join([f"stopped: {e}", *getattr(e, "__notes__", [])]), file=sys.stderr, flush=True)
    code = 0 if isinstance(e, Interrupted) else command.STOPPED
    if isinstance(e, WriteFailed):
      os._exit(code)  # all is closed; what the failed save left behind would print more at the interpreter's end
  sys.exit(code)


if __name__ == "__main__":
  config_flags.DEFINE_config_file("config", None, "An experiment file with get_config().", lock_config=True)
  flags.DEFINE_string("workdir", None, "Where the run lives; made if missing, gone on with if not.")
  flags.DEFINE_bool("resume", False, "Go on from a checkpoint of the workdir: an error if there is none.")
  flags.DEFINE_bool("quiet", False, "Plain lines in place of progress bars.")
  flags.DEFINE_bool("dry_run", False, "Build and compile everything, print what it needs, and stop.")
  flags.DEFINE_list("profile_steps", [], "Steps to write a profiler trace of, to WORKDIR/profile.")
  processes.define_flags()
  flags.mark_flags_as_required(["config", "workdir"])
  command.run(main)
