"""What tests fetch from a package registry."""

import os
from collections.abc import Callable
from typing import Any

import pytest


def or_skip(fetch: Callable[[], Any]) -> Any:
  """What `fetch` gives. Where the registry cannot be reached: a skip, or in `make test-full` a failure."""
  try:
    return fetch()
  except ConnectionError as error:
    if os.environ.get("RAO_FULL") == "1":
      raise
    pytest.skip(str(error))
