"""The world that docs/environments.md builds: its very blocks, as a file, through the sandbox and through training."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from rao_jax.metrics import read_metrics
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Outcome, Tree
from rao_jax.rollout.scripted import demonstrate, play
from tests.rollout.logged import agents

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "environments.md").read_text()
CODE = "\n\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S))
COMMAND = re.search(r"^python -m (rao_jax\.train .*)$", PAGE, re.M).group(1)
CAPS = Caps(max_depth=3, window=1024, turn_tokens=128, output_tokens=256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("boxes")
  (folder / "boxes.py").write_text(CODE)
  return folder


@pytest.fixture(scope="module")
def boxes(folder):
  spec = importlib.util.spec_from_file_location("boxes", folder / "boxes.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_it_has_under_a_hundred_lines():
  assert len(CODE.splitlines()) < 100


def test_its_script_solves_every_box(boxes, byte_protocol, interpreter):
  world = boxes.Boxes(depth=3)
  tasks = world.tasks("dev")[:10]
  trees = list(demonstrate(tasks, world, world.demonstrator("any"), CAPS, byte_protocol, interpreter, 0))
  assert all(node.success == 1.0 for tree in trees for node in tree.nodes)
  assert max(node.depth for tree in trees for node in tree.nodes) == 3
  assert not any(tree.ledger.refused for tree in trees)


def test_every_agent_is_graded_by_its_own_box_and_mistakes_are_texts(boxes, byte_protocol, interpreter):
  world = boxes.Boxes(depth=1)
  task = next(task for task in world.tasks("train") if len(world.start(task).boxes) == 3)
  own, one, two = (world.start(task).boxes[name][0] for name in ("a", "aa", "ab"))
  scripts = {
    "a": [
      "open_box(3)\nopen_box([])\nopen_box()\nopen_box(name='a')\nopen_box('b')",
      "await asyncio.gather(launch_subagent('a'), launch_subagent(['aa']), launch_subagent('aa', 'ab'))",
      "r = await asyncio.gather(launch_subagent('aa'), launch_subagent('ab'))\nr",
      f"finish({own + one + two})",
    ],
    "aa": [f"finish({one})"],
    "ab": [f"finish({two + 1})"],
  }
  tree = play(Tree(world, task, CAPS, byte_protocol, interpreter), agents(scripts), byte_protocol, 0)
  outputs = [turn.output for turn in tree.root.turns]
  refusal = "Error: launch_subagent takes the name of a box inside your own"
  assert outputs[:3] == [
    "Error: open_box takes the name of a box",
    f"{refusal} {refusal} {refusal}",
    f"{one} {two + 1}",
  ]
  assert [node.success for node in tree.nodes] == [1.0, 1.0, 0.0]
  assert tree.root.outcome is Outcome.FINISHED


def train(folder, *words):
  env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
  words = [sys.executable, "-m", *words, "--quiet"]
  done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


def nodes_of(workdir):
  lines = [line for path in (workdir / "trees").iterdir() for line in path.read_text().splitlines()]
  return [node for line in lines for node in json.loads(line)["nodes"]]


@pytest.mark.full
def test_its_command_trains_it_for_two_steps(folder):
  said = train(
    folder,
    *COMMAND.split(),
    "--config.rollouts_per_task=4",
    "--config.warm_start.tokens=40000",
    "--config.log.trees_every=1",
  )
  assert "2 steps" in said
  rows = list(read_metrics(folder / "runs" / "boxes" / "metrics.jsonl"))
  assert rows[0]["demonstrations/success"] == 1.0
  steps = [row for row in rows if "funnel/trees_started" in row]
  assert [(row["step"], row["funnel/trees_started"], row["funnel/trees_finished"]) for row in steps] == [
    (1, 16, 16),
    (2, 16, 16),
  ]
  nodes = nodes_of(folder / "runs" / "boxes")
  assert {node["success"] for node in nodes} == {0.0, 1.0} and all("reward" in node for node in nodes)
  assert (folder / "runs" / "boxes" / "report.html").exists()


@pytest.mark.full
def test_it_trains_from_scratch_without_demonstrations(folder):
  words = [
    word.replace("boxes.py", "boxes.py:scratch").replace("runs/boxes", "runs/scratch") for word in COMMAND.split()
  ]
  train(folder, *words)
  rows = list(read_metrics(folder / "runs" / "scratch" / "metrics.jsonl"))
  assert [row["step"] for row in rows if "funnel/trees_started" in row] == [1, 2]
