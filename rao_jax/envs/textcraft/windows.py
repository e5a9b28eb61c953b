"""Which tasks fit which context window: the yardstick by which a window is chosen before anything is trained."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ml_collections import ConfigDict

from rao_jax.envs.base import Environment, Task
from rao_jax.envs.textcraft.script import oracle_single
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Node, Tree
from rao_jax.rollout.interpreter import MontyInterpreter
from rao_jax.rollout.protocol import CONTROLS, CompactProtocol
from rao_jax.rollout.scripted import play
from rao_jax.tokenizer import train_sentencepiece


def window_needed(node: Node, min_turn: int) -> int:
  """The smallest window in which a node would have come out the same: every turn had room to start and to end."""
  starts = [i for i in range(1, len(node.tokens)) if node.is_action[i] and not node.is_action[i - 1]]
  return max(len(node.tokens), starts[-1] + min_turn)


def share_by_window(
  environment: Environment, tasks: Mapping[str, Sequence[Task]], windows: Iterable[int], config: ConfigDict
) -> dict[str, dict[int, float]]:
  """Share of tasks that the strongest scripted agent solves alone, by difficulty and window.

  Args:
    environment: TextCraft.
    tasks: difficulty -> tasks.
    windows: context windows in tokens.
    config: its caps hold, but for the window and delegation; tokens are those of the environment's own pieces.
  """
  caps = Caps(**{**config.caps.to_dict(), "max_depth": 0})
  wide = dataclasses.replace(caps, window=1 << 20, max_turns=1000, output_tokens=1 << 14)
  protocol = CompactProtocol(train_sentencepiece([], CONTROLS, environment.pieces, 0))
  shares = {}
  with MontyInterpreter() as interpreter:
    for difficulty, some in tasks.items():
      needs = []
      for task in some:
        tree = play(
          Tree(environment, task, wide, protocol, interpreter),
          lambda goal, _: oracle_single(goal, caps.turn_tokens),
          protocol,
          0,
        )
        needs.append(window_needed(tree.root, caps.min_turn) if tree.root.success else float("inf"))
      shares[difficulty] = {w: sum(need <= w for need in needs) / len(needs) for w in windows}
  return shares
