"""What tasks of the small profile cost in nodes and tokens, if every agent is perfect.

python -m rao_jax.envs.textcraft.statistics
"""

from rao_jax.envs.base import Task
from rao_jax.envs.textcraft import script
from rao_jax.envs.textcraft import tasks as task_lib
from rao_jax.envs.textcraft.env import TextCraft
from rao_jax.envs.textcraft.windows import window_needed
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.interpreter import Interpreter, MontyInterpreter
from rao_jax.rollout.protocol import CONTROLS, CompactProtocol
from rao_jax.rollout.scripted import play
from rao_jax.tokenizer import train_sentencepiece

WINDOWS = (128, 192, 256, 320, 384, 448, 512, 640)


def statistics(
  tasks: dict[str, list[Task]], interpreter: Interpreter, cell_cap: int = 64
) -> dict[str, dict[str, list]]:
  """What the perfect recursive tree and the single oracle cost.

  Args:
    tasks: difficulty -> tasks.
    interpreter: where the cells run.
    cell_cap: tokens of a cell of the oracle.
  Returns:
    difficulty -> lists over tasks: `closure` (distinct craftable items), `nodes`, `depth`, `tree_ok`, `single_ok`,
    `single_window` (the smallest that holds the oracle); and over nodes: `node_tokens`, `node_parts` (ingredients).
  """
  environment = TextCraft()
  protocol = CompactProtocol(train_sentencepiece([], CONTROLS, environment.pieces, 0))
  wide = dict(max_turns=1000, window=1 << 20, output_tokens=1 << 14)
  caps = Caps(max_depth=64, max_nodes=1024, turn_tokens=1 << 14, **wide)
  alone = Caps(max_depth=0, turn_tokens=cell_cap, **wide)
  result = {}
  for difficulty, some in tasks.items():
    rows: dict[str, list] = {}
    for task in some:
      tree = play(Tree(environment, task, caps, protocol, interpreter), script.recursive, protocol, 0)
      oracle = lambda goal, _: script.oracle_single(goal, cell_cap)
      single = play(Tree(environment, task, alone, protocol, interpreter), oracle, protocol, 0).root
      row = {
        "closure": len(task.data["gold"]),
        "nodes": len(tree.nodes),
        "depth": max(node.depth for node in tree.nodes),
        "tree_ok": tree.root.success,
        "single_ok": single.success,
        "single_window": window_needed(single, alone.min_turn),
      }
      for key, value in row.items():
        rows.setdefault(key, []).append(value)
      for node in tree.nodes:
        ((_, parts),) = script.read_info(node.turns[0].output).values()
        rows.setdefault("node_tokens", []).append(len(node.tokens))
        rows.setdefault("node_parts", []).append(len(parts))
    result[difficulty] = rows
  return result


def main(tasks_per_difficulty: int = 100) -> None:
  seeds = range(tasks_per_difficulty)
  tasks = {d: [task_lib.sample_task("dev", d, seed) for seed in seeds] for d in task_lib.DIFFICULTIES}
  with MontyInterpreter() as interpreter:
    costs = statistics(tasks, interpreter)
  for difficulty, rows in costs.items():
    print(f"{difficulty}: perfect tree succeeds {_mean(rows['tree_ok'])}, single oracle {_mean(rows['single_ok'])}")
    for key in ("closure", "nodes", "depth", "node_tokens", "single_window"):
      print(f"  {key:14} {_spread(rows[key])}")
    for parts in sorted(set(rows["node_parts"])):
      some = [n for n, p in zip(rows["node_tokens"], rows["node_parts"]) if p == parts]
      print(f"  node_tokens, {parts} ingredients, {len(some)} nodes: {_spread(some)}")
    fits = {w: _mean([needed <= w for needed in rows["single_window"]]) for w in WINDOWS}
    print("  oracle fits    " + "  ".join(f"{window}: {share}" for window, share in fits.items()))


def _mean(values: list) -> str:
  return f"{sum(values) / len(values):.2f}"


def _spread(values: list) -> str:
  ordered = sorted(values)
  at = {name: ordered[int(part * (len(ordered) - 1))] for name, part in (("median", 0.5), ("p90", 0.9), ("max", 1.0))}
  return f"mean {_mean(values)}  " + "  ".join(f"{name} {value}" for name, value in at.items())


if __name__ == "__main__":
  main()
