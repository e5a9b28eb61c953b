"""The plays' archive, fetched once for all tests that need it."""

import os
import pathlib

import pytest

from rao_jax.envs.documents.plays import fetch
from tests.registry import or_skip


@pytest.fixture(scope="session")
def archive() -> pathlib.Path:
  """The archive in the user's cache; without a registry the test is skipped, but fails in the full tests."""
  cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rao_jax"
  return or_skip(lambda: fetch(cache))
