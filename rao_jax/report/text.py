"""A tree as text, for a terminal. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rao_jax.report.data import common_start
from rao_jax.report.trees import success_of

# Texts come from a model: what moves a cursor, changes colours or the direction of writing is shown, not done.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
  return CONTROL.sub(lambda match: f"<{ord(match[0]):02x}>", text)


def mark(node: Mapping[str, Any]) -> str:
  """A dot for an agent whose success is not known, as it is still at work."""
  if node.get("success") is None:
    return "\u00b7"
  success = success_of(node)
  return "\u2713" if success >= 1 else "\u2717" if success <= 0 else "\u00bd"


def tree_text(tree: Mapping[str, Any], width: int = 100) -> str:
  """One line for each agent, its children below it.

  Args:
    tree: from `read_tree`.
    width: of the lines, in characters; goals are cut to it.
  """
  nodes = tree["nodes"]
  last_child = {node["parent"]: i for i, node in enumerate(nodes)}
  sampled = sum(node.get("sampled") or 0 for node in nodes)
  lines = [
    visible(f"{tree.get('task', 'task ?')}, step {tree.get('step', '?')}: {_success(nodes[0])}"),
    f"{_count(len(nodes), 'agent')}, depth {max(node['depth'] for node in nodes)}, {sampled:,} tokens sampled",
    visible(str(nodes[0].get("goal", ""))),
    "",
  ]
  goals = [" ".join(visible(str(node.get("goal", ""))).split()) for node in nodes]
  # What all goals begin with, up to a space, is told once above: the rest tells the agents apart.
  skip = common_start(goals).rfind(" ") + 1 if len(nodes) > 1 else 0
  rails = [""] * len(nodes)  # in front of the children of a node
  for i, node in enumerate(nodes):
    before = ""
    if i:
      closing = last_child[node["parent"]] == i
      before = rails[node["parent"]] + ("\u2514\u2500 " if closing else "\u251c\u2500 ")
      rails[i] = rails[node["parent"]] + ("   " if closing else "\u2502  ")
    head, facts = f"{before}{mark(node)} {name(node)}  ", f"  [{', '.join(_facts(node))}]"
    goal, room = goals[i][skip:], max(width - len(head) - len(facts), 20)
    lines.append(head + (goal if len(goal) <= room else goal[: room - 1].rstrip() + "\u2026") + facts)
  return "\n".join(lines)


def node_text(tree: Mapping[str, Any], path: Sequence[int]) -> str:
  """An agent's goal, figures and turns; a ValueError if there is no agent at `path`."""
  node = next((node for node in tree["nodes"] if node["path"] == list(path)), None)
  if node is None:
    raise ValueError(f"no agent {'.'.join(map(str, path))} in this tree: print the tree to see their names")
  lines = [f"{mark(node)} {name(node)}  [{', '.join(_facts(node))}]", visible(str(node.get("goal", "")))]
  for i, turn in enumerate(node.get("turns") or (), 1):
    lines += ["", f"turn {i}", *_indented(turn.get("cell"), ">>> "), *_indented(turn.get("output"), "    ")]
  return "\n".join(lines)


def name(node: Mapping[str, Any]) -> str:
  return ".".join(map(str, node["path"])) or "root"


def _indented(text: Any, margin: str) -> list[str]:
  return [margin + line for line in visible(str(text or "")).splitlines()]


def _success(node: Mapping[str, Any]) -> str:
  success = success_of(node)
  return "solved" if success >= 1 else "not solved" if success <= 0 else f"score {success:.3g}"


def _count(n: int, what: str) -> str:
  return f"{n:,} {what}" + "s" * (n != 1)


def _facts(node: Mapping[str, Any]) -> list[str]:
  facts = [visible(str(node.get("outcome", "?"))), _count(len(node.get("turns") or ()), "turn")]
  if 0 < success_of(node) < 1:
    facts.append(f"score {success_of(node):.3g}")
  if node.get("sampled") is not None:
    facts.append(f"{node['sampled']:,} tokens")
  facts += [f"{key} {node[key]:+.3g}" for key in ("advantage",) if node.get(key) is not None]
  return facts
