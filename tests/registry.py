"""What tests fetch from a package registry."""

import contextlib
import fcntl
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import pytest


def or_skip(fetch: Callable[[], Any]) -> Any:
  """What `fetch` gives. Where the registry cannot be reached: a skip, or in `make test-full` a failure."""
  try:
    with one_at_a_time():
      return fetch()
  except ConnectionError as error:
    if os.environ.get("RAO_FULL") == "1":
      raise
    pytest.skip(str(error))


@contextlib.contextmanager
def one_at_a_time():
  """Among the processes that run tests: what one fetches the next finds."""
  with (pathlib.Path(tempfile.gettempdir()) / "rao_jax_tests.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
