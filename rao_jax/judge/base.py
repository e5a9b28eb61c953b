"""What a judge is, and how the nodes of a batch get their verdicts: asked for as trees are done, taken before training.

By default the environment grades every node and nothing here runs. With `config.judge` another judge scores the nodes
below the roots; roots keep the environment's grade, which is what runs are compared by.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rao_jax.rollout.engine import Node, Tree

log = logging.getLogger(__name__)


class Judge(Protocol):
  """Scores one agent that has ended: what a user implements and names as `config.judge.kind=module:function`.

  Called from `config.judge.in_flight` threads while other trees are still at work. A score must depend on the node
  alone, or results depend on timing. What it raises means that there is no score: see `Verdicts`.
  """

  def __call__(self, node: Node) -> float:
    """A score in [0, 1]. `node` has `goal_text`, `turns` (each a cell and its output), `message`."""


class Verdict(Protocol):
  """A score to come; a `concurrent.futures.Future` is one."""

  def done(self) -> bool: ...

  def result(self) -> float:
    """The score, waited for if need be; raises if there is none."""


# What starts the verdicts on some nodes: the verdicts, and trees that the frontier must work for them, whose episodes
# know by `readable` whether a score was given.
Ask = Callable[[Sequence[Node]], tuple[Sequence[Verdict], Sequence[Tree]]]


class JudgeUnreachable(RuntimeError):
  """A judge gives no score, and the run is to end for it."""


class Verdicts:
  """The verdicts on one batch of trees.

  An agent without a finish message has success 0 and is not asked about: what a policy can cause is a score. A verdict
  that cannot be had is a fault of the harness and never a score.

  Args:
    ask: starts verdicts.
    roots: roots are judged too.
    children: nodes below the roots are judged.
    unreachable: where there is no verdict, `stop` raises JudgeUnreachable and `invalid` makes the tree invalid. Only
      trees with judged nodes can become invalid, so a judge that fails often biases the batch towards small trees.
  """

  def __init__(self, ask: Ask, roots: bool, children: bool, unreachable: str):
    self._ask, self._roots, self._children = ask, roots, children
    self._stop = unreachable == "stop"
    self._asked: list[tuple[Tree, Node, Verdict]] = []
    self._unseen: list[Verdict] = []
    self._work: list[Tree] = []

  def submit(self, tree: Tree) -> Sequence[Tree]:
    """A tree is done: asks about its nodes; returns trees that the frontier must work for that."""
    nodes = []
    for node in tree.nodes:
      if self._roots if node.parent is None else self._children:
        if node.message is None:
          node.success = 0.0
        else:
          nodes.append(node)
    verdicts, work = self._ask(nodes)
    self._asked += [(tree, node, verdict) for node, verdict in zip(nodes, verdicts, strict=True)]
    self._unseen += verdicts
    self._work += work
    return work

  def check(self) -> None:
    """Raises JudgeUnreachable if it is known that some verdict cannot be had and the run is to stop for it."""
    if self._stop:
      done = [verdict for verdict in self._unseen if verdict.done()]
      self._unseen = [verdict for verdict in self._unseen if verdict not in done]
      for verdict in done:
        self._score(verdict)

  def settle(self) -> dict[str, Any]:
    """Waits for all verdicts and puts them in place of the environment's grades, in the order of asking.

    Returns:
      what `verdict_metrics` takes, a JSON value.
    """
    scores, agreement = [], []
    for tree, node, verdict in self._asked:
      score = self._score(verdict)
      if isinstance(score, float):
        scores.append(score)
        agreement.append(1 - abs(score - node.success))
        node.success = score
      elif tree.fault is None:
        tree.fault = f"judge: {score!r}"
        log.error("tree of task %s is invalid: no verdict on %s: %r", tree.task.id, node.path, score)
    return {
      "nodes": len(self._asked),
      "scores": scores,
      "agreement": agreement,
      "trees": len(self._work),
      "tokens": sum(tree.ledger.sampled for tree in self._work),
      "unreadable": sum(not tree.episode.readable for tree in self._work),
    }

  def _score(self, verdict: Verdict) -> float | Exception:
    try:
      score = verdict.result()
      if not 0 <= score <= 1:
        raise ValueError(f"the judge gave {score!r}, not a number in [0, 1]")
      return float(score)
    except Exception as e:
      if self._stop:
        raise JudgeUnreachable(f"the judge gives no verdict: {e or repr(e)}") from e
      return e


def verdict_metrics(settled: Sequence[dict[str, Any]]) -> dict[str, float]:
  """What verdicts came to, from what `Verdicts.settle` gave on each process.

  Returns:
    `judge/...`: nodes asked about, those without a verdict, the mean score and its agreement with the environment's own
    grade, the mean of 1 - |score - grade|; of trees worked for verdicts the tokens sampled, and how many gave no score
    that could be read.
  """
  total = lambda name: sum(one[name] for one in settled)
  scores, agreement = ([x for one in settled for x in one[name]] for name in ("scores", "agreement"))
  out = {"judge/nodes": total("nodes"), "judge/failed": total("nodes") - len(scores)}
  if scores:
    out |= {"judge/score": math.fsum(scores) / len(scores), "judge/agreement": math.fsum(agreement) / len(scores)}
  if total("trees"):
    out |= {"judge/tokens": total("tokens"), "judge/unreadable": total("unreadable")}
  return out
