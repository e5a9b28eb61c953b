"""Traces of a user's own to clone in a warm start: JSONL, checked line by line. Impure: reads and writes files.

  python -m rao_jax.traces mine.jsonl                                                     checks it, says what it holds
  python -m rao_jax.traces --least_success=1 --best --out=best.jsonl 'runs/a/trees/step_*.jsonl'       keeps the best

A line is one tree of agents, or a tree that a run recorded (`trees/step_*.jsonl`): see docs/traces.md. Every agent
becomes a sequence of the run's turn format: its cells are what is learned, its goal and the outputs are what it read.
"""

import argparse
import collections
import dataclasses
import glob
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Outcome
from rao_jax.rollout.protocol import TurnProtocol
from rao_jax.tree.buffer import NodeRecord, TreeRecord

KEYS = ("goal", "turns", "success", "children", "info")  # of an agent; info is the user's own
TURN_KEYS = ("cell", "output")


@dataclasses.dataclass(frozen=True)
class Agent:
  """One agent of a trace.

  Attributes:
    goal: the text it sees first, as the environment's `prompt` gives it.
    turns: (cell, output); what the last cell showed was read by nobody.
    parent: index within the trace, -1 at the root.
    depth: 0 at the root.
    success: in [0, 1].
    place: where it stands, for errors: `mine.jsonl:3, children[0]`.
  """

  goal: str
  turns: tuple[tuple[str, str], ...]
  parent: int
  depth: int
  success: float
  place: str


@dataclasses.dataclass(frozen=True)
class Trace:
  """One line: its agents, the root first and parents before their children.

  Attributes:
    task: the task of a recorded tree; else the root's goal.
    line: as it stands in the file.
  """

  agents: tuple[Agent, ...]
  task: str
  line: str


def read_traces(pattern: str) -> list[Trace]:
  """The traces of one file, or of all files that a pattern with `*` names, in the order of their names.

  Recorded trees that a fault of the harness ended are left out.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it names the file, the line and the field, and what to write there.
  """
  paths = [pathlib.Path(p) for p in sorted(glob.glob(pattern))] if "*" in pattern else [pathlib.Path(pattern)]
  if not paths or not all(path.is_file() for path in paths):
    raise FileNotFoundError(f"there is no file of traces {pattern}: name a JSONL file, see docs/traces.md")
  traces = [trace for path in paths for trace in _lines(path)]
  if not traces:
    raise ValueError(f"{pattern} holds no traces: write one JSON object a line, see docs/traces.md")
  return traces


def _lines(path: pathlib.Path) -> Iterator[Trace]:
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    place = f"{path}:{number}"
    if not line.strip():
      continue
    try:
      text = line.decode("utf-8")
      value = json.loads(text)
    except RecursionError:
      raise ValueError(f"{place}: agents are nested too deep: write the tree as `nodes`") from None
    except ValueError as e:
      raise ValueError(f"{place} is not JSON ({e}): write one object a line, in UTF-8") from None
    _check(isinstance(value, dict), place, value, "a JSON object")
    recorded = "nodes" in value
    if recorded and value.get("valid") is False:
      continue
    agents = tuple(_recorded(value["nodes"], place) if recorded else _nested(value, place))
    yield Trace(agents, str(value.get("task", agents[0].goal)) if recorded else agents[0].goal, text)


def _nested(value: Mapping[str, Any], place: str) -> list[Agent]:
  """The agents of a tree whose agents hold their children."""
  out = []
  waiting = [(value, place, -1, 0)]
  while waiting:
    value, place, parent, depth = waiting.pop()
    _check(isinstance(value, dict), place, value, "an agent: an object with goal and turns")
    unknown = [key for key in value if key not in KEYS]
    if unknown:
      raise ValueError(f"{place}: unknown field {unknown[0]!r}: there are {', '.join(KEYS)}; put your own below info")
    turns = _turns(value.get("turns"), place)
    if not turns:
      raise ValueError(f"{_at(place, 'turns')} is empty: an agent has a turn at least")
    children = value.get("children", [])
    _check(isinstance(children, list), _at(place, "children"), children, "a list of agents")
    own = len(out)
    out.append(_agent(value, turns, parent, depth, place))
    waiting += [(child, _at(place, f"children[{i}]"), own, depth + 1) for i, child in enumerate(children)][::-1]
  return out


