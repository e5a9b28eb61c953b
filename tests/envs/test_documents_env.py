"""Handles, reading and grading of the documents world, through the engine and the real sandbox."""

import pytest

from rao_jax.envs.base import Refusal, Task
from rao_jax.envs.documents.env import Document, Documents
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.engine import Outcome, Tree
from rao_jax.rollout.scripted import play

SPEAKERS = ["Ham", "Hor", "Ham", "Mar", "Hor", "Ham"]
LINES = [f"{name}: line {i}" for i, name in enumerate(SPEAKERS)]


class SixLines(Documents):
  """A document that is known by heart."""

  def document(self, task):
    return Document(LINES, SPEAKERS)


def tree_of(interpreter, protocol, question="count Ham", rules=None, **caps):
  options = {"window": 4096, "max_depth": 3, "turn_tokens": 1024, "output_tokens": 512, **caps}
  task = Task("six", "half", {"question": question})
  return Tree(rules or SixLines(), task, Caps(**options), protocol, interpreter)


def work(tree, protocol, scripts):
  """Plays a tree whose agents write the cells of `scripts[path]`; cells are sent nothing back."""

  def demonstrator(goal, rng):
    yield from (cell for cell in scripts[paths.pop(0)])

  paths = sorted(scripts, key=lambda path: (len(path), path))  # the order in which agents first act
  return play(tree, demonstrator, protocol, 0)


def test_a_handle_has_a_length_and_slices_but_no_text(interpreter, byte_protocol):
  tree = work(
    tree_of(interpreter, byte_protocol),
    byte_protocol,
    {(): ["print(len(context),len(context[2:5]),len(context[2:5][1:]))\ncontext[2:5]", "finish(0)"]},
  )
  assert tree.root.turns[0].output == "6 3 2\nrange(2, 5)"


def test_read_shows_the_lines_of_a_slice_and_returns_none(interpreter, byte_protocol):
  tree = work(
    tree_of(interpreter, byte_protocol),
    byte_protocol,
    {(): ["x=read(context[1:4][1:])\nprint(x)", "read(context[:1])", "finish(3)"]},
  )
  assert [turn.output for turn in tree.root.turns] == ["2 Ham: line 2\n3 Mar: line 3\nNone", "0 Ham: line 0", ""]
  assert tree.root.success == 1.0


def test_what_read_shows_is_cut_at_the_output_cap_with_a_mark(interpreter, byte_protocol):
  tree = work(
    tree_of(interpreter, byte_protocol, output_tokens=30), byte_protocol, {(): ["read(context)", "finish(3)"]}
  )
  shown = byte_protocol.tokenizer.decode([t for t, a in zip(tree.root.tokens, tree.root.is_action) if not a])
  assert shown.endswith("[cut]") and "Ham: line 0" in shown and "line 3" not in shown


@pytest.mark.parametrize(
  ("call", "error"),
  [
    ("read()", "read takes one slice"),
    ("read(context,2)", "read takes one slice"),
    ("read(3)", "has to be a slice"),
    ("read('Ham')", "has to be a slice"),
    ("read(context[::2])", "without a step"),
    ("read(range(0,7))", "not a part"),
  ],
)
def test_a_wrong_read_is_told_and_shows_nothing(call, error, interpreter, byte_protocol):
  tree = work(tree_of(interpreter, byte_protocol), byte_protocol, {(): [call, "finish(0)"]})
  assert tree.root.turns[0].output.startswith("Error: ") and error in tree.root.turns[0].output


def test_a_child_reads_its_own_part_only_and_is_graded_on_it(interpreter, byte_protocol):
  launch = 'finish(await launch_subagent("count Ham",context[2:]))'
  tree = work(
    tree_of(interpreter, byte_protocol),
    byte_protocol,
    {
      (): [launch],
      # The child makes a handle of its own: to lines that it was not given.
      (0,): ["print(len(context))\nread(range(0,2))\n", "read(context[:2])", "finish(2)"],
    },
  )
  child = tree.nodes[1]
  assert child.turns[0].output == "4\nError: not a part of your context"
  assert child.turns[1].output == "0 Ham: line 2\n1 Mar: line 3"
  assert child.goal_text == "count Ham\n4 lines"
  assert child.success == 1.0  # two of the last four lines
  assert tree.root.success == 0.75  # Oolong's credit for a number that is off by one: 3 in all six


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    ('"count Ham"', "takes a goal and a slice"),
    ("3,context[1:]", "has to be a text"),
    ('"count Ham",context[1:1]', "empty"),
    ('"count Ham","Ham: line 0"', "has to be a slice"),
    ('"what is the play about?",context[1:]', "ask one of count, tally"),
    ('"count Ham",context', "own goal"),
    ('"How many times does Ham speak?",context', "own goal"),
    ('"count Ham",range(0,99)', "not a part"),
  ],
)
def test_a_wrong_launch_is_refused_with_the_reason(arguments, reason, interpreter, byte_protocol):
  tree = work(
    tree_of(interpreter, byte_protocol),
    byte_protocol,
    {(): [f"await launch_subagent({arguments})", "finish(0)"]},
  )
  assert len(tree.nodes) == 1 and reason in tree.root.turns[0].output


def test_the_same_question_on_a_part_is_no_own_goal(interpreter, byte_protocol):
  episode = tree_of(interpreter, byte_protocol).episode
  assert not isinstance(episode.subgoal((), ("count Ham", "range(0, 3)"), {}), Refusal)


def test_free_goals_are_let_through_and_have_no_grade_by_rule(interpreter, byte_protocol):
  tree = work(
    tree_of(interpreter, byte_protocol, rules=SixLines(free_goals=True)),
    byte_protocol,
    {(): ['finish(await launch_subagent("who is the ghost?",context[1:]))'], (0,): ['finish("nobody")']},
  )
  assert tree.nodes[1].outcome is Outcome.FINISHED and tree.nodes[1].success == 0.0


def test_plain_text_mode_hands_over_the_text_and_has_no_read(interpreter, byte_protocol):
  rules = SixLines(plain_text=True)
  cell = 'finish(await launch_subagent("tally",context[:23]))'
  search = 's=[x.split(": ")[0]for x in context.split("\\n")]\nfinish({x:s.count(x)for x in s})'
  tree = work(
    tree_of(interpreter, byte_protocol, "tally", rules), byte_protocol, {(): ["read(context)", cell], (0,): [search]}
  )
  assert "NameError" in tree.root.turns[0].output
  assert tree.nodes[1].goal.context == "Ham: line 0\nHor: line 1" and tree.nodes[1].success == 1.0
  assert tree.nodes[1].message == {"Ham": 1, "Hor": 1}


def test_prompts_in_english_name_the_form_of_the_answer_and_what_context_is(interpreter, byte_protocol):
  text = tree_of(interpreter, byte_protocol, rules=SixLines(short=False)).root.goal_text
  assert "How many times does Ham speak?" in text and "a number" in text and "6 lines" in text and "read(slice)" in text


def test_a_node_that_never_finishes_scores_nothing(interpreter, byte_protocol):
  tree = work(tree_of(interpreter, byte_protocol, max_turns=1), byte_protocol, {(): ["read(context)"]})
  assert tree.root.outcome is Outcome.TURN_CAP and tree.root.success == 0.0
