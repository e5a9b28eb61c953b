"""Scores worked by hand from the rules of Oolong-Real and Oolong-Synth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rao_jax.envs.documents.questions import Answer
from rao_jax.envs.documents.scoring import parse_answer, score, score_synth


@pytest.mark.parametrize(
  ("prediction", "credit"),
  [
    (5, 1.0),
    (4, 0.75),
    (7, 0.5625),  # 0.75 ** 2
    ("5", 1.0),
    (" 6 ", 0.75),
    (r"The answer is \boxed{5}.", 1.0),
    (r"\boxed{\text{3}}", 0.5625),
    (r"\boxed{{5}}", 1.0),
    (10**500, 0.0),  # no overflow
    (-(10**500), 0.0),
    ("9" * 5000, 0.0),  # more digits than int() reads
    ("five", 0.0),
    (5.0, 0.0),
    (True, 0.0),
    ([5], 0.0),
    ("5, 5", 0.0),
    (None, 0.0),
    ({"Ham": 5}, 0.0),
  ],
)
def test_numbers_lose_a_quarter_for_each_one_off(prediction, credit):
  assert score(prediction, Answer(5)) == pytest.approx(credit, abs=1e-9)


@pytest.mark.parametrize(
  ("prediction", "credit"),
  [
    ("Ham", 1),
    (" hAM ", 1),
    (r"\boxed{\text{Ham}}", 1),
    (r"\boxed{ham}", 1),
    ("Hor", 1),  # tied
    ("Ham.", 0),
    ("Ham, Hor", 0),  # a list
    (["Ham"], 0),
    (1, 0),
    ("", 0),
    (None, 0),
  ],
)
def test_strings_are_equal_but_for_case(prediction, credit):
  assert score(prediction, Answer("Ham", ("Hor",))) == credit


@pytest.mark.parametrize(
  ("prediction", "credit"),
  [
    (["Ham", "Hor", "Pol", "Ber"], 1),
    (["Ham", "Hor", "x", "y", "z"], 0.5),  # 2 of 4, extras are not penalised
    (["Ham", "Ham"], 0.25),
    ({"Ham", "Hor"}, 0.5),
    (("Ber", 3, None), 0.25),
    ("Ham, Hor,Pol", 0.75),
    (r"\boxed{Ham, Ber}", 0.5),
    ("Ham", 0),  # a string
    (["ham"], 0),  # as written
    ([], 0),
    ("", 0),
    (4, 0),
    ({"Ham": 1}, 0),
  ],
)
def test_lists_count_what_is_shared(prediction, credit):
  assert score(prediction, Answer(("Ber", "Ham", "Hor", "Pol"))) == credit


@pytest.mark.parametrize(
  ("prediction", "gold", "credit"),
  [
    ("Ham", ("Ham",), 1),
    ("Ham, Hor", ("Ham",), 1),
    (["Hor"], ("Ham",), 0),
    ([], (), 1),
    ("", (), 1),
    ("None", (), 1),
    (["Ham"], (), 0),
    ("Ham", (), 0),
    (0, (), 0),
  ],
)
def test_lists_of_one_and_of_none(prediction, gold, credit):
  assert score(prediction, Answer(gold)) == credit


@pytest.mark.parametrize(
  ("prediction", "credit"),
  [
    ({"Ham": 3, "Hor": 1}, 1),
    ({"Ham": 1, "Hor": 1}, (0.5625 + 1) / 2),
    ({"Ham": 3}, 1 / 2),  # a missing name
    ({"Ham": 3, "Hor": 1, "Pol": 1}, 2 / 3),  # a name too many
    ({"Ham": 3, "Hor": 1, "Pol": 0, "Ber": 0}, 1),  # zeros say nothing, so many of them gain nothing either
    ({name: 0 for name in "abcdefgh"}, 0),
    ({"Ham": "3", "Hor": 1}, 1 / 2),
    ({}, 0),
    ("Ham: 3, Hor: 1", 1),
    ("{'Ham': 3, \"Hor\": 2}", (1 + 0.75) / 2),
    ("Ham 3", 0),
    (["Ham"], 0),
    (4, 0),
  ],
)
def test_tallies_are_the_mean_over_all_names(prediction, credit):
  assert score(prediction, Answer({"Ham": 3, "Hor": 1})) == pytest.approx(credit)


def test_an_empty_tally_is_matched_by_an_empty_one():
  assert [score(said, Answer({})) for said in ({}, "{}", "", {"Ham": 1}, None)] == [1, 1, 1, 0, 0]


values = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.sampled_from([Answer(3), Answer("A"), Answer(()), Answer(("A", "B")), Answer({}), Answer({"A": 2})]))
def test_whatever_is_predicted_has_a_score(prediction, answer):
  assert 0.0 <= score(prediction, answer) <= 1.0


def test_golds_of_real_are_numbers_lists_or_strings():
  assert [parse_answer(text).value for text in ("12", "-1", "a b", "a, b,c")] == [12, -1, "a b", ("a", "b", "c")]


@pytest.mark.parametrize(
  ("prediction", "answer", "kind", "credit"),
  [
    # The whole of a short text, the last word of a long one, or what stands after the last colon.
    ("spam", "['spam']", "LABEL", 1),
    ("I am quite sure that it is spam", "['spam']", "LABEL", 1),
    ("Label: **[spam]**", "['spam']", "LABEL", 1),
    ("Label: ham. No: spam", "['spam']", "LABEL", 1),
    ("Label: Spam", "['spam']", "LABEL", 0),
    ("spam", "['ham', 'spam']", "LABEL", 0),  # only the first element is gold
    # Numbers.
    ("Answer: 12", "[12]", "NUMERIC", 1),
    (10, "[12]", "NUMERIC", 0.5625),
    ("Answer: about twelve", "[12]", "NUMERIC", 0),
    ("11", "['12']", "NUMERIC", 0.75),
    # Comparisons, by phrase, also when gold is worded otherwise.
    ("Answer: spam is more common than ham", "['more common than']", "COMPARISON", 1),
    ("Answer: less common", "['more common than']", "COMPARISON", 0),
    ("same frequency", "['same frequency as']", "COMPARISON", 1),
    # Users and months want the text itself.
    ("User: 4711", "[4711]", "USER", 1),
    ("User: 4712", "[4711]", "USER", 0),
    ("Answer: June 2023", "['June 2023']", "MONTH_YEAR", 1),
    # Dates, in any of several spellings.
    ("Date: 2023-01-05", "[datetime.date(2023, 1, 5)]", "DATE", 1),
    ("Date: [Jan 5, 2023]", "[datetime.date(2023, 1, 5)]", "DATE", 1),
    ("01/05/2023", "[datetime.date(2023, 1, 5)]", "DATE", 1),
    ("Date: 5 January 2023", "[datetime.date(2023, 1, 5)]", "DATE", 1),
    ("Date: 2023-01-06", "[datetime.date(2023, 1, 5)]", "DATE", 0),
    ("Date: soon", "[datetime.date(2023, 1, 5)]", "DATE", 0),
    ("", "['spam']", "LABEL", 0),
    (" " * 30, "['spam']", "LABEL", 0),
  ],
)
def test_synth(prediction, answer, kind, credit):
  assert score_synth(prediction, answer, f"ANSWER_TYPE.{kind}") == pytest.approx(credit)


def test_a_gold_that_synth_does_not_know_is_named():
  with pytest.raises(ValueError, match="got 'spam'"):
    score_synth("spam", "spam", "ANSWER_TYPE.LABEL")
