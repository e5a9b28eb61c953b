"""A sweep of two small runs, for test_sweep.py; the environment variable SWEPT_STEPS says how long they are."""

import os

from rao_jax.sweep import grid
from tests import branches


def get_config():
  c = branches.get_config()
  c.judge.kind = "rule"
  c.steps = int(os.environ.get("SWEPT_STEPS", 2))
  c.evaluation.every = c.steps
  c.compile_cache = os.environ.get("SWEPT_CACHE", "")
  return c


def sweep(add):
  grid(add, **{"learn.rate": (1e-3, 3e-3)}, seed=[5])
