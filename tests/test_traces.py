"""Traces of a user's own: what is said of a bad line, and the tokens that a good one becomes."""

import json

import numpy as np
import pytest

from rao_jax import traces
from rao_jax.config import validate
from rao_jax.envs.textcraft import script
from rao_jax.metrics import read_metrics
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree, record
from rao_jax.rollout.protocol import CUT_MARK
from rao_jax.rollout.scripted import demonstrate, play
from rao_jax.rollout.summary import tree_line
from rao_jax.traces import read_traces, records
from rao_jax.train import train
from rao_jax.tree.buffer import build
from tests.test_config import changed
from tests.test_train import tiny

CAPS = Caps(window=64, turn_tokens=16, output_tokens=16)
ONE = {"goal": "ab", "turns": [{"cell": "x", "output": "1"}, {"cell": "yz"}]}


@pytest.fixture
def written(tmp_path):
  def written(*lines, name="t.jsonl"):
    path = tmp_path / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)

  return written


def test_cells_are_actions_and_goal_and_outputs_are_not(written, byte_protocol):
  (tree,), left_out = records(read_traces(written(ONE)), byte_protocol, CAPS)
  (node,) = tree.nodes
  p = byte_protocol
  a, b, x, y, z, one = (p.tokenizer.encode(letter)[0] for letter in "abxyz1")
  bos, cell, end, out = (p.ids[name] for name in ("<bos>", "<cell>", "<end>", "<out>"))
  assert node.tokens == [bos, a, b, cell, x, end, out, one, cell, y, z, end]
  assert node.is_action == [False] * 4 + [True] * 2 + [False] * 3 + [True] * 3
  assert (node.parent, node.depth, node.success) == (-1, 0, 1.0) and not left_out
  buffer = build([tree])
  assert int(buffer.sampled[0]) == 5 and int(buffer.length[0]) == 12


def test_children_follow_their_parents_in_the_order_of_the_line(written, byte_protocol):
  child = lambda goal, *children: {"goal": goal, "turns": [{"cell": "c"}], "children": list(children), "success": 0.5}
  (trace,) = read_traces(written(child("r", child("a", child("aa")), child("b")) | {"info": {"source": "me"}}))
  assert [(agent.goal, agent.parent, agent.depth) for agent in trace.agents] == [
    ("r", -1, 0), ("a", 0, 1), ("aa", 1, 2), ("b", 0, 1),
  ]  # fmt: skip
  assert trace.agents[2].place.endswith("t.jsonl:1, children[0].children[0]")
  ((tree,), _) = records([trace], byte_protocol, CAPS)
  assert build([tree]).parent[:4].tolist() == [-1, 0, 1, 0]


