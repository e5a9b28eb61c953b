"""Trees of agents: our frontier against the ways in which such agents are usually run, over the same recorded trees.

  make bench-trees          or: python -m benchmarks.trees [--trees=128,8] [--recording=evaluation] [--rounds=5]

The trees are the demo's tasks (benchmarks/record_trees.py), the policy is the demo's. All sides run the frontier's own
compiled programs, keep every agent's cache, and replay the recording: what is sampled is drawn as always, then the turn
goes on with the recorded length. Cells take no time. The sides:

  frontier   all acting agents of all trees, in slices; rows leave and enter between slices
  one        one agent at a time, children inside their parent's cell
  roots      a turn of all roots at once; the children of a cell one by one
  server     every agent a coroutine, siblings at once; a server takes what has arrived, a batch at a time, to the end
             of its longest turn

Sequential decode steps are counted. The seconds of `one` and `roots` are those of 8 trees, scaled by their steps. The
critical path is the longest chain of turns of one tree, each of which waits for the one before: what unlimited rows
would leave. The headroom is what batching can give on this machine: the time a row and token takes in a batch of one,
over that at the frontier's mean width, measured in the same run. About 3 minutes.
"""

import argparse
import asyncio
import time
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.recorded import NodeTrace, RecordedTree, TreeTrace, load
from benchmarks.sides import Summary, alternate, medians, print_table
from experiments.demo import get_config
from rao_jax.config import policy_config
from rao_jax.mesh import ROLLOUT_RULES, Rules, make_mesh
from rao_jax.policy.transformer import Params, init_params
from rao_jax.rollout.collect import collect
from rao_jax.rollout.engine import Node, Status
from rao_jax.rollout.frontier import Frontier

VOCABULARY = 512  # at least that of the demo's tokenizer
ROWS = (4, 8, 12, 16, 24, 32, 64)
END = VOCABULARY - 1  # masked: turns end where the recorded ones do
SIDES = ("frontier", "one", "roots", "server")
FEW = 8  # trees on which the slow sides are timed
ENDLESS = NodeTrace([(9, 1 << 20)], [[]])
Work = list[tuple[RecordedTree, Node]]


class Sides:
  """The four ways; each works fresh trees to their end."""

  def __init__(self, traces: list[TreeTrace]):
    self._traces = traces
    config = get_config("recursive")
    r, policy = config.rollout, policy_config(config, VOCABULARY)
    rules = Rules.of(make_mesh(devices=jax.devices()[:1]), ROLLOUT_RULES)
    mask = np.arange(VOCABULARY) != END
    self._params: Params = jax.jit(lambda key: init_params(policy, key))(jax.random.key(0))
    slots = max(sum(map(len, traces)), ROWS[-1])  # so that no side ever computes a cache again
    self.of_rows = lambda rows: Frontier(policy, rules, mask, END, rows, r.cache_ladder, r.steps, r.chunk, slots)
    self.wide, self.single = self.of_rows(ROWS), self.of_rows((1,))
    self._arranged = self.wide.begin(self._params)

  def trees(self) -> list[RecordedTree]:
    return [RecordedTree(trace, VOCABULARY - 1, number) for number, trace in enumerate(self._traces)]

  def frontier(self) -> None:
    collect(self._params, self.trees(), self.wide, 1.0)

  def turns(self, frontier: Frontier, work: Work) -> None:
    """Samples one turn of every node, together, to the end of the longest."""
    while work := [(tree, node) for tree, node in work if node.status is Status.ACTING]:
      plan = frontier.plan(work)
      for tree, node, tokens, logps in frontier.run(self._arranged, plan, frontier.rows(plan), 1.0):
        tree.sample(node, tokens, logps)

  def alone(self, tree: RecordedTree, node: Node) -> None:
    """Works a node and all below it, one agent at a time."""
    while node.status is not Status.ENDED:
      self.turns(self.single, [(tree, node)])
      self.cell(tree, node)

  def cell(self, tree: RecordedTree, node: Node) -> None:
    while children := tree.launch(node):
      for child in children:
        self.alone(tree, child)
    tree.go_on(node)

  def one(self) -> None:
    for tree in self.trees():
      self.alone(tree, tree.root)
    self.single.release_ended()

  def roots(self) -> None:
    acting = self.trees()
    while acting:
      self.turns(self.wide, [(tree, tree.root) for tree in acting])
      for tree in acting:
        self.cell(tree, tree.root)
      acting = [tree for tree in acting if tree.root.status is not Status.ENDED]
    self.wide.release_ended()
    self.single.release_ended()

  def server(self) -> None:
    asyncio.run(self._serve())
    self.wide.release_ended()

  async def _serve(self) -> None:
    waiting: asyncio.Queue = asyncio.Queue()

    async def turn(tree: RecordedTree, node: Node) -> None:
      done = asyncio.get_running_loop().create_future()
      waiting.put_nowait((tree, node, done))
      await done

    async def agent(tree: RecordedTree, node: Node) -> None:
      while node.status is not Status.ENDED:
        await turn(tree, node)
        while children := tree.launch(node):
          await asyncio.gather(*(agent(tree, child) for child in children))
        tree.go_on(node)

    async def serve() -> None:
      while True:
        batch = [await waiting.get()]
        await asyncio.sleep(0)  # lets every coroutine that can go on ask
        while not waiting.empty() and len(batch) < ROWS[-1]:
          batch.append(waiting.get_nowait())
        self.turns(self.wide, [(tree, node) for tree, node, _ in batch])
        for *_, done in batch:
          done.set_result(None)

    server = asyncio.ensure_future(serve())
    await asyncio.gather(*(agent(tree, tree.root) for tree in self.trees()))
    server.cancel()

  def steps(self, run: Callable[[], None]) -> int:
    """Sequential decode steps of a side."""
    before = self.wide.decode_steps + self.single.decode_steps
    run()
    return self.wide.decode_steps + self.single.decode_steps - before

  def token_seconds(self, frontier: Frontier, rows: int) -> float:
    """What a decode step of full batches takes for a row, median of 20 slices."""
    trees, seconds = [RecordedTree([ENDLESS], VOCABULARY - 1, i) for i in range(rows)], []
    for _ in range(21):
      work = [(tree, tree.root) for tree in trees]
      plan = frontier.plan(work)
      began = time.perf_counter()
      frontier.run(self._arranged, plan, frontier.rows(plan), 1.0)
      seconds.append(time.perf_counter() - began)
      for tree in trees:
        tree.root.fed = 8
    for tree in trees:
      tree.close()
    frontier.release_ended()
    return float(np.median(seconds[1:])) / rows / frontier.steps


