"""Texts come back as they were, and no text can name a control token."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rao_jax.envs.textcraft import TextCraft
from rao_jax.rollout.protocol import CONTROLS
from rao_jax.tokenizer import SentencePieceTokenizer, train_sentencepiece

TRAINED_ON = [
  "craft 12 units\tof é\n\n  m0_i1 m0_i1 m0_i1",
  "<cell> next to <end>, <pad> and <unk> \u2581 \x00",
  "2024 2024 2024 x1 x1 x1",
]
TOKENIZER = train_sentencepiece(TRAINED_ON, CONTROLS, TextCraft.pieces, 32)
PROSE = train_sentencepiece(TRAINED_ON, CONTROLS, (), 32, prose=True)
BARE = train_sentencepiece([], CONTROLS, (), 0)  # bytes, a space and a line break
NASTY = st.sampled_from(
  ["\u2581", " ", "  ", "\n", "\x00", "\x1b", "\x7f", "\t", "\r\n", "\ufeff", "\u2028", "\ufffd", "\u2047", "\u2585"]
  + ["<cell>", "<end>", "<out>", "<pad>", "<bos>", "<unk>", "<0x41>", "<s>", "</s>", "[cut]"]
  + ["e\u0301", "\u00e9", "\ufb01", "\U0001f600", "12", "m0_i1"]
)
TEXTS = st.text() | st.lists(NASTY | st.text(max_size=3)).map("".join)


@given(TEXTS)
@example("")
@example("\u2581 \u2581\u2581")
@example(" leading, trailing and  double ")
@example("".join(map(chr, range(256))))
@pytest.mark.parametrize("tokenizer", [TOKENIZER, PROSE, BARE], ids=["trained", "prose", "bare"])
def test_any_text_comes_back_and_holds_no_control_token(tokenizer, text):
  tokens = tokenizer.encode(text)
  assert tokenizer.decode(tokens) == text
  assert not tokenizer.not_text & set(tokens)
  assert all(0 <= token < tokenizer.vocab_size for token in tokens)


@given(TEXTS, TEXTS)
def test_tokens_of_two_texts_side_by_side_decode_to_both(a, b):
  """What a policy sampled need not be how a text would be encoded: it is never re-tokenised, only decoded."""
  assert TOKENIZER.decode(TOKENIZER.encode(a) + TOKENIZER.encode(b)) == a + b


@given(st.text(alphabet="0123456789", min_size=1))
def test_every_digit_of_a_number_is_a_token(number):
  assert [TOKENIZER.decode([token]) for token in TOKENIZER.encode(number)] == list(number)


def test_learned_pieces_keep_digits_apart():
  tokenizer = train_sentencepiece(["craft12 craft34 craft56"] * 20, CONTROLS, (), 16)
  for i in set(range(tokenizer.vocab_size)) - tokenizer.not_text:
    piece = tokenizer.decode([i])
    assert len(piece) == 1 or not any(c.isdigit() for c in piece), piece
  assert [tokenizer.decode([i]) for i in tokenizer.encode("craft12")] == ["craft", "1", "2"]


def test_a_learned_piece_of_prose_may_hold_a_space():
  text = "the king and the queen and the duke " * 5
  plain, prose = (train_sentencepiece([text], CONTROLS, (), 64, prose=prose).encode(text) for prose in (False, True))
  assert len(prose) < len(plain)


@pytest.mark.parametrize("piece", TextCraft.pieces)
def test_a_piece_is_one_token(piece):
  assert len(TOKENIZER.encode(piece)) == 1


def test_of_two_pieces_the_longer_wins():
  tokenizer = train_sentencepiece([], CONTROLS, ("ab", "abc", "bcd", " and "), 0)
  assert [tokenizer.decode([t]) for t in tokenizer.encode("abcd and ab")] == ["abc", "d", " and ", "ab"]


def test_controls_come_first_in_the_order_given():
  assert [TOKENIZER.control(name) for name in CONTROLS] == [0, 1, 2, 3, 4]
  assert TOKENIZER.not_text == {0, 1, 2, 3, 4, 5}  # and the unknown token
  assert TOKENIZER.decode(list(range(5))) == ""


def test_an_unknown_control_is_an_error_that_names_those_there_are():
  with pytest.raises(KeyError, match=r"no control token '<think>'; it has \['<bos>', '<cell>'"):
    TOKENIZER.control("<think>")
  with pytest.raises(KeyError):
    TOKENIZER.control("m0")  # a piece is no control


def test_bytes_that_are_no_text_become_replacement_marks():
  half = BARE.encode("é")[:1]
  assert BARE.decode([*BARE.encode("a"), *half, *BARE.encode("b")]) == "a\ufffdb"


def test_save_and_load_keep_every_id(tmp_path):
  TOKENIZER.save(tmp_path / "tokenizer.model")
  loaded = SentencePieceTokenizer.load(tmp_path / "tokenizer.model")
  assert loaded.model == TOKENIZER.model
  assert (loaded.vocab_size, loaded.not_text) == (TOKENIZER.vocab_size, TOKENIZER.not_text)
  text = TRAINED_ON[0] + "\u2581<end>"
  assert loaded.encode(text) == TOKENIZER.encode(text)


def test_training_is_deterministic():
  assert train_sentencepiece(TRAINED_ON, CONTROLS, TextCraft.pieces, 32).model == TOKENIZER.model
