"""Critical path, waves, routers, shares of trees worked by hand. A token is a character, and one more ends a turn."""

import pytest

from rao_jax.rollout.engine import Node
from rao_jax.rollout.summary import critical_path, is_router, launched_in_parallel, tree_line, tree_metrics
from rao_jax.rollout.transfer import from_bytes, to_bytes
from tests.rollout.logged import by_path

# The cells of the tree below, and what each of them costs.
GATHER = "r = await asyncio.gather(launch_subagent('a'), launch_subagent('b'))\nawait launch_subagent('c')"
END = "finish(1)"
LONG = "x = 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'\nfinish(1)"


def node(parent, index, tokens, wave=None):
  """An agent that sampled `tokens` and read one."""
  path = () if parent is None else (*parent.path, index)
  made = Node(path, parent, None, str(path), [0] * (tokens + 1), wave=wave)
  made.is_action = [False] + [True] * tokens
  return made


def test_critical_path_takes_the_longest_of_a_wave_and_all_waves_of_an_agent():
  root = node(None, 0, 10)
  a, b = node(root, 0, 5, (0, 0)), node(root, 1, 7, (0, 0))  # side by side
  c = node(root, 2, 3, (0, 1))  # the same cell, after a and b
  d, e = node(root, 3, 1, (1, 0)), node(root, 4, 2, (1, 0))  # a later cell
  f, g = node(a, 0, 4, (0, 0)), node(a, 1, 6, (2, 0))  # one after the other: a takes 5 + 4 + 6 = 15
  nodes = [root, a, b, c, d, e, f, g]
  assert critical_path(nodes) == 10 + 15 + 3 + 2
  assert launched_in_parallel(nodes) == 4  # a and b, d and e
  assert critical_path([root]) == 10 and launched_in_parallel([root]) == 0


def test_critical_path_of_a_chain_is_all_of_it_and_of_a_fan_its_longest():
  chain = [node(None, 0, 2)]
  for tokens in (3, 4, 5):
    chain.append(node(chain[-1], 0, tokens, (0, 0)))
  assert critical_path(chain) == 2 + 3 + 4 + 5
  fan = [node(None, 0, 2)]
  fan += [node(fan[0], i, tokens, (0, 0)) for i, tokens in enumerate((3, 4, 5))]
  assert critical_path(fan) == 2 + 5 and launched_in_parallel(fan) == 3


@pytest.fixture
def tree(work):
  """Root, with a and b in one gather and then c in the same cell; c launches d alone."""
  return work({"root": [GATHER, END], "a": [LONG], "b": [END], "c": ["await launch_subagent('d')", END], "d": [END]})


def test_the_engine_tells_the_waves_of_a_cell_apart(tree):
  assert {path: n.wave for path, n in by_path(tree).items()} == {
    (): None, (0,): (0, 0), (1,): (0, 0), (2,): (0, 1), (2, 0): (0, 0),
  }  # fmt: skip
  cost = lambda *cells: sum(len(cell) + 1 for cell in cells)
  launch = "await launch_subagent('d')"
  assert tree.ledger.sampled == cost(GATHER, END, LONG, END, launch, END, END)
  assert critical_path(tree.nodes) == cost(GATHER, END) + cost(LONG) + cost(launch, END, END)
  assert [n["wave"] for n in tree_line(tree, 1, 0)["nodes"]] == [n.wave for n in tree.nodes]


def test_metrics_of_a_tree_worked_by_hand(tree):
  m = tree_metrics([tree], "x")
  assert m["x/nodes_per_tree"] == 5 and m["x/max_depth"] == m["x/depth_reached"] == 2
  assert m["x/branching"] == 2.0  # four children of two parents
  assert m["x/parallel_share"] == 0.5  # a and b, of four
  assert m["x/tokens_per_tree"] == tree.ledger.sampled and m["x/critical_path"] == critical_path(tree.nodes)
  assert m["x/children_share"] == pytest.approx(1 - (len(GATHER) + len(END) + 2) / tree.ledger.sampled)
  assert m["x/never_delegates"] == m["x/router_roots"] == m["x/refused_at_caps"] == m["x/truncated_by_context"] == 0


def test_a_wave_and_a_call_reach_other_processes(tree, start):
  there = start()
  from_bytes(to_bytes([tree]), [there])
  assert [(n.wave, n.calls) for n in there.nodes] == [(n.wave, n.calls) for n in tree.nodes]
  assert tree_metrics([there], "x") == tree_metrics([tree], "x")


def test_means_are_over_trees_and_branching_over_parents(work, tree):
  alone = work({"root": [END]})
  m = tree_metrics([tree, alone], "x")
  assert m["x/nodes_per_tree"] == 3 and m["x/depth_reached"] == 1 and m["x/max_depth"] == 2
  assert m["x/branching"] == 2.0 and m["x/parallel_share"] == 0.5 and m["x/never_delegates"] == 0.5
  assert m["x/critical_path"] == (critical_path(tree.nodes) + len(END) + 1) / 2


@pytest.mark.parametrize(
  ("root", "router"),
  [
    (["finish(await launch_subagent('a'))"], True),  # nothing but hand on
    (["finish(await asyncio.gather(launch_subagent('a'), launch_subagent('a')))"], True),  # twice the same
    (["note(1)\nfinish(await launch_subagent('root'))"], True),  # its own task, after a look
    (["note(1)\nfinish(await launch_subagent('a'))"], False),  # does something itself
    (["finish(await asyncio.gather(launch_subagent('a'), launch_subagent('b')))"], False),  # splits
    (["finish(1)"], False),
  ],
)
def test_router_hands_all_on(work, root, router):
  tree = work({"root": root, "a": [END], "b": [END]}, max_depth=1)
  assert is_router(tree) == router


def test_refusals_at_caps_are_a_share_of_launches_and_bad_goals_are_not_among_them(work):
  cell = "await asyncio.gather(*[launch_subagent(g) for g in ('a', 'b', 'no', 'c', 'd')])"
  tree = work({"root": [cell, END], "a": [END], "b": [END]}, launches_per_cell=2)
  assert tree.ledger.refused == {"launches": 2, "goal": 1}
  assert tree_metrics([tree], "x")["x/refused_at_caps"] == 2 / 4


def test_only_a_full_window_counts_as_truncated_by_context(work):
  say = lambda n: f"print('{'x' * n}')"
  full = work({"root": [say(30), say(30), say(30), END]}, window=200, output_tokens=64)
  assert tree_metrics([full], "x")["x/truncated_by_context"] == 1.0
  cut = work({"root": [say(60), END]}, turn_tokens=20)
  m = tree_metrics([cut], "x")
  assert m["x/outcome/truncated"] == 1.0 and m["x/truncated_by_context"] == 0.0