def critical_path(trace: TreeTrace) -> int:
  """Tokens read and sampled along the longest chain of a tree, but for prompts, which a chunk reads at once."""

  def below(number: int) -> int:
    node = trace[number]
    own = sum(read + sampled for read, sampled in node.turns) - node.turns[0][0]
    return own + sum(max(map(below, wave)) for waves in node.waves for wave in waves)

  return below(0)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--trees", default="128,8")
  parser.add_argument("--recording", default="evaluation", help="a name of benchmarks/data")
  parser.add_argument("--rounds", type=int, default=5)
  o = parser.parse_args()
  summary, recording = Summary(), load(o.recording)
  for count in map(int, o.trees.split(",")):
    traces, few = (recording[:: len(recording) // n][:n] for n in (count, min(count, FEW)))
    s, sample = Sides(traces), Sides(few)
    steps = {name: s.steps(getattr(s, name)) for name in SIDES}
    before = s.wide.counts.copy()
    s.frontier()
    c = s.wide.counts - before
    width = (c["row_steps"] - c["empty_steps"]) / steps["frontier"]
    slow = {name: steps[name] / sample.steps(getattr(sample, name)) for name in ("one", "roots")}
    sides = {name: getattr(sample if name in slow else s, name) for name in SIDES}
    seconds = {name: t * slow.get(name, 1) for name, t in medians(alternate(sides, o.rounds)).items()}
    rows = round(width)
    headroom = s.token_seconds(s.single, 1) / s.token_seconds(s.of_rows((rows,)), rows)
    path = max(map(critical_path, traces))
    print(
      f"{count} trees, {sum(map(len, traces))} agents: critical path {path} tokens; the frontier holds {width:.1f} "
      f"agents a step, occupancy {c['fed'] / c['row_steps']:.2f}; headroom of {rows} rows {headroom:.2f}"
    )
    print_table(
      ["side", "decode steps", "over frontier's", "seconds", "over frontier's"],
      [[n, steps[n], steps[n] / steps["frontier"], seconds[n], seconds[n] / seconds["frontier"]] for n in SIDES],
    )
    summary.ratio(f"steps_one_{count}", steps["one"] / steps["frontier"], 10)
    summary.ratio(f"steps_roots_{count}", steps["roots"] / steps["frontier"], 3)
    summary.ratio(f"steps_server_{count}", steps["server"] / steps["frontier"])
    summary.ratio(f"critical_path_{count}", path / steps["frontier"])
    summary.ratio(f"seconds_one_of_headroom_{count}", seconds["one"] / seconds["frontier"] / headroom, 0.7)
    for name in ("roots", "server"):
      summary.ratio(f"seconds_{name}_{count}", seconds[name] / seconds["frontier"])
    summary.medians |= {f"seconds_{name}_{count}": value for name, value in seconds.items()}
    summary.medians |= {f"headroom_{count}": headroom, f"width_{count}": width}
  summary.print()


if __name__ == "__main__":
  main()
