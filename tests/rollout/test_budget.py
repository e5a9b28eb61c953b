"""The shared budget: one pool of turns for a tree, handed down by launches and paid back."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rao_jax.rollout.budget import Account, Caps, take_steps
from rao_jax.rollout.engine import Node, Outcome, Status, Tree
from tests.rollout.logged import TASK, Logged, by_path, outputs


@pytest.fixture
def pool(work):
  return lambda turns, scripts, **changes: work(scripts, budget="shared", max_turns=turns, **changes)


def launch(goal, steps):
  return f"launch_subagent('{goal}', num_steps={steps})"


def gather(*launches):
  return f"await asyncio.gather({', '.join(launches)})"


def test_a_launch_sets_its_turns_and_one_aside_and_gets_back_what_was_not_used(start, byte_protocol):
  tree = start(budget="shared", max_turns=10)

  def turn(code):
    (node,) = tree.acting()
    tokens = byte_protocol.script(code)
    tree.sample(node, tokens, [0.0] * len(tokens))
    tree.advance()
    return tree.ledger.accounts

  assert turn(f"await {launch('a', 4)}") == {(): Account(10, used=1, reserved=5), (0,): Account(4)}
  assert tree.ledger.accounts[()].left == 4
  assert turn("note(1)")[(0,)] == Account(4, used=1)
  # The child ends after two turns: the pool has paid 1 + 2.
  assert turn("finish('A')") == {(): Account(10, used=3), (0,): Account(4, used=2)}
  assert tree.ledger.accounts[()].left == 7
  assert turn("finish(1)")[()] == Account(10, used=4)
  assert tree.done and tree.ledger.turns == 4


@pytest.mark.parametrize(
  "steps, answer",
  [
    (4, "A"),  # after its first turn the root has 5 of 6 left
    (5, "Error: num_steps=5 takes 6 turns, 5 left: ask for fewer or do it yourself"),
  ],
)
def test_a_launch_is_refused_when_fewer_turns_than_its_own_and_one_are_left(pool, steps, answer):
  tree = pool(6, {"root": [f"await {launch('a', steps)}", "finish(1)"], "a": ["finish('A')"]})
  assert outputs(tree.root)[0] == answer
  assert tree.ledger.refused == ({} if answer == "A" else {"turns": 1})


def test_of_launches_gathered_a_later_one_is_refused(pool):
  """9 are left: 3 + 1 and 4 + 1 take them all."""
  launches = gather(launch("a", 3), launch("a", 4), launch("a", 1))
  tree = pool(10, {"root": [launches, "finish(1)"], "a": ["finish('A')"]})
  refusal = "Error: num_steps=1 takes 2 turns, 0 left: ask for fewer or do it yourself"
  assert outputs(tree.root)[0] == str(["A", "A", refusal])
  assert tree.ledger.accounts == {(): Account(10, used=4), (0,): Account(3, used=1), (1,): Account(4, used=1)}


def test_of_launches_gathered_one_that_asks_too_much_leaves_its_turns_to_the_next(pool):
  launches = gather(launch("a", 3), launch("a", 5), launch("a", 4))
  tree = pool(10, {"root": [launches, "finish(1)"], "a": ["finish('A')"]})
  assert [node.path for node in tree.nodes] == [(), (0,), (2,)]
  assert tree.ledger.refused == {"turns": 1}


def test_a_child_pays_for_all_below_it(pool):
  """a: 1 turn, 2 of its child that runs out, 1 turn to read that; the root pays the 4 and its own 2."""
  tree = pool(
    9,
    {
      "root": [f"await {launch('a', 5)}", "finish(1)"],
      "a": [f"note(await {launch('b', 2)})", "finish('A')"],
      "b": ["note(1)", "note(2)", "finish('late')"],
    },
  )
  assert tree.ledger.accounts == {(): Account(9, used=6), (0,): Account(5, used=4), (0, 0): Account(2, used=2)}
  assert by_path(tree)[(0, 0)].outcome is Outcome.TURN_CAP
  assert tree.episode.only("note")[-1] == ("note", (0,), "Error: turn_cap")


def test_the_turn_set_aside_lets_a_parent_read_the_last_result(pool):
  tree = pool(3, {"root": [f"x = await {launch('a', 1)}", "finish(x)"], "a": ["finish(.5)"]})
  assert (tree.root.message, tree.ledger.accounts[()]) == (0.5, Account(3, used=3))
  tree = pool(3, {"root": [f"x = await {launch('a', 1)}", "note(x)", "finish(x)"], "a": ["finish(.5)"]})
  assert (tree.root.outcome, tree.ledger.turns) == (Outcome.TURN_CAP, 3)


def test_turns_come_back_from_cell_to_cell(pool):
  """Ten launches of up to 3 turns each from a pool of 25: each takes one in the end, besides the root's own."""
  cells = [f"await {launch('a', 3)}\nnote({i})" for i in range(10)]
  tree = pool(25, {"root": [*cells, "finish(1)"], "a": ["finish('A')"]})
  assert len(tree.nodes) == 11 and tree.ledger.accounts[()] == Account(25, used=21)
  assert not tree.ledger.refused


