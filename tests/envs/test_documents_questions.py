"""Questions: both forms are read back, and gold equals what a slow reader finds in the slice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rao_jax.envs.documents import questions
from rao_jax.envs.documents.questions import KINDS, NAMES, Answer, Question, compact, gold, parse, sentence

SPEAKERS = ["Ber", "Fran", "Ber", "Hor", "Ber", "Hor"]


def slow_gold(question: Question, speakers: list[str]):
  """All right answers, found by going through the slice once for each name."""
  everyone = []
  for speaker in speakers:
    if speaker not in everyone:
      everyone.append(speaker)
  times = {name: len([speaker for speaker in speakers if speaker == name]) for name in [*everyone, *question.names]}
  a, b = (*question.names, None, None)[:2]
  if question.kind == "count":
    return {times[a]}
  if question.kind == "tally":
    return {name: times[name] for name in everyone}
  if question.kind == "most":
    return {name for name in everyone if all(times[name] >= times[other] for other in everyone)} or {"none"}
  if question.kind == "least":
    return {name for name in everyone if all(times[name] <= times[other] for other in everyone)} or {"none"}
  if question.kind == "first":
    return set(everyone[:1]) or {"none"}
  if question.kind == "last":
    return set(speakers[-1:]) or {"none"}
  if question.kind == "list":
    return (*sorted(everyone),)
  if question.kind == "compare":
    return {"more often"} if times[a] > times[b] else {"less often"} if times[a] < times[b] else {"same frequency"}
  if question.kind == "follows":
    return {len([i for i in range(1, len(speakers)) if speakers[i - 1] == a and speakers[i] == b])}
  for speaker in speakers:
    if speaker in (a, b):
      return {speaker}
  return {"neither"}


def asked(kind: str, *names: str) -> Question:
  return Question(kind, names[: NAMES.get(kind, 0)])


@given(
  st.sampled_from(KINDS), st.lists(st.sampled_from("ABCD"), max_size=9), st.sampled_from("ABX"), st.sampled_from("ABX")
)
def test_gold_is_what_a_slow_reader_finds(kind, speakers, a, b):
  question = asked(kind, a, b)
  answer = gold(question, speakers)
  expected = slow_gold(question, speakers)
  assert answer.value == expected if kind in ("tally", "list") else {answer.value, *answer.others} == expected


@pytest.mark.parametrize(
  ("text", "value", "others"),
  [
    ("count Ber", 3, ()),
    ("count Ham", 0, ()),
    ("tally", {"Ber": 3, "Fran": 1, "Hor": 2}, ()),
    ("most", "Ber", ()),
    ("least", "Fran", ()),
    ("first", "Ber", ()),
    ("last", "Hor", ()),
    ("list", ("Ber", "Fran", "Hor"), ()),
    ("compare Fran, Hor", "less often", ()),
    ("compare Ber, Hor", "more often", ()),
    ("compare Ham, Pol", "same frequency", ()),
    ("follows Ber, Hor", 2, ()),
    ("follows Hor, Ber", 1, ()),
    ("order Hor, Fran", "Fran", ()),
    ("order Ham, Hor", "Hor", ()),
    ("order Ham, Pol", "neither", ()),
  ],
)
def test_gold_worked_by_hand(text, value, others):
  assert gold(parse(text), SPEAKERS) == Answer(value, others)


def test_tied_speakers_are_all_right():
  assert gold(Question("most"), ["B", "A", "A", "B", "C"]) == Answer("A", ("B",))
  assert gold(Question("least"), ["B", "A", "A", "B"]) == Answer("A", ("B",))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_slice_has_an_answer(kind):
  empty = {"count": 0, "follows": 0, "tally": {}, "list": (), "compare": "same frequency", "order": "neither"}
  assert gold(asked(kind, "A", "B"), []) == Answer(empty.get(kind, "none"))


NAMED = [
  "Ham",
  "Lady Macbeth",
  "Mrs. Page",
  "Ros. and Guil",
  "Lucius' Servant",
  "1. Car",
  "First Serving-Man",
  "speaks",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("a", NAMED)
def test_both_forms_are_read_back(kind, a):
  question = asked(kind, a, "Antipholus of Ephesus")
  assert parse(compact(question)) == parse(sentence(question)) == question
  assert parse(sentence(question).partition(" Answer")[0]) == question
  assert parse(f"  {compact(question).replace(' ', '  ')}\n") == question


def test_no_sentence_is_read_as_another_kind():
  assert {parse(sentence(asked(kind, "A", "B"))).kind for kind in KINDS} == set(KINDS)


@pytest.mark.parametrize(
  "text",
  ["", "count", "count A, B", "compare A", "tally A", "count ,", "order A,", "Who wrote it?", "who speaks", "most?"],
)
def test_what_is_no_question_is_none(text):
  assert parse(text) is None


def test_sentences_name_the_form_of_the_answer():
  assert sentence(Question("count", ("Ham",))) == "How many times does Ham speak? Answer with a number."
  assert "'same frequency'" in sentence(Question("compare", ("A", "B"))) and questions.SAME == "same frequency"


@pytest.mark.parametrize(
  ("kind", "names", "message"),
  [
    ("how", (), "no kind of question 'how': count, tally"),
    ("count", (), "'count' has 1 names"),
    ("list", ("A",), "'list' has 0 names"),
    ("count", ("A, B",), "without commas"),
    ("count", ("A\nB",), "one line"),
  ],
)
def test_a_wrong_question_says_what_is_wrong(kind, names, message):
  with pytest.raises(ValueError, match=message):
    Question(kind, names)
