"""Sweeps: many runs of one experiment with other settings. `sweep(add)` beside `get_config` names their points.

  def sweep(add):
    grid(add, **{"learn.rate": (1e-4, 3e-4), "seed": range(3)})
    random(add, 8, seed=0, **{"learn.rate": log_uniform(1e-5, 1e-3), "credit.leaf_scale": (False, True)})
    add({"learn.rate": 1e-3, "learn.clip": 0.5}, seed=7)

`python launch/sweep.py` runs them.
"""

from rao_jax.sweep.points import grid, log_uniform, random, uniform

__all__ = ["grid", "log_uniform", "random", "uniform"]
