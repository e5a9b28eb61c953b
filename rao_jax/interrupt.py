"""SIGTERM as a wish: the run ends at the next safe point, its state saved. Impure: owns the signal.

Safe points are between two slices of tokens of a rollout, after an update, and between two demonstrations or two
updates of a warm start. Before the first of them there is nothing to save, and the process ends at once.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import jax

from rao_jax.processes import agree

_asked = False  # by a SIGTERM
_waits = False  # for the next safe point


class Interrupted(Exception):
  """Raised at a safe point, on every process."""

  known_to_all = True


def listen() -> None:
  """From here on SIGTERM ends this process with exit code 0."""
  signal.signal(signal.SIGTERM, _handle)


def _handle(*_) -> None:
  global _asked
  _asked = True
  if _waits:
    return
  if jax.distributed.is_initialized():  # to unwind would wait for the others
    os._exit(0)
  sys.exit(0)


@contextlib.contextmanager
def at_safe_points() -> Iterator[None]:
  """Within it SIGTERM waits for `check`, or for whoever looks at `asked`."""
  global _waits
  _waits = True
  try:
    yield
  finally:
    _waits = False


def asked() -> bool:
  """Whether this process was asked to end."""
  return _asked


def check() -> None:
  """A safe point, which all processes come to: raises Interrupted if one of them was asked to end."""
  if agree([asked()])[0]:
    raise Interrupted("asked to end by SIGTERM")
