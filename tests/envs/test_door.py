"""Worlds by name: what cannot be had is an error that says what is there."""

import sys

import pytest

from rao_jax import envs
from rao_jax.build import demonstrator, make_environment, make_tokenizer
from rao_jax.config import base_config
from rao_jax.envs.textcraft.factory import TextCraftSynth
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.protocol import CUT_MARK


@pytest.fixture
def module(tmp_path, monkeypatch):
  """Writes a module of a user's and makes it importable."""

  def module(name, text):
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)

  return module


def test_a_known_name(tmp_path):
  c = base_config()
  c.environment.name = "textcraft_synth"
  c.environment.options = dict(data_dir=str(tmp_path))
  assert isinstance(make_environment(c), TextCraftSynth)


@pytest.mark.parametrize("name", envs.KNOWN)
def test_every_known_name_leads_to_a_function(name):
  with pytest.raises(ValueError, match=r"config\.environment\.options=.*'no_such_option'.*it takes \("):
    envs.make(name, {"no_such_option": 1})


def test_a_function_of_the_users(module):
  module("my_world", "def make(size, name='x'):\n  return size, name\n")
  assert envs.make("my_world:make", {"size": 3}) == (3, "x")


@pytest.mark.parametrize(
  "name, options, message",
  [
    (
      "textcraft",
      {},
      r"name='textcraft' is unknown: choose one of \['documents', .*'textcraft_synth'\], or module:func",
    ),
    ("no_such_module:make", {}, r"'no_such_module' cannot be imported \(No module named 'no_such_module'\): install"),
    ("needs_more:make", {}, r"'needs_more' cannot be imported \(No module named 'no_such_package'\): install what is"),
    ("my_world:create", {}, r"name='my_world:create': module 'my_world' has no function 'create'"),
    ("my_world:", {}, r"module 'my_world' has no function ''"),
    ("my_world:make", {}, r"options=\{\} do not fit .*\(missing a required argument: 'size'\): it takes \(size\)"),
    ("my_world:make", {"sice": 1}, r"options=\{'sice': 1\} do not fit "),
  ],
)
def test_what_cannot_be_had_is_named(module, name, options, message):
  module("my_world", "def make(size):\n  return size\n")
  module("needs_more", "import no_such_package\n")
  with pytest.raises(ValueError, match=message):
    envs.make(name, options)


def test_an_error_of_a_world_is_not_taken_for_a_missing_one(module):
  module("my_world", "def make():\n  raise TypeError('my own')\n")
  with pytest.raises(TypeError, match="my own"):
    envs.make("my_world:make", {})


def test_without_demonstrations_the_tokenizer_is_bytes_and_the_environments_pieces(interpreter):
  class World:
    pieces = ("launch", "é")

  class Bare:
    functions = ()

  c = base_config()
  tokenizer = make_tokenizer(c, World(), Caps(), interpreter)
  assert [len(tokenizer.encode(text)) for text in ("launch", "é", "ab", CUT_MARK)] == [1, 1, 2, 1]
  assert tokenizer.vocab_size == make_tokenizer(c, Bare(), Caps(), interpreter).vocab_size + 2  # nothing is learned


def test_a_warm_start_without_a_demonstrator_is_an_error_that_says_what_to_set():
  with pytest.raises(ValueError, match=r"has no demonstrator to clone: set config\.warm_start\.tokens=0"):
    demonstrator(base_config(), object())
