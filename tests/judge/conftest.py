"""A live endpoint, where its client is installed."""

import importlib.util
import os

import pytest

from tests.judge.server import serving


@pytest.fixture
def server(monkeypatch):
  if importlib.util.find_spec("openai") is None:
    assert not os.environ.get("RAO_FULL"), "the full tests need the package openai"
    pytest.skip("needs the package openai: pip install 'rao-jax[judge]'")
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  with serving() as server:
    yield server
