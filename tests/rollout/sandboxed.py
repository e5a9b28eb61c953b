"""A world that answers calls with what they were called with, and cells run in it one after the other."""

import os

from rao_jax.rollout.interpreter import Limits

NAMES = frozenset({"get_info", "craft", "launch_subagent"})
SHORT = Limits(cell_seconds=0.25)


class World:
  """Answers calls with what they were called with, and keeps the list."""

  def __init__(self):
    self.calls = []

  def __call__(self, name, args, kwargs):
    self.calls.append((name, args, kwargs))
    if name == "craft":
      return object.__new__(Odd)
    return args[0] if args else None


class Odd:
  def __repr__(self):
    return "<odd>"


def run(sandbox, *cells, world=None, names=NAMES):
  """Runs cells in one session, answering every launch with its first argument; returns the last result."""
  state = None
  for code in cells:
    result = sandbox.run(state, code, names, world or World())
    while result.status == "waiting":
      answers = [launch.args[0] if launch.args else None for launch in result.launches]
      result = sandbox.resume(result.state, answers, names, world or World())
    state = result.state
  return result


def processes():
  """All processes that run, zombies left out: id -> (parent, name)."""
  found = {}
  for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
      with open(f"/proc/{pid}/stat") as file:
        head, rest = file.read().rsplit(")", 1)
    except OSError:  # it ended just now
      continue
    state, parent = rest.split()[:2]
    if state != "Z":
      found[int(pid)] = int(parent), head.partition("(")[2]
  return found


def family(ancestor=None):
  """The descendants of a process, ours if none is given: id -> name."""
  everyone, found, last = processes(), {}, {ancestor or os.getpid()}
  while last:
    last = {pid for pid, (parent, _) in everyone.items() if parent in last}
    found.update((pid, everyone[pid][1]) for pid in last)
  return found