@pytest.mark.parametrize(
  "arguments", ["'a'", "'a', num_steps=0", "'a', num_steps=-3", "'a', 2.0", "'a', '3'", "'a', num_steps=True", ""]
)
def test_a_launch_without_a_number_of_turns_is_told_what_is_missing(pool, arguments):
  tree = pool(9, {"root": [f"await launch_subagent({arguments})", "finish(1)"]})
  assert outputs(tree.root)[0].startswith("Error: launch_subagent needs num_steps, the turns of the subagent: ")
  assert tree.ledger.refused == {"num_steps": 1} and not tree.episode.only("asks")


@pytest.mark.parametrize(
  "args, kwargs, taken",
  [
    (("g", 3), {}, (3, ("g",), {})),
    (("g", 3, "c"), {}, (3, ("g", "c"), {})),
    (("g",), {"num_steps": 3, "context": "c"}, (3, ("g",), {"context": "c"})),
    (("g", "c"), {"num_steps": 3}, (3, ("g", "c"), {})),
    ((), {"goal": "g", "num_steps": 3}, (3, (), {"goal": "g"})),
    (("g",), {}, (None, ("g",), {})),
    ((), {}, (None, (), {})),
  ],
)
def test_the_episode_sees_a_launch_without_its_number_of_turns(args, kwargs, taken):
  assert take_steps(args, kwargs) == taken


def test_a_number_of_turns_may_stand_in_second_place(pool):
  tree = pool(9, {"root": ["await launch_subagent('a', 2)", "finish(1)"], "a": ["finish('A')"]})
  assert tree.ledger.accounts[(0,)].budget == 2 and tree.episode.only("asks") == [("asks", (), "a")]


def test_with_a_budget_per_agent_num_steps_is_the_episodes_affair(work):
  tree = work({"root": [f"await {launch('a', 2)}", "finish(1)"]})
  assert outputs(tree.root)[0] == "Error: a goal is one text"


def test_every_agent_is_told_its_own_turns(pool):
  tree = pool(9, {"root": [f"await {launch('a', 3)}", "finish(1)"], "a": ["finish('A')"]})
  assert [node.goal_text for node in tree.nodes] == ["root\nTurns: 9", "a\nTurns: 3"]


def test_depth_and_nodes_are_capped_as_well(pool):
  scripts = {"root": [f"await {launch('a', 20)}", "finish(1)"], "a": [f"note(await {launch('a', 2)})", "finish('A')"]}
  tree = pool(30, scripts, max_depth=1)
  assert tree.episode.only("note") == [("note", (0,), "Error: depth cap 1 reached, do it yourself")]
  tree = pool(30, scripts, max_nodes=2)
  assert tree.episode.only("note") == [("note", (0,), "Error: node cap 2 reached, do it yourself")]
  assert tree.ledger.accounts[()] == Account(30, used=4)  # nothing stays set aside for a launch that is refused