def _recorded(nodes: Any, place: str) -> list[Agent]:
  """The agents of a line that a run wrote; a cell that was cut before its end is no example, and left out."""
  _check(isinstance(nodes, list) and nodes, _at(place, "nodes"), nodes, "a list of agents")
  out = []
  for i, node in enumerate(nodes):
    at = _at(place, f"nodes[{i}]")
    _check(isinstance(node, dict), at, node, "an agent: an object with parent, goal and turns")
    parent = node.get("parent")
    fits = type(parent) is int and (parent == -1 if i == 0 else 0 <= parent < i)
    _check(fits, _at(at, "parent"), parent, "the index of an earlier agent" if i else "-1: the first agent is the root")
    turns = _turns(node.get("turns"), at)
    if node.get("outcome") == Outcome.TRUNCATED:
      turns = turns[:-1]
    out.append(_agent(node, turns, parent, 0 if i == 0 else out[parent].depth + 1, at))
  return out


def _agent(value: Mapping[str, Any], turns: Sequence[tuple[str, str]], parent: int, depth: int, place: str) -> Agent:
  success = value.get("success", 1.0)
  fits = isinstance(success, int | float) and 0 <= success <= 1
  _check(fits, _at(place, "success"), success, "a number from 0 to 1, or leave it out for 1")
  goal = _text(value.get("goal"), _at(place, "goal"))
  return Agent(goal, tuple(turns), parent, depth, float(success), place)


def _turns(value: Any, place: str) -> list[tuple[str, str]]:
  at = _at(place, "turns")
  _check(isinstance(value, list), at, value, 'a list of turns: [{"cell": "...", "output": "..."}, ...]')
  out = []
  for i, turn in enumerate(value):
    own = f"{at}[{i}]"
    _check(isinstance(turn, dict), own, turn, 'a turn: {"cell": "...", "output": "..."}')
    unknown = [key for key in turn if key not in (*TURN_KEYS, "launches")]
    if unknown:
      raise ValueError(f"{own}: unknown field {unknown[0]!r}: a turn has cell and output")
    last = i == len(value) - 1
    output = turn.get("output", "") if last else turn.get("output")
    out.append((_text(turn.get("cell"), f"{own}.cell"), _text(output, f"{own}.output")))
  return out


def _at(place: str, field: str) -> str:
  return f"{place}{'.' if ', ' in place else ', '}{field}"


def _text(value: Any, place: str) -> str:
  _check(isinstance(value, str), place, value, "a text")
  try:
    value.encode()
  except UnicodeEncodeError as e:
    raise ValueError(f"{place} holds half of a surrogate pair, at character {e.start}: remove it") from None
  return value


def _check(fits: Any, place: str, value: Any, wanted: str) -> None:
  if not fits:
    shown = "missing" if value is None else json.dumps(value)
    raise ValueError(f"{place} is {shown if len(shown) < 60 else shown[:56] + ' ...'}: write {wanted}")


def records(
  traces: Sequence[Trace], protocol: TurnProtocol, caps: Caps
) -> tuple[list[TreeRecord], collections.Counter[str]]:
  """The traces in a run's turn format, every trace a tree, and how many agents were left out, by the cap they exceed.

  An agent that is left out stays in its tree as one without tokens. An output longer than caps.output_tokens is cut, at
  a visible mark, as in a rollout.

  Raises:
    ValueError: the turn format does not give a cell back as it is written.
  """
  left_out: collections.Counter[str] = collections.Counter()
  out = []
  for group, trace in enumerate(traces):
    nodes = []
    for agent in trace.agents:
      tokens, is_action, over = _tokens(agent, protocol, caps)
      if over:
        left_out[over] += 1
      nodes.append(NodeRecord(tokens, is_action, [0.0] * len(tokens), agent.parent, agent.depth, agent.success))
    out.append(TreeRecord(nodes, group, True))
  return out, left_out


