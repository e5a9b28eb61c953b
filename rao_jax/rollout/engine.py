"""A tree of agents as an explicit stack of levels. Host side, no device code: who acts next, and what cells lead to.

The ready agents of a tree are the live nodes of its deepest open level. When all of them have ended their turn, their
cells run in path order. A level with only waiting nodes opens the next level over all their children; a level without
live nodes closes and hands its results up together. A tree depends on nothing but its task, its key and what its own
agents sample, so trees of a batch go on independently.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import numpy as np

from rao_jax.envs.base import Environment, Episode, Goal, Path, Refusal, Task
from rao_jax.rollout.budget import STEPS, Caps, Ledger, repeats, take_steps
from rao_jax.rollout.interpreter import CellResult, Interpreter, Launch
from rao_jax.rollout.protocol import TurnProtocol, join_output
from rao_jax.tree.buffer import NodeRecord, TreeRecord

LAUNCH = "launch_subagent"
LOOP_MESSAGE = "stuck in a loop"  # what a node in a loop is taken to have finished with


class Status(enum.Enum):
  ACTING = enum.auto()  # its turn is being sampled
  TURN_ENDED = enum.auto()  # its cell is to be run
  WAITING = enum.auto()  # its cell is suspended on children
  ENDED = enum.auto()


class Outcome(enum.StrEnum):
  """How a node ended: a closed set."""

  FINISHED = "finished"
  TRUNCATED = "truncated"  # a cell was cut before its end token
  CONTEXT_FULL = "context_full"  # no room for another turn
  TURN_CAP = "turn_cap"  # its budget of turns is used up
  LOOPED = "looped"  # its cells repeated themselves; graded as if it had finished
  DEAD = "dead"  # the sandbox gave up on its cell: a limit, a crash
  TIMED_OUT = "timed_out"  # the wall-clock backstop; its tree cannot be replayed


@dataclasses.dataclass
class Turn:
  cell: str
  output: str = ""
  launches: int = 0  # called by the cell, granted or not


@dataclasses.dataclass(eq=False)
class Node:
  """One agent: its goal, its tokens, the state of its sandbox.

  `tokens`, `is_action` and `logp` run in parallel: what it read and what it sampled, with the sampler's own
  log-probabilities (0 where not sampled). `fed` of them are in caches: the first `prefix` in the one that nodes share,
  the others in slot `slot` (None: no slot).
  """

  path: Path
  parent: "Node | None"
  goal: Goal
  goal_text: str
  tokens: list[int]
  is_action: list[bool] = dataclasses.field(default_factory=list)
  logp: list[float] = dataclasses.field(default_factory=list)
  key: np.ndarray | None = None  # u32[2]
  status: Status = Status.ACTING
  turns: list[Turn] = dataclasses.field(default_factory=list)
  turn_start: int = 0
  sandbox: Any = None
  launch_base: int = 0  # launches called in earlier cells
  granted: int = 0  # launches granted to the present cell
  pending: list[tuple[Launch, "Node | Refusal"]] = dataclasses.field(default_factory=list)
  stdout: str = ""
  fed: int = 0
  prefix: int = 0
  slot: int | None = None
  suspended: int = 0  # times that the present cell waited for children
  # Which turn of its parent launched it, and which wait of that turn's cell: children of one wave work side by side.
  wave: tuple[int, int] | None = None
  calls: int = 0  # of the world's functions
  outcome: Outcome | None = None
  message: Any = None
  success: float = 0.0

  def __post_init__(self):
    self.is_action = [False] * len(self.tokens)
    self.logp = [0.0] * len(self.tokens)
    self.turn_start = len(self.tokens)

  @property
  def depth(self) -> int:
    return len(self.path)

  @property
  def own_fed(self) -> int:
    return self.fed - self.prefix

  @property
  def sampled(self) -> int:
    return int(np.sum(self.is_action))

  def read(self, tokens: Sequence[int]) -> None:
    """Appends tokens it did not sample; its next turn starts behind them."""
    self.tokens += tokens
    self.is_action += [False] * len(tokens)
    self.logp += [0.0] * len(tokens)
    self.turn_start = len(self.tokens)


class Tree:
  """One rollout of a root task.

  Args:
    environment: names the functions of a cell.
    task: the root task; `group` numbers it within the batch, `rollout` this try of it.
    caps, protocol, interpreter: shared by all trees.
    key: u32[2], the root's key.
  """

  def __init__(
    self,
    environment: Environment,
    task: Task,
    caps: Caps,
    protocol: TurnProtocol,
    interpreter: Interpreter,
    key: np.ndarray | None = None,
    group: int = 0,
  ):
    self.task, self.caps, self.group = task, caps, group
    self._protocol, self._interpreter = protocol, interpreter
    self._names = frozenset(environment.functions) | ({LAUNCH} if caps.max_depth > 0 else frozenset())
    self.episode: Episode = environment.start(task)
    self.ledger = Ledger(caps)
    self.fault: str | None = None  # set by the harness: the tree is invalid
    self.row_shard = 0  # the part of the mesh's row axes that works it, for its whole life
    goal = self.episode.root_goal()
    text = self._prompt(goal, caps.max_turns)
    root = Node((), None, goal, text, protocol.prompt(text), key=key)
    if len(root.tokens) + caps.min_turn > caps.window:
      raise ValueError(
        f"task {task.id}: its prompt has {len(root.tokens)} tokens, too many for caps.window={caps.window}: raise it"
      )
    self.nodes = [root]
    self.levels = [[root]]
    self.episode.begin(root.path, goal)

  @property
  def root(self) -> Node:
    return self.nodes[0]

  @property
  def done(self) -> bool:
    return not self.levels

  @property
  def replayable(self) -> bool:
    return all(node.outcome is not Outcome.TIMED_OUT for node in self.nodes)

  def acting(self) -> list[Node]:
    """The nodes whose turn is being sampled, in path order."""
    return [node for node in self.levels[-1] if node.status is Status.ACTING] if self.levels else []

  def room(self, node: Node) -> int:
    """Tokens that the turn of an acting node may still sample."""
    used = len(node.tokens) - node.turn_start
    return min(self.caps.turn_tokens - used, self.caps.window - len(node.tokens))

  def sample(self, node: Node, tokens: Sequence[int], logps: Sequence[float]) -> None:
    """Appends sampled tokens to an acting node; its turn ends at the end token or when its room is used up."""
    node.tokens += tokens
    node.is_action += [True] * len(tokens)
    node.logp += logps
    self.ledger.sampled += len(tokens)
    if (tokens and tokens[-1] == self._protocol.end) or self.room(node) <= 0:
      node.status = Status.TURN_ENDED

  def advance(self) -> None:
    """Runs the cells of all ended turns, and opens and closes levels until agents act again or the tree is done.

    Does nothing while an agent of the tree is acting.
    """
    if self.acting():
      return
    for node in self.levels[-1]:
      if node.status is Status.TURN_ENDED:
        self._run_cell(node)
    while self.levels and not self.acting():
      waiting = [node for node in self.levels[-1] if node.status is Status.WAITING]
      if waiting:
        self._open_level([child for node in waiting for _, child in node.pending if isinstance(child, Node)])
        continue
      self.levels.pop()
      for node in self.levels[-1] if self.levels else ():
        if node.status is Status.WAITING:
          self._resume(node)

  def close(self) -> None:
    """Gives up a tree: its nodes end without an outcome, their sandboxes are released."""
    for node in self.nodes:
      node.status = Status.ENDED
      self._interpreter.discard(node.sandbox)
      node.sandbox = None
    self.levels = []

  def _call(self, node: Node):
    def call(name, args, kwargs):
      node.calls += 1
      return self.episode.call(node.path, name, args, kwargs)

    return call

  def _run_cell(self, node: Node) -> None:
    tokens = node.tokens[node.turn_start :]
    code = self._protocol.cell(tokens)
    self.ledger.turn(node.path)
    if code is None:
      node.turns.append(Turn(self._protocol.tokenizer.decode(tokens)))
      self._end(node, Outcome.TRUNCATED)
      return
    node.turns.append(Turn(code))
    node.granted, node.suspended, node.stdout = 0, 0, ""
    if node.sandbox is None:
      node.sandbox = self._prepared(node)
    if self._protocol.no_code and not code.strip():
      self._settle(node, CellResult("ended", node.sandbox, error=self._protocol.no_code))
      return
    self._settle(node, self._interpreter.run(node.sandbox, code, self._names, self._call(node)))

  def _prepared(self, node: Node) -> Any:
    """The state of a fresh session in which the episode's prelude, if it has one, has run."""
    prelude = getattr(self.episode, "prelude", None)
    code = prelude(node.goal) if prelude else ""
    if not code:
      return None
    result = self._interpreter.run(None, code, frozenset(), self._call(node))
    if result.status != "ended" or result.error:
      raise RuntimeError(f"task {self.task.id}: the prelude of {node.path} ended {result.status}: {result.error}")
    return result.state

  def _resume(self, node: Node) -> None:
    for _, child in node.pending:
      if isinstance(child, Node):
        self.ledger.settle(child.path)
    self._settle(node, self._answered(node))

  def _answered(self, node: Node) -> CellResult:
    """Goes on with a suspended cell, all its launches answered."""
    answers = {launch.number: self._answer(child) for launch, child in node.pending}
    node.pending = []
    return self._interpreter.resume(node.sandbox, answers, self._names, self._call(node))

  def _settle(self, node: Node, result: CellResult) -> None:
    """What a cell's run leads to: the node ends, waits for children, or reads its output."""
    while True:
      node.sandbox = result.state
      node.stdout += result.stdout
      if result.status != "waiting":
        break
      node.pending = [(launch, self._launch(node, launch)) for launch in result.launches]
      if any(isinstance(child, Node) for _, child in node.pending):
        node.status = Status.WAITING
        node.suspended += 1
        return
      result = self._answered(node)  # every launch was refused: the cell goes on at once
    node.launch_base += result.launch_calls
    node.turns[-1].launches = result.launch_calls
    if result.launches:
      self.ledger.refused["not_awaited"] += len(result.launches)
    if result.status == "finished":
      node.message = result.finish
      self._end(node, Outcome.FINISHED)
      return
    if result.status == "dead":
      node.turns[-1].output = result.error or ""
      self._end(node, Outcome.TIMED_OUT if result.timed_out else Outcome.DEAD)
      return
    forgotten = f"Error: {len(result.launches)} launches were not awaited" if result.launches else None
    shown = None if result.value is None else self.episode.render(result.value)
    text = join_output(node.stdout, shown, result.error, forgotten)
    node.turns[-1].output = text
    if self.ledger.accounts[node.path].left <= 0:
      self._end(node, Outcome.TURN_CAP)
      return
    if repeats([turn.cell for turn in node.turns], self.caps.loop_repeats):
      node.message = LOOP_MESSAGE
      self._end(node, Outcome.LOOPED)
      return
    room = self.caps.window - len(node.tokens) - self.caps.min_turn
    if room < self._protocol.frame + 2:  # and a mark that something was cut
      self._end(node, Outcome.CONTEXT_FULL)
      return
    tokens = self._protocol.output(text, min(self.caps.output_tokens, room))
    node.turns[-1].output = self._protocol.shown(tokens)  # perhaps cut
    node.read(tokens)
    node.status = Status.ACTING

  def _prompt(self, goal: Goal, turns: int) -> str:
    """What an agent sees first; with a shared budget it has to know its own."""
    text = self.episode.prompt(goal)
    return f"{text}\nTurns: {turns}" if self.caps.budget == "shared" else text

  def _launch(self, node: Node, launch: Launch) -> Node | Refusal:
    steps, args, kwargs = None, launch.args, launch.kwargs
    if self.caps.budget == "shared":
      steps, args, kwargs = take_steps(args, kwargs)
      if type(steps) is not int or steps < 1:
        return self.ledger.refuse(STEPS, f"{LAUNCH} needs {STEPS}, the turns of the subagent: a whole number from 1 on")
    goal = self.episode.subgoal(node.path, args, kwargs)
    if isinstance(goal, Refusal):
      self.ledger.refused["goal"] += 1
      return goal
    path = (*node.path, node.launch_base + launch.number)
    text = self._prompt(goal, steps)
    tokens = self._protocol.prompt(text)
    room = self.caps.window - len(node.tokens)
    refusal = self.ledger.admit(path, steps, node.granted, room, len(tokens))
    if refusal is not None:
      return refusal
    node.granted += 1
    child = Node(path, node, goal, text, tokens, wave=(len(node.turns) - 1, node.suspended))
    self.nodes.append(child)
    return child

  def _open_level(self, children: list[Node]) -> None:
    self.levels.append(children)
    for child in children:
      self.episode.begin(child.path, child.goal)

  def _answer(self, child: Node | Refusal) -> Any:
    """What a parent's launch returns: the child's finish message, or why there is none."""
    if isinstance(child, Refusal):
      return str(child)
    return f"Error: {child.outcome}" if child.message is None else child.message

  def _end(self, node: Node, outcome: Outcome) -> None:
    node.status, node.outcome = Status.ENDED, outcome
    node.success = float(self.episode.end(node.path, node.message))
    if not 0.0 <= node.success <= 1.0:
      raise ValueError(f"task {self.task.id}: the environment graded {node.path} {node.success}, outside [0, 1]")
    self._interpreter.discard(node.sandbox)
    node.sandbox = None


def record(tree: Tree) -> TreeRecord:
  """What training keeps of a finished tree."""
  index = {id(node): i for i, node in enumerate(tree.nodes)}
  nodes = [
    NodeRecord(
      tokens=node.tokens,
      is_action=node.is_action,
      behaviour_logp=node.logp,
      parent=-1 if node.parent is None else index[id(node.parent)],
      depth=node.depth,
      success=node.success,
    )
    for node in tree.nodes
  ]
  return TreeRecord(nodes=nodes, group=tree.group, valid=tree.fault is None)
