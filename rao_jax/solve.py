"""Runs a trained agent on one task and shows its tree as it grows. Impure.

  python -m rao_jax.solve --workdir=runs/demo/recursive --task=dev_hard/3
  python -m rao_jax.solve --workdir=runs/demo/recursive --task="craft 2 of m0_i4" --temperature=1 --seed=7

A task is SPLIT/NUMBER, an id, or a goal in words where the environment takes one (`task_from` of envs/base.py).
"""

import json
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from rao_jax import command
from rao_jax.envs.base import Environment, Task
from rao_jax.evaluate import Options, load
from rao_jax.evaluation import EVALUATION_STREAM
from rao_jax.interrupt import Interrupted
from rao_jax.report.text import name, node_text, tree_text, visible
from rao_jax.report.trees import parse
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import Node, Status, Tree
from rao_jax.rollout.summary import critical_path, tree_line
from rao_jax.train import quieten

STREAM = 4 * EVALUATION_STREAM  # its draws are none of an evaluation's or a training step's
REPAINT = 0.1  # seconds between two pictures of a growing tree


def find_task(environment: Environment, asked: str, splits: Sequence[str]) -> Task:
  """The task that a user asks for.

  Args:
    environment: of the run.
    asked: SPLIT/NUMBER, the id of a task in one of `splits`, or a goal for the environment's `task_from`.
    splits: that the run's config names.
  Raises:
    ValueError: it says what can be asked for.
  """
  if match := re.fullmatch(r"([^\s/]+)/(\d+)", asked):
    source = environment.tasks(match[1])
    if int(match[2]) >= len(source):
      raise ValueError(f"--task={asked}: split {match[1]} has {len(source)} tasks, the last is {len(source) - 1}")
    return source[int(match[2])]
  if not re.search(r"\s", asked):
    for split in splits:
      source = environment.tasks(split)
      for i in range(len(source)):
        if (task := source[i]).id == asked:
          return task
  if hasattr(environment, "task_from"):
    return environment.task_from(asked)
  raise ValueError(
    f"--task={asked!r} is the id of no task in the splits {', '.join(splits)}, and this environment takes no goals in "
    f"words: name one as SPLIT/NUMBER, e.g. {splits[0]}/0"
  )


def growing_line(tree: Tree) -> dict[str, Any]:
  """The line of a tree as it stands; of an agent at work, what it does instead of how it ended."""
  line = tree_line(tree, 0, 0)
  for node, shown in zip(tree.nodes, line["nodes"], strict=True):
    if node.status is not Status.ENDED:
      shown |= {"outcome": _work(tree, node), "success": None}
  return line


def _work(tree: Tree, node: Node) -> str:
  if node.status is Status.WAITING:
    children = sum(isinstance(child, Node) for _, child in node.pending)
    return f"waits for {children} agent" + "s" * (children != 1)
  return "writes" if _begun(tree, node) else "about to begin"


def _begun(tree: Tree, node: Node) -> bool:
  """A launched agent begins when no agent of its parent's level is acting any more."""
  return node.status is Status.ENDED or any(node in level for level in tree.levels)


def at_work(line: dict[str, Any]) -> dict[str, Any]:
  """The part of a growing tree that is at work: who waits for an agent at work waits too, so it is a tree."""
  kept = [i for i, node in enumerate(line["nodes"]) if node["success"] is None]
  place = {i: k for k, i in enumerate(kept)} | {-1: -1}
  nodes = [line["nodes"][i] | {"parent": place[line["nodes"][i]["parent"]]} for i in kept]
  return line | {"nodes": nodes}


class Live:
  """Paints a growing tree over and over in a terminal."""

  def __init__(self):
    self._lines, self._last, self._began = 0, 0.0, time.monotonic()

  def show(self, tree: Tree) -> None:
    now = time.monotonic()
    if now - self._last < REPAINT:
      return
    self._last = now
    size = shutil.get_terminal_size()
    self._paint(picture(tree, now - self._began, size.columns - 1, size.lines - 2))

  def close(self) -> None:
    self._paint([])

  def _paint(self, lines: Sequence[str]) -> None:
    back = f"\x1b[{self._lines}A" if self._lines else ""
    sys.stdout.write(f"{back}\r\x1b[J" + "".join(line + "\n" for line in lines))
    sys.stdout.flush()
    self._lines = len(lines)


def picture(tree: Tree, seconds: float, width: int, height: int) -> list[str]:
  """A growing tree in `height` lines: all its agents, or those at work, or as many of them as there is room for."""
  line = growing_line(tree)
  busy = sum(node["success"] is None for node in line["nodes"])
  head = f"{len(line['nodes'])} agents, {busy} at work, {tree.ledger.sampled:,} tokens, {seconds:.0f} s"
  if len(line["nodes"]) > height - 1 and busy:
    line = at_work(line)
  lines = tree_text(parse(json.dumps(line).encode()), width).split("\n\n", 1)[1].split("\n")
  if len(lines) > height - 1:
    lines = [*lines[: height - 2], f"... and {len(lines) - height + 2} more at work"]
  return [head[:width], *lines]


