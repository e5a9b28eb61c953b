"""report/trees.py, report/pack.py, report/text.py: dumps are read, chosen, packed and printed as they are."""

import base64
import json
import random
import zlib

import pytest

from rao_jax.report import pack, text, trees
from tests.report.fakes import HOSTILE, fake_tree


def write(path, lines):
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return path


def node(path, parent, **more):
  return {"path": path, "parent": parent, **more}


def test_nodes_are_put_in_path_order_and_their_parents_with_them():
  # As a run writes them: by level.
  nodes = [node([], -1), node([0], 0), node([3], 0), node([0, 1], 1), node([3, 0], 2), node([0, 0], 1)]
  found = trees.parse(json.dumps({"nodes": nodes}).encode())["nodes"]
  assert [n["path"] for n in found] == [[], [0], [0, 0], [0, 1], [3], [3, 0]]
  assert [n["parent"] for n in found] == [-1, 0, 1, 1, 0, 4]
  assert [n["depth"] for n in found] == [0, 1, 2, 2, 1, 2]


@pytest.mark.parametrize(
  "line",
  ["", "[]", '{"nodes": []}', '{"nodes": [{"parent": 0}]}', '{"nodes": [{}, {"parent": 5}]}', '{"nodes": [{}, {}]}']
  + ['{"nodes": [1]}', '{"nodes": [{"parent": "x"}]}', "[" * 5000],
)
def test_what_is_no_tree_is_told_apart(line):
  assert trees.parse(line.encode()) is None


def test_facts_by_hand(tmp_path):
  nodes = [
    node([], -1, success=1.0, sampled=10), node([0], 0, success=0.5, sampled=20), node([1], 0, success=1.0, sampled=5),
    node([0, 0], 1, success=0.0, sampled=7),
  ]  # fmt: skip
  for child, wave in zip(nodes[1:], [[0, 0], [2, 0], [1, 0]]):
    child["wave"] = wave
  tree = {"step": 31, "group": 4, "task": "t", "difficulty": "hard", "nodes": nodes}
  dumps = trees.read_dumps([write(tmp_path / "step_000031.jsonl", [tree | {"valid": False}, tree])])
  (facts,) = dumps.trees
  assert facts.id == "step_000031/1" and facts.by_depth == ((1, 1.0), (2, 1.5), (1, 0.0))
  assert (facts.nodes, facts.depth, facts.delegating, facts.sampled, facts.success) == (4, 2, 2, 42, 1.0)
  # The root waits for its first child (20 + 7 of its own child), then for its second (5): 10 + 27 + 5.
  assert facts.critical == 42
  assert trees.read_tree(facts)["nodes"][1]["sampled"] == 20
  assert not dumps.partial  # the root's success counts


def test_children_of_one_wave_work_side_by_side():
  nodes = [node([], -1, sampled=10), *(node([i], 0, sampled=s, wave=[1, 0]) for i, s in enumerate([20, 30, 5]))]
  assert trees.critical_path(nodes) == 40
  del nodes[2]["wave"]
  assert trees.critical_path(nodes) is None


def test_a_tree_is_found_by_its_id(tmp_path):
  rng = random.Random(0)
  paths = [
    write(tmp_path / f"{name}.jsonl", [fake_tree(rng, 1, i, 1, "easy") for i in range(3)])
    for name in ("step_000031", "test_last")
  ]
  found = trees.read_dumps(paths).trees
  assert trees.find(found, "31/2") is trees.find(found, "step_000031/2") is found[2]
  assert trees.find(found, "test_last/0") is found[3]
  for asked in ("31/7", "test_last", "other/0", "/0"):
    with pytest.raises(ValueError, match=r"there are step_000031/0\.\.2, test_last/0\.\.2"):
      trees.find(found, asked)
  with pytest.raises(ValueError, match=r"config\.log\.trees_every"):
    trees.find([], "1/0")


