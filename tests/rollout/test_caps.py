"""Caps: what a tree may not do, and the texts that tell the model so."""

import pytest

from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Outcome
from rao_jax.rollout.interpreter import Limits, MontyInterpreter
from rao_jax.rollout.scripted import play
from tests.rollout.logged import LAUNCH_A, agents, by_path, outputs

# --- refused launches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "why, cell, caps, answer",
  [
    ("goal", "await launch_subagent('no')", {}, "Error: not that"),
    ("goal", "await launch_subagent()", {}, "Error: a goal is one text"),
    ("goal", "await launch_subagent('a', context='b')", {}, "Error: a goal is one text"),
    ("nodes", LAUNCH_A, {"max_nodes": 1}, "Error: node cap 1 reached, do it yourself"),
    # The root has read 6 tokens and written 29, the end token included: 17 are left of 52.
    (
      "room",
      LAUNCH_A,
      {"window": 52, "min_turn": 8, "result_tokens": 10, "output_tokens": 8},
      "Error: no room for the result in your context",
    ),
    # A prompt of 41 characters and two brackets leaves 7 of 50 tokens.
    (
      "prompt",
      "await launch_subagent('a'*41)",
      {"window": 50, "min_turn": 8, "result_tokens": 1, "output_tokens": 8},
      "Error: the goal is too long for a context of 50 tokens",
    ),
  ],
)
def test_a_refused_launch_is_a_string_for_the_model(work, why, cell, caps, answer):
  tree = work({"root": [f"x={cell}", "finish(x)"]}, **caps)
  assert tree.root.message == answer
  assert tree.ledger.refused == {why: 1}
  assert len(tree.nodes) == tree.ledger.nodes == 1


@pytest.mark.parametrize(
  "cell, caps",
  [
    (LAUNCH_A, {"max_nodes": 2}),
    (LAUNCH_A, {"window": 51, "min_turn": 8, "result_tokens": 10, "output_tokens": 8}),
    ("await launch_subagent('a'*40)", {"window": 50, "min_turn": 8, "result_tokens": 1, "output_tokens": 8}),
    (LAUNCH_A, {"max_depth": 1}),
    (LAUNCH_A, {"launches_per_cell": 1}),
  ],
)
def test_a_launch_right_at_its_cap_is_granted(work, cell, caps):
  tree = work({"root": [cell], "a": ["finish(1)"], "a" * 40: ["finish(1)"]}, **caps)
  assert not tree.ledger.refused
  assert len(tree.nodes) == tree.ledger.nodes == 2


def test_an_agent_at_the_depth_cap_is_told_to_do_it_itself(work):
  tree = work(
    {"root": ["finish(await launch_subagent('a'))"], "a": ["finish(await launch_subagent('a'))"]}, max_depth=1
  )
  assert tree.root.message == "Error: depth cap 1 reached, do it yourself"
  assert tree.ledger.refused == {"depth": 1}
  assert max(node.depth for node in tree.nodes) == 1


def test_every_cell_has_its_own_quota_of_launches_over_all_its_waits(work):
  gather = (
    "await asyncio.gather(launch_subagent('a'), launch_subagent('no'), launch_subagent('a'), launch_subagent('a'))"
  )
  tree = work(
    {
      "root": [gather, f"{LAUNCH_A}\n{LAUNCH_A}\n{LAUNCH_A}", "finish(1)"],
      "a": ["finish('A')"],
    },
    launches_per_cell=2,
  )
  refused = "Error: at most 2 launches a cell"
  assert outputs(tree.root)[:2] == [str(["A", "Error: not that", "A", refused]), refused]
  assert [node.path for node in tree.nodes] == [(), (0,), (2,), (4,), (5,)]
  assert tree.ledger.refused == {"launches": 2, "goal": 1}


def test_which_launches_the_node_cap_refuses_follows_path_and_call(work):
  two = "await asyncio.gather(launch_subagent('leaf'), launch_subagent('leaf'))"
  tree = work(
    {
      "root": ["await asyncio.gather(launch_subagent('a'), launch_subagent('b'))", "finish(1)"],
      "a": ["note(0)", two, "finish(1)"],
      "b": ["note(0)", two, "finish(1)"],
      "leaf": ["finish('L')"],
    },
    max_nodes=6,
  )
  assert [node.path for node in tree.nodes] == [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]
  assert outputs(by_path(tree)[(1,)])[1] == "['L', 'Error: node cap 6 reached, do it yourself']"
  assert (tree.ledger.nodes, tree.ledger.refused) == (6, {"nodes": 1})


def test_without_depth_there_is_no_launch_subagent(work):
  tree = work({"root": [LAUNCH_A, "finish(1)"]}, max_depth=0)
  assert outputs(tree.root)[0] == "NameError: name 'launch_subagent' is not defined"
  assert len(tree.nodes) == 1 and not tree.ledger.refused


def test_a_cell_of_refused_launches_alone_goes_on_as_long_as_it_may_call(start, byte_protocol):
  """Each wait is answered at once; a thousand in a row must not use up the host's stack."""
  cell = "for i in range(1200):\n  await launch_subagent('no')\nnote(i)"
  with MontyInterpreter(Limits(host_calls=2000, cell_seconds=30.0)) as sandbox:
    tree = play(start(sandbox=sandbox), agents({"root": [cell, "finish(1)"]}), byte_protocol, 0)
  assert tree.episode.only("note") == [("note", (), 1199)]
  assert tree.ledger.refused == {"goal": 1200}