def _tokens(agent: Agent, protocol: TurnProtocol, caps: Caps) -> tuple[list[int], list[bool], str]:
  """(tokens, which of them the agent wrote, the cap that it exceeds or "")."""
  tokens = protocol.prompt(agent.goal)
  is_action = [False] * len(tokens)
  for i, (cell, output) in enumerate(agent.turns):
    own = protocol.script(cell)
    read = protocol.cell(own)
    if read is None or read.strip("\n") != cell.strip("\n"):
      raise ValueError(
        f"{_at(agent.place, f'turns[{i}].cell')}: the turn format reads {read!r} where {cell!r} is written: leave out "
        "what it takes for its own marks"
      )
    if len(own) > caps.turn_tokens:
      return [], [], "turn_tokens"
    shown = protocol.output(output, caps.output_tokens) if i < len(agent.turns) - 1 else []
    tokens += [*own, *shown]
    is_action += [True] * len(own) + [False] * len(shown)
  if len(tokens) > caps.window:
    return [], [], "window"
  return tokens, is_action, ""


def texts(traces: Sequence[Trace]) -> list[str]:
  """What a tokenizer for such traces will meet: goals, cells, outputs."""
  out = []
  for trace in traces:
    for agent in trace.agents:
      out.append(agent.goal)
      out += [text for turn in agent.turns for text in turn]
  return out


def best(traces: Sequence[Trace]) -> list[Trace]:
  """Of each task the trace whose root has the most success; among equals the one with the fewest turns, in all."""
  turns = lambda trace: sum(len(agent.turns) for agent in trace.agents)
  found: dict[str, Trace] = {}
  for trace in traces:
    rank = lambda t: (-t.agents[0].success, turns(t))
    if trace.task not in found or rank(trace) < rank(found[trace.task]):
      found[trace.task] = trace
  return list(found.values())


def agent_line(agent: Agent) -> str:
  """An agent as a line of its own."""
  turns = [{"cell": cell, "output": output} for cell, output in agent.turns]
  return json.dumps({"goal": agent.goal, "turns": turns, "success": agent.success})


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m rao_jax.traces", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("files", nargs="+", help="JSONL files, or patterns with *")
  parser.add_argument("--least_success", type=float, default=0.0, help="keep what has at least this; default all")
  parser.add_argument("--agents", action="store_true", help="every agent is a line of its own, and kept for itself")
  parser.add_argument("--best", action="store_true", help="keep the best trace of each task")
  parser.add_argument("--out", type=pathlib.Path, help="file that gets the lines that are kept")
  args = parser.parse_args(argv)
  if args.agents and args.best:
    parser.error("--best is for trees, --agents takes them apart: leave one out")
  try:
    traces = [trace for pattern in args.files for trace in read_traces(pattern)]
  except (ValueError, OSError) as e:
    parser.error(str(e))
  agents = [agent for trace in traces for agent in trace.agents if agent.turns]
  print(
    f"{len(traces)} traces, {len(agents)} agents, {sum(len(a.turns) for a in agents)} turns; success of the roots "
    f"{sum(t.agents[0].success for t in traces) / len(traces):.2f}"
  )
  if args.agents:
    kept = [agent_line(agent) for agent in agents if agent.success >= args.least_success]
  else:
    some = best(traces) if args.best else traces
    kept = [trace.line for trace in some if trace.agents[0].success >= args.least_success]
  if args.out:
    args.out.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    print(f"{len(kept)} lines in {args.out}")


if __name__ == "__main__":
  main()