def groups(tmp_path, name, step, depths):
  """A dump with a group of two trees for each of the depths."""
  lines = [
    fake_tree(random.Random(i), step, i, d, "hard") | {"group": i // 2, "task": f"t{i // 2}"}
    for i, d in enumerate(d for d in depths for _ in range(2))
  ]
  return trees.read_dumps([write(tmp_path / f"{name}.jsonl", lines)]).trees


def test_a_full_page_holds_the_best_group_of_each_file_then_others_in_turn(tmp_path):
  old, new = groups(tmp_path, "step_000001", 1, [1, 3, 2]), groups(tmp_path, "step_000009", 9, [1, 1, 4])
  room = sum(tree.size for tree in new[4:] + old[2:4] + new[:2])
  chosen = pack.choose({"run": old + new}, room=room)["run"]
  assert [tree.id for tree in chosen] == [tree.id for tree in old[2:4] + new[:2] + new[4:]]
  assert pack.choose({"run": old + new})["run"] == old + new
  assert pack.choose({"run": old + new}, first=old[0], room=0)["run"] == [old[0]]


def test_packed_trees_hold_every_text_once(tmp_path):
  lines = [fake_tree(random.Random(3), 1, i, 3, "hard") for i in range(40)]
  lines[0]["nodes"][0] |= {"turns": [{"cell": HOSTILE, "output": "y" * (pack.MAX_TEXT + 7)}], "reward": float("nan")}
  facts = trees.read_dumps([write(tmp_path / "a.jsonl", lines)]).trees
  index, chunks = pack.pack_trees({"run": facts})
  (chunk,) = [json.loads(zlib.decompress(base64.b64decode(text))) for text in chunks]
  assert len(chunk["texts"]) == len(set(chunk["texts"]))
  assert len(chunks[0]) < sum(tree.size for tree in facts) / 10
  first = chunk["trees"][0]
  cell, output, launches = first["turns"][0][0]
  assert chunk["texts"][cell] == HOSTILE and launches == -1
  assert chunk["texts"][output].endswith("y\n... 7 more characters")
  assert first["reward"][0] is None and first["launch"][:2] == [-1, 0] and first["turn"][:2] == [-1, 1]
  for entry, fact in zip(index, facts):
    tree = chunk["trees"][entry["at"]]
    assert (entry["id"], len(tree["parent"]), sum(tree["sampled"])) == (fact.id, fact.nodes, fact.sampled)


def test_chunks_are_bounded(tmp_path, monkeypatch):
  monkeypatch.setattr(pack, "CHUNK_BYTES", 10_000)
  lines = [fake_tree(random.Random(i), 1, i, 2, "hard") for i in range(20)]
  facts = trees.read_dumps([write(tmp_path / "a.jsonl", lines)]).trees
  index, chunks = pack.pack_trees({"run": facts})
  sizes = [sum(tree.size for tree, entry in zip(facts, index) if entry["chunk"] == i) for i in range(len(chunks))]
  assert len(sizes) > 3 and max(sizes) <= 10_000
  assert index[-1]["chunk"] == len(sizes) - 1


def test_a_tree_as_text():
  nodes = [
    node([], -1, depth=0, goal="craft 1 lamp", success=1.0, outcome="finished", sampled=1200, advantage=0.25),
    node([0], 0, depth=1, goal="craft 2 lens", success=0.0, outcome="truncated", sampled=5, turns=[{}, {}]),
    node([0, 1], 1, depth=2, goal="craft 3 glass", success=0.5, outcome="finished", sampled=6, turns=[]),
    node([2], 0, depth=1, goal="craft a very long name of something", success=1.0, outcome="finished", sampled=7),
  ]  # fmt: skip
  nodes[0]["turns"] = [{}]
  shown = text.tree_text({"task": "t.1", "step": 3, "nodes": nodes}, width=60).splitlines()
  assert shown == [
    "t.1, step 3: solved",
    "4 agents, depth 2, 1,218 tokens sampled",
    "craft 1 lamp",
    "",
    "✓ root  1 lamp  [finished, 1 turn, 1,200 tokens, advantage +0.25]",
    "├─ ✗ 0  2 lens  [truncated, 2 turns, 5 tokens]",
    "│  └─ ½ 0.1  3 glass  [finished, 0 turns, score 0.5, 6 tokens]",
    "└─ ✓ 2  a very long name of…  [finished, 0 turns, 7 tokens]",
  ]


def test_what_an_agent_wrote_cannot_drive_the_terminal():
  nodes = [node([], -1, depth=0, goal=HOSTILE, outcome=HOSTILE, turns=[{"cell": f"a\n{HOSTILE}", "output": HOSTILE}])]
  tree = {"task": HOSTILE, "nodes": nodes}
  for shown in (text.tree_text(tree), text.node_text(tree, [])):
    assert not set(shown) & set("\x00\x1b\u2028\u202e\ud800")
    assert "<1b>[2J" in shown and "<202e>" in shown
  assert ">>> a\n>>> </script>" in shown