# (second line of a file, what is said of it)
BAD = [
  ("{", r"t\.jsonl:2 is not JSON \(.*\): write one object a line"),
  ("3", r"t\.jsonl:2 is 3: write a JSON object"),
  ({"turns": ONE["turns"]}, r"t\.jsonl:2, goal is missing: write a text"),
  ({"goal": "a"}, r"t\.jsonl:2, turns is missing: write a list of turns"),
  ({"goal": "a", "turns": []}, r"t\.jsonl:2, turns is empty: an agent has a turn at least"),
  ({"goal": "a", "turns": ["x"]}, r't\.jsonl:2, turns\[0\] is "x": write a turn: \{"cell"'),
  ({"goal": "a", "turns": [{"cell": 5}]}, r"t\.jsonl:2, turns\[0\]\.cell is 5: write a text"),
  (
    {"goal": "a", "turns": [{"cell": "x"}, {"cell": "y"}]},
    r"t\.jsonl:2, turns\[0\]\.output is missing: write a text",
  ),
  ({"goal": "a", "turns": [{"code": "x"}]}, r"turns\[0\]: unknown field 'code': a turn has cell and output"),
  (ONE | {"succes": 1}, r"t\.jsonl:2: unknown field 'succes': there are goal, turns, success, children, info"),
  (ONE | {"success": 2}, r"t\.jsonl:2, success is 2: write a number from 0 to 1"),
  (ONE | {"success": "yes"}, r't\.jsonl:2, success is "yes": write a number'),
  ('{"goal": "a", "turns": [{"cell": "x"}], "success": NaN}', r"success is NaN: write a number"),
  (ONE | {"children": {"goal": "a"}}, r"t\.jsonl:2, children is .*: write a list of agents"),
  (ONE | {"children": [ONE, 7]}, r"t\.jsonl:2, children\[1\] is 7: write an agent"),
  (ONE | {"children": [ONE | {"goal": 1}]}, r"t\.jsonl:2, children\[0\]\.goal is 1: write a text"),
  ('{"goal": "\\ud800", "turns": [{"cell": "x"}]}', r"t\.jsonl:2, goal holds half of a surrogate pair"),
  ({"nodes": []}, r"t\.jsonl:2, nodes is \[\]: write a list of agents"),
  ({"nodes": [{"parent": 0, **ONE}]}, r"nodes\[0\]\.parent is 0: write -1: the first agent is the root"),
  (
    {"nodes": [{"parent": -1, **ONE}, {"parent": 1, **ONE}]},
    r"t\.jsonl:2, nodes\[1\]\.parent is 1: write the index of an earlier agent",
  ),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_a_bad_line_is_named_with_its_field_and_what_to_write(written, line, said):
  with pytest.raises(ValueError, match=said):
    read_traces(written(ONE, line))


def test_a_file_that_is_missing_or_empty_is_an_error(written, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no file of traces .*nothing\.jsonl"):
    read_traces(str(tmp_path / "nothing.jsonl"))
  with pytest.raises(FileNotFoundError, match=r"no file of traces .*\*\.jsonl"):
    read_traces(str(tmp_path / "*.jsonl"))
  with pytest.raises(ValueError, match="holds no traces"):
    read_traces(written("", " "))


def test_a_pattern_names_several_files_in_the_order_of_their_names(written, tmp_path):
  written(ONE | {"goal": "second"}, name="b.jsonl")
  written(ONE | {"goal": "first"}, name="a.jsonl")
  assert [trace.task for trace in read_traces(str(tmp_path / "*.jsonl"))] == ["first", "second"]


def test_an_agent_over_the_window_or_with_too_long_a_turn_is_left_out_and_counted(written, byte_protocol):
  long_turn = {"goal": "a", "turns": [{"cell": "x" * 16}]}  # and its end token: 17
  just = {"goal": "a", "turns": [{"cell": "x" * 15}]}
  long = {"goal": "g" * 61, "turns": [{"cell": "x"}]}  # <bos> 61 <cell> x <end>: 65
  fits = {"goal": "g" * 60, "turns": [{"cell": "x"}], "children": [long, long_turn, just]}
  ((tree,), left_out) = records(read_traces(written(fits)), byte_protocol, CAPS)
  assert [len(node.tokens) for node in tree.nodes] == [64, 0, 0, 19]
  assert left_out == {"window": 1, "turn_tokens": 1}
  buffer = build([tree])
  assert np.flatnonzero(buffer.sampled > 0).tolist() == [0, 3]


def test_a_long_output_is_cut_at_the_cap_with_a_mark(written, byte_protocol):
  line = {"goal": "a", "turns": [{"cell": "x", "output": "o" * 99}, {"cell": "y"}]}
  ((tree,), _) = records(read_traces(written(line)), byte_protocol, CAPS)
  tokens = tree.nodes[0].tokens[5:-2]
  assert len(tokens) == CAPS.output_tokens
  assert byte_protocol.shown(tokens) == "o" * (14 - len(CUT_MARK)) + CUT_MARK


def test_recorded_trees_are_traces_of_the_same_tokens(
  written, textcraft, textcraft_tasks, textcraft_protocol, interpreter
):
  caps = Caps(window=512, turn_tokens=128, output_tokens=128)
  scripts = iter([["get_info(['m0_i1'])", "view_inventory()", "finish('done')"]])
  tree = play(
    Tree(textcraft, textcraft_tasks[0], caps, textcraft_protocol, interpreter),
    lambda goal, rng: (cell for cell in next(scripts)), textcraft_protocol, 0,
  )  # fmt: skip
  line = tree_line(tree, 1, 0)
  ((read,), left_out) = records(read_traces(written(line, line | {"valid": False})), textcraft_protocol, caps)
  (expected,) = record(tree).nodes
  assert read.nodes[0] == expected and not left_out


def test_a_cell_that_was_cut_before_its_end_is_no_example(written, byte_protocol):
  node = {"parent": -1, "outcome": "truncated", "success": 0.0, **ONE}
  (trace,) = read_traces(written({"task": "t", "nodes": [node, {**node, "parent": 0, "turns": [{"cell": "q"}]}]}))
  ((tree,), left_out) = records([trace], byte_protocol, CAPS)
  assert [len(n.tokens) for n in tree.nodes] == [6, 4] and sum(tree.nodes[0].is_action) == 2
  assert build([tree]).sampled[:2].tolist() == [2, 0] and not left_out


def test_the_command_checks_and_keeps_the_best(written, tmp_path, capsys):
  node = lambda success, turns=1: {
    "parent": -1,
    "success": success,
    "goal": "g",
    "turns": [{"cell": "c", "output": ""}] * turns,
  }
  lines = [
    {"task": "a", "nodes": [node(0.0)]},
    {"task": "a", "nodes": [node(1.0, 3)]},
    {"task": "a", "nodes": [node(1.0), node(0.0) | {"parent": 0}]},
    {"task": "a", "nodes": [node(1.0, 3)]},
    {"task": "b", "nodes": [node(0.5)]},
  ]  # fmt: skip
  path, out = written(*lines), tmp_path / "out.jsonl"
  kept = lambda: [json.loads(line) for line in out.read_text().splitlines()]
  traces.main([path])
  assert capsys.readouterr().out == "5 traces, 6 agents, 10 turns; success of the roots 0.70\n"
  traces.main([path, "--least_success=1", f"--out={out}"])
  assert kept() == lines[1:4]
  traces.main([path, "--best", f"--out={out}"])
  assert kept() == [lines[2], lines[4]]
  traces.main([path, "--agents", "--least_success=0.5", f"--out={out}"])
  assert [len(agent["turns"]) for agent in kept()] == [3, 1, 3, 1]
  assert [len(trace.agents) for trace in read_traces(str(out))] == [1, 1, 1, 1]
  with pytest.raises(SystemExit):
    traces.main([path, "--agents", "--best"])
  assert "leave one out" in capsys.readouterr().err


def test_settings_that_make_traces_do_nothing_are_refused():
  validate(changed(warm_start__traces="t.jsonl", warm_start__tokens=10))
  with pytest.raises(ValueError, match=r"warm_start\.traces=t\.jsonl does nothing with config\.warm_start\.tokens=0"):
    validate(changed(warm_start__traces="t.jsonl"))
  with pytest.raises(ValueError, match=r"traces=t\.jsonl does nothing with config\.warm_start\.from_workdir=a"):
    validate(changed(warm_start__traces="t.jsonl", warm_start__tokens=10, warm_start__from_workdir="a"))


@pytest.mark.full
def test_a_run_clones_traces_and_refuses_bad_ones_before_it_compiles(
  written, textcraft, textcraft_tasks, textcraft_protocol, interpreter, tmp_path, capsys
):
  small = {"steps": 1, "evaluation.every": 0, "learn.warmup": 0, "warm_start.tokens": 1000, "caps.turn_tokens": 40}
  caps = Caps(window=1024, turn_tokens=128, output_tokens=128)
  trees = list(demonstrate(textcraft_tasks, textcraft, script.recursive, caps, textcraft_protocol, interpreter, 0))
  many = "".join(map(chr, range(0x4E00, 0x4F00)))  # no two alike: a tokenizer that learns cannot make it short
  too_long = {"goal": "a", "turns": [{"cell": f"#{many}"}]}
  path = written(*(tree_line(tree, 1, i) for i, tree in enumerate(trees)), too_long)
  c = tiny(tmp_path, **small, **{"warm_start.traces": path})
  c.warm_start.tasks = {}
  train(c, tmp_path / "a", quiet=True)
  assert "9 traces, " in capsys.readouterr().out
  first = read_metrics(tmp_path / "a" / "metrics.jsonl")[0]
  nodes = sum(len(tree.nodes) for tree in trees)
  assert (first["traces/nodes"], first["traces/nodes_left_out"]) == (nodes, 1) and first["warmstart/tokens"] >= 1000
  with c.unlocked():
    c.warm_start.traces = written("{}", name="bad.jsonl")
  with pytest.raises(ValueError, match=r"bad\.jsonl:1, turns is missing"):
    train(c, tmp_path / "b", quiet=True)
  assert not (tmp_path / "b").exists()
