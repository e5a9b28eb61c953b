"""What results/delegation.py reads out of recorded trees."""

import json
import runpy
from pathlib import Path

import pytest

delegation = runpy.run_path(Path(__file__).parents[1] / "results" / "delegation.py")["delegation"]


def node(parent, depth, goal, success, *outputs):
  turns = [{"cell": "...", "output": output, "launches": 0} for output in outputs]
  return {
    "parent": parent, "depth": depth, "goal": f"Craft the following items: {goal}", "success": success, "turns": turns,
  }  # fmt: skip


def line(*nodes):
  return json.dumps({"nodes": nodes})


def test_agents_are_counted_by_tier_and_by_the_depth_that_is_left():
  tree = line(
    node(-1, 0, "3x c2_i4", 1.0, 'c2_i4*2={"c1_i3":1,"c1_i2":2}'),
    node(0, 1, "2x c1_i3", 0.0, 'c1_i3*1={"c1_ore":1}'),
    node(0, 1, "4x c1_i2", 1.0, 'c1_i2*1={"c1_ore":1}'),
  )
  found = delegation([tree, tree], max_depth=6)
  assert found["tiers"] == {"2": [2, 0, 2], "3": [2, 0, 0], "4": [2, 2, 2]}
  assert found["depth_left"] == {"5": [2, 0, 0], "6": [2, 2, 2]}


@pytest.mark.parametrize(
  ("child", "kind"),
  [
    ("2x c1_i3", "an ingredient, as many as needed"),  # two crafts make the three
    ("1x c1_i3", "an ingredient, too few"),
    ("3x c1_i3", "an ingredient, too many"),
    ("1x c9_i2", "an ingredient's ingredient"),
    ("1x c1_ore", "raw material"),
    ("3x c2_i4", "its own goal"),
    ("1x c7_i2", "a name it has not read"),
  ],
)
def test_what_a_child_is_asked_for_is_told_by_what_its_parent_has_read(child, kind):
  root = node(-1, 0, "3x c2_i4", 0.0, 'c2_i4*2={"c1_i3":1,"c1_ore":1}\nc1_i3*1={"c9_i2":1}')
  assert delegation([line(root, node(0, 1, child, 0.0))], max_depth=6)["told"] == {kind: 1}
