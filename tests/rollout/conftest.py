"""Trees of the logged world, worked by scripts in the real sandbox, one token a character (`byte_protocol`)."""

import dataclasses

import pytest

from rao_jax.rollout.engine import Tree
from rao_jax.rollout.interpreter import MontyInterpreter
from rao_jax.rollout.scripted import play
from tests.rollout.logged import TASK, WIDE, Logged, agents
from tests.rollout.sandboxed import SHORT, World


@pytest.fixture
def start(byte_protocol, interpreter):
  def start(caps=WIDE, sandbox=interpreter, world=Logged, **changes):
    return Tree(world(), TASK, dataclasses.replace(caps, **changes), byte_protocol, sandbox)

  return start


@pytest.fixture
def work(start, byte_protocol):
  def work(scripts, caps=WIDE, world=Logged, **changes):
    """A finished tree; `scripts`: goal -> cells of its agent, which gives up where they run out."""
    return play(start(caps, world=world, **changes), agents(scripts), byte_protocol, 0)

  return work


@pytest.fixture(scope="session")
def sandbox():
  """The real sandbox with a short clock."""
  with MontyInterpreter(SHORT) as interpreter:
    yield interpreter


@pytest.fixture
def world():
  return World()