# --- random agents ----------------------------------------------------------------------------------------------------


def random_cell(rng):
  """Notes, errors, and launches of all kinds with random numbers of turns."""
  some = lambda: launch(rng.choice(["a", "a", "a", "no"]), rng.choice([0, 1, 1, 2, 3, 5, 8]))
  return rng.choice(
    [
      lambda: f"note({rng.random()})",
      lambda: "(",
      lambda: "await launch_subagent('a')",
      lambda: f"await {some()}",
      lambda: gather(some(), some(), some()),
      lambda: gather(some(), some(), some()),
      lambda: f"await {some()}\nawait {some()}",
      lambda: some(),
      lambda: f"await {some()}\nfinish(1)",
      lambda: "finish(1)",
    ]
  )()


def work_watched(tree, protocol, seed):
  """Plays with random agents and checks the books whenever agents act again."""
  sources, accounts = {}, tree.ledger.accounts
  while not tree.done:
    for node in tree.acting():
      rng = sources.setdefault(node.path, random.Random(f"{seed} {node.path}"))
      tokens = protocol.script(random_cell(rng))
      tree.sample(node, tokens, [0.0] * len(tokens))
    tree.advance()
    for node in tree.nodes:
      account = accounts[node.path]
      awaited = [child.path for _, child in node.pending if isinstance(child, Node)]
      assert account.reserved == sum(accounts[path].budget + 1 for path in awaited)
      assert 0 <= account.used <= account.budget - account.reserved
      assert account.left >= (node.status is Status.ACTING)
  return tree


POOLS = st.fixed_dictionaries(
  {"max_turns": st.integers(1, 40), "max_depth": st.integers(1, 4), "max_nodes": st.integers(1, 20)}
)


@given(caps=POOLS, seed=st.integers(0, 10**6))
@settings(max_examples=150)
def test_turns_sum_up_the_tree_and_no_subtree_takes_more_than_it_was_given(byte_protocol, interpreter, caps, seed):
  caps = Caps(budget="shared", window=4096, turn_tokens=256, output_tokens=256, **caps)
  tree = work_watched(Tree(Logged(), TASK, caps, byte_protocol, interpreter), byte_protocol, seed)
  accounts, own = tree.ledger.accounts, {node.path: len(node.turns) for node in tree.nodes}
  assert accounts.keys() == own.keys()
  for path, account in accounts.items():
    below = sum(turns for p, turns in own.items() if p[: len(path)] == path)
    assert account.used == below <= account.budget and account.reserved == 0
  assert accounts[()].used == tree.ledger.turns == sum(own.values()) <= caps.max_turns
  for node in tree.nodes:
    assert (node.outcome is Outcome.TURN_CAP) <= (accounts[node.path].left == 0)
  assert sum(node.launch_base for node in tree.nodes) == len(tree.nodes) - 1 + sum(tree.ledger.refused.values())


def test_random_agents_run_out_of_turns_in_every_way(byte_protocol, interpreter):
  """Else the property above would hold for want of trying."""
  outcomes, refused, depths = Counter(), Counter(), Counter()
  for seed in range(60):
    caps = Caps(budget="shared", max_turns=5 + seed % 30, window=4096, turn_tokens=256, output_tokens=256)
    tree = work_watched(Tree(Logged(), TASK, caps, byte_protocol, interpreter), byte_protocol, seed)
    outcomes.update(node.outcome for node in tree.nodes)
    depths.update(node.depth for node in tree.nodes if node.outcome is Outcome.TURN_CAP)
    refused.update(tree.ledger.refused)
  assert {Outcome.FINISHED, Outcome.TURN_CAP} <= set(outcomes)
  assert {"turns", "num_steps", "goal"} <= set(refused) and {0, 1, 2} <= set(depths)