class Log:
  """Tells a growing tree in lines that stay: agents that begin, their turns, how they end."""

  def __init__(self):
    self._turns: dict[tuple, int] = {}  # path -> turns told; -1 when it has ended

  def show(self, tree: Tree) -> None:
    for node in sorted(tree.nodes, key=lambda node: -node.depth):  # a parent goes on when its children have ended
      told, who = self._turns.get(node.path, -1), name({"path": node.path})
      if told == -1:
        continue
      done = len(node.turns) - (node.status is Status.WAITING)  # the cell of a waiting agent has not ended
      for i, turn in enumerate(node.turns[told:done], told + 1):
        output = f"  ->  {one_line(turn.output)}" if turn.output else ""
        print(f"{who} turn {i}: {one_line(turn.cell)}{output}")
      self._turns[node.path] = done
      if node.status is Status.ENDED:
        print(f"{who} ends: {node.outcome}, success {node.success:g}, {node.sampled} tokens")
        self._turns[node.path] = -1
    for node in tree.nodes:
      if node.path not in self._turns and _begun(tree, node):
        print(f"{name({'path': node.path})} begins: {one_line(node.goal_text)}")
        self._turns[node.path] = 0
    sys.stdout.flush()

  def close(self) -> None:
    pass


def one_line(text: str, most: int = 100) -> str:
  text = " ".join(visible(text).split())
  return text if len(text) <= most else text[: most - 3] + "..."


def solve(
  workdir: pathlib.Path, asked: str, options: Options, seed: int = 0, turns: bool = True, live: bool = False
) -> dict[str, Any]:
  """Works one task with a checkpoint; prints the tree as it grows and as it ends.

  Args:
    workdir: of a training run.
    asked: see `find_task`.
    options: of the checkpoint; a temperature of None is greedy.
    seed: of the draws.
    turns: print the turns of all agents at the end.
    live: repaint the tree in place of appending lines.
  Returns:
    what the JSON file holds.
  """
  with command.settings():
    subject = load(workdir, options)
    run, c = subject.run, subject.run.config
    splits = dict.fromkeys([*c.tasks.dev, *c.tasks.test, *c.tasks.train])
    task = find_task(run.environment, asked, list(splits))
    (tree,) = run.trees([task], 1, STREAM + seed, run.evaluation_caps)
  print(f"{subject}\n{task.id}\n{visible(tree.root.goal_text)}\n", flush=True)
  view, began = Live() if live else Log(), time.monotonic()
  try:
    collect(
      subject.params, [tree], subject.frontier, options.temperature or 0.0, lambda _: view.show(tree),
      run.verdicts(children=False),
    )  # fmt: skip
    seconds = time.monotonic() - began
  finally:
    view.close()
    run.close()
  line = tree_line(tree, subject.step, 0)
  shown = parse(json.dumps(line).encode())
  print(("\n" if not live else "") + tree_text(shown, shutil.get_terminal_size().columns))
  if turns:
    for node in shown["nodes"]:
      print("\n" + node_text(shown, node["path"]))
  sampled, longest = tree.ledger.sampled, critical_path(tree.nodes)
  print(
    f"\nsuccess {tree.root.success:g}, answer {visible(repr(tree.root.message))}; {sampled:,} tokens sampled, "
    f"{longest:,} on the critical path; {seconds:.1f} s, {sampled / max(seconds, 1e-9):,.0f} tokens a second",
    flush=True,
  )
  return {
    **subject.about(),
    "checkpoint": options.checkpoint,
    "temperature": options.temperature or 0.0,
    "seed": seed,
    "task": task.id,
    "success": tree.root.success,
    "answer": tree.root.message,
    "sampled": sampled,
    "critical_path": longest,
    "seconds": seconds,
    "tree": line,
  }


def main(f: flags.FlagValues) -> None:
  quieten()
  if f["seed"].present and not f.temperature:
    raise app.UsageError("--seed does nothing where sampling is greedy: add --temperature, e.g. --temperature=1")
  options = Options(f.checkpoint, f.temperature, 1, f.max_depth, f.max_nodes, f.context)
  try:
    result = solve(pathlib.Path(f.workdir), f.task, options, f.seed, f.turns, sys.stdout.isatty())
  except Interrupted:
    sys.exit(command.STOPPED)
  if f.json:
    file = pathlib.Path(f.json)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2, default=str))


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "Workdir of a training run.", required=True)
  flags.DEFINE_string("task", None, "SPLIT/NUMBER, e.g. dev_hard/3; or an id; or a goal in words.", required=True)
  flags.DEFINE_float("temperature", None, "Of sampling; default greedy.", lower_bound=0.0)
  flags.DEFINE_integer("seed", 0, "Of sampling.", lower_bound=0, upper_bound=2**30)
  flags.DEFINE_integer("max_depth", None, "Depth cap; default as evaluated in training. 0 removes launch_subagent.")
  flags.DEFINE_integer("max_nodes", None, "Node cap of the tree; default as evaluated in training.", lower_bound=1)
  flags.DEFINE_integer("context", None, "Context window in tokens; default as trained.", lower_bound=1)
  flags.DEFINE_enum("checkpoint", "last", ["last", "best", "warm_start"], "Which parameters.")
  flags.DEFINE_bool("turns", True, "Print the turns of all agents at the end.")
  flags.DEFINE_string("json", None, "File that gets the figures and the tree.")
  command.run(main)
