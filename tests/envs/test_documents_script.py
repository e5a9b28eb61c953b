"""The documents demonstrators: right at every kind of question, whether they read or cut."""

import random

import pytest

from rao_jax.envs.base import Task
from rao_jax.envs.documents import script
from rao_jax.envs.documents.env import Document, Documents
from rao_jax.envs.documents.questions import KINDS, NAMES, Question, compact
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Tree
from rao_jax.rollout.protocol import CONTROLS, CUT_MARK, CompactProtocol
from rao_jax.rollout.scripted import play
from rao_jax.tokenizer import train_sentencepiece

PROTOCOL = CompactProtocol(train_sentencepiece([], CONTROLS, (*script.pieces(), CUT_MARK), 0))
NAMES_OF_FOUR = ["Ham", "Hor", "First Clown", "Queen"]


class Random(Documents):
  """Documents of four speakers, drawn from the task's seed."""

  def document(self, task):
    rng = random.Random(task.data["seed"])
    speakers = [rng.choice(NAMES_OF_FOUR) for _ in range(task.data["lines"])]
    return Document([f"{name}: {'word ' * rng.randint(1, 9)}" for name in speakers], speakers)


def solve(interpreter, kind, lines, agent, seed=0, plain_text=False, caps=None, **habits):
  question = compact(Question(kind, tuple(NAMES_OF_FOUR[seed % 3 :][: NAMES.get(kind, 0)])))
  task = Task("random", "2x", {"question": question, "lines": lines, "seed": f"{kind} {seed}"})
  wide = Caps(window=1 << 16, max_nodes=500, turn_tokens=4096, output_tokens=4096)
  tree = Tree(Random(plain_text=plain_text), task, caps or wide, PROTOCOL, interpreter)
  return play(tree, lambda goal, rng: agent(goal, rng, script.Habits(**habits)), PROTOCOL, seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lines", [1, 4, 15, 16, 70])
def test_the_perfect_agent_is_right_at_every_node(kind, lines, interpreter):
  for seed in range(3):
    tree = solve(interpreter, kind, lines, script.recursive, seed)
    assert [node.success for node in tree.nodes] == [1.0] * len(tree.nodes)
    if lines > 15:
      assert len(tree.nodes) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_line_of_code_answers_plain_text_of_any_length(kind, interpreter):
  tree = solve(interpreter, kind, 200, script.search, plain_text=True)
  assert tree.root.success == 1.0 and len(tree.root.turns) == 1


def test_a_cut_output_is_read_on_where_it_ended(interpreter):
  caps = Caps(window=4096, turn_tokens=256, output_tokens=60)
  tree = solve(interpreter, "tally", 5, script.inline, caps=caps, reads=9)
  assert tree.root.success == 1.0 and len(tree.root.turns) > 2


def test_the_inline_agent_answers_from_what_it_has_read(interpreter):
  tree = solve(interpreter, "first", 100, script.inline)
  assert len(tree.nodes) == 1 and len(tree.root.turns) == 4 and tree.root.success == 1.0
  assert solve(interpreter, "count", 100, script.inline).root.success < 1.0


def test_missed_lines_make_wrong_answers(interpreter):
  assert solve(interpreter, "tally", 12, script.recursive, missed=0.5).root.success < 1.0


@pytest.mark.parametrize("piece", script.pieces())
def test_a_piece_is_one_token(piece):
  assert len(PROTOCOL.tokenizer.encode(piece)) == 1