# --- caps -------------------------------------------------------------------------------------------------------------


def test_turn_cap(work):
  tree = work({"root": ["note(1)", "note(2)", "note(3)", "finish('late')"]}, max_turns=3)
  root = tree.root
  assert (root.outcome, root.success, root.message) == (Outcome.TURN_CAP, 0.0, None)
  assert outputs(root) == ["1", "2", "3"]
  assert tree.ledger.turns == 3
  assert tree.episode.log[-1] == ("end", (), None)


def test_finish_in_the_last_turn_counts(work):
  assert work({"root": ["note(1)", "finish('ok')"]}, max_turns=2).root.outcome is Outcome.FINISHED


@pytest.mark.parametrize(
  "caps, kept",
  [
    ({"turn_tokens": 11}, "note(12345)"),  # the end token is the twelfth
    # 6 tokens of prompt in a window of 15
    ({"window": 15, "min_turn": 8, "output_tokens": 8}, "note(1234"),
  ],
)
def test_a_cut_cell_is_not_run_and_its_tokens_stay(work, byte_protocol, caps, kept):
  tree = work({"root": ["note(12345)"]}, **caps)
  root = tree.root
  assert (root.outcome, root.success) == (Outcome.TRUNCATED, 0.0)
  assert not tree.episode.only("note")
  sampled = [token for token, is_action in zip(root.tokens, root.is_action) if is_action]
  assert byte_protocol.tokenizer.decode(sampled) == kept == root.turns[0].cell
  assert tree.ledger.sampled == len(kept)


def test_a_cell_that_fills_its_turn_to_the_last_token_runs(work):
  tree = work({"root": ["note(12345)", "finish(1)"]}, turn_tokens=12)
  assert tree.episode.only("note") == [("note", (), 12345)]


@pytest.mark.parametrize("window, outcome, tokens", [(25, Outcome.CONTEXT_FULL, 14), (26, Outcome.TRUNCATED, 26)])
def test_a_turn_starts_only_with_room_for_a_minimal_cell(work, window, outcome, tokens):
  """6 tokens of prompt and 8 of the first cell; an output of at least 4 and a turn of at least 8 want 26."""
  tree = work({"root": ["note(1)", "note('another one')"]}, window=window, min_turn=8, output_tokens=8)
  assert tree.root.outcome is outcome
  assert len(tree.root.tokens) == tokens
  assert outputs(tree.root)[0] == "1"


def test_an_output_is_cut_where_the_window_needs_it(work, byte_protocol):
  """6 of prompt, 11 of the cell; 12 left of 29 keep 8 for the turn: an output of 4, brackets included."""
  tree = work({"root": ["note(7**9)", "x = 1\n"]}, window=29, min_turn=8, output_tokens=8)
  root = tree.root
  assert outputs(root)[0] == byte_protocol.tokenizer.decode(root.tokens[17:21]) == "[c"
  assert root.is_action == [False] * 6 + [True] * 11 + [False] * 4 + [True] * 7 + [False] * (len(root.tokens) - 28)


def test_outputs_are_cut_at_their_cap(work, byte_protocol):
  tree = work({"root": ["'y' * 100", "finish(1)"]}, output_tokens=20)
  prompt, cell = 6, 10
  output = tree.root.tokens[prompt + cell :][:20]
  assert byte_protocol.tokenizer.decode(output[1:-1]) == "y" * 13 + "[cut]"
  assert (output[0], output[-1]) == (byte_protocol.ids["<out>"], byte_protocol.ids["<cell>"])


def test_a_childs_failure_reaches_the_parent_as_a_string(work):
  tree = work(
    {
      "root": ["note(await asyncio.gather(*[launch_subagent(c) for c in 'abc']))", "finish(1)"],
      "a": ["note(0)"] * 3,
      "b": ["note('much too long for a turn of this tree, it goes on and on and on and on and on')"],
      "c": ["finish('C')"],
    },
    max_turns=2,
    turn_tokens=80,
  )
  assert tree.episode.only("note")[-1] == ("note", (), ["Error: turn_cap", "Error: truncated", "C"])
  assert [node.success for node in tree.nodes] == [1.0, 0.0, 0.0, 1.0]


def test_a_root_prompt_beyond_the_window_is_an_error_that_names_the_cap(start):
  with pytest.raises(ValueError, match=r"task logged.root: its prompt has 6 tokens.*caps.window=12: raise it"):
    start(window=12, min_turn=8, output_tokens=8)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"max_nodes": 0}, "caps.max_nodes=0 must be at least 1"),
    ({"max_depth": -1}, "caps.max_depth=-1 must be at least 0"),
    ({"output_tokens": 3}, "caps.output_tokens=3 must be at least 4"),
    ({"budget": "pool"}, r"caps.budget='pool': choose one of \('per_agent', 'shared'\)"),
    ({"loop_repeats": 1}, "caps.loop_repeats=1 would end every node at its first cell: set 2 or more, or 0 for never"),
    ({"loop_repeats": -1}, "caps.loop_repeats=-1 must be at least 0"),
    ({"window": 10, "min_turn": 8, "output_tokens": 8}, "caps.window=10 leaves no room.*lower caps.min_turn=8"),
  ],
)
def test_caps_that_cannot_work_are_errors_that_name_them(changes, message):
  with pytest.raises(ValueError, match=message):
    Caps(**changes)
