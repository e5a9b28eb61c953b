"""The process that stands between the trainer and the sandbox's worker: struck, silent, orphaned."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rao_jax.envs.base import Show
from rao_jax.rollout.engine import Outcome, Tree
from rao_jax.rollout.guard import GuardedInterpreter
from rao_jax.rollout.scripted import play
from tests.rollout.logged import TASK, WIDE, Logged, LoggedEpisode, agents
from tests.rollout.sandboxed import NAMES, SHORT, World, family, processes, run

LOST = ("dead", "RuntimeError: the sandbox was lost", True)
GUARD, WORKER = "guard", "worker"


def assert_end(pids):
  """They end soon, whoever their parent is by now."""
  deadline = time.monotonic() + 10
  while processes().keys() & pids and time.monotonic() < deadline:
    time.sleep(0.02)
  assert not processes().keys() & pids


def status_of(pid):
  """Of a process, by the letter that the system gives it: T is stopped, Z is ended (or gone)."""
  try:
    with open(f"/proc/{pid}/stat") as file:
      return file.read().rsplit(")", 1)[1].split()[0]
  except OSError:
    return "Z"


class Struck:
  """A sandbox and its processes, which can be sent signals."""

  def __init__(self):
    self._others = family().keys()
    self.sandbox = GuardedInterpreter(SHORT, grace=0.5)
    run(self.sandbox, "1")  # by now there is a worker too

  def processes(self):
    pids = {pid: name for pid, name in family().items() if pid not in self._others}
    return {WORKER if "monty" in name else GUARD: pid for pid, name in pids.items()}

  def strike(self, who, number):
    """Sends a signal, and waits until it has taken hold: it does so a moment later."""
    pid = self.processes()[who]
    os.kill(pid, number)
    deadline = time.monotonic() + 10
    while status_of(pid) not in "TZ" and time.monotonic() < deadline:
      time.sleep(0.005)


@pytest.fixture
def struck():
  struck = Struck()
  with struck.sandbox:
    yield struck
  assert not struck.processes()


@pytest.mark.parametrize("who", [GUARD, WORKER])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_killed_or_hung_in_a_call_costs_that_cell_alone_and_is_replaced(struck, byte_protocol, who, number):
  """Beside the agent whose call strikes, another is suspended, and goes on in the processes that come after."""

  class Striking(Logged):
    def start(self, task):
      return StrikingEpisode()

  class StrikingEpisode(LoggedEpisode):
    def call(self, path, name, args, kwargs):
      if args == ("strike",):
        struck.strike(who, number)
      return super().call(path, name, args, kwargs)

  scripts = {
    "root": ["x = 6\nr = await asyncio.gather(launch_subagent('a'), launch_subagent('b'))", "finish([x, r])"],
    "a": ["note('strike')\nnote('never')"],
    "b": ["y = 7", "finish([y])"],
  }
  before = struck.processes()
  tree = play(Tree(Striking(), TASK, WIDE, byte_protocol, struck.sandbox), agents(scripts), byte_protocol, 0)
  assert tree.root.message == [6, ["Error: timed_out", [7]]]
  assert [node.outcome for node in tree.nodes] == [Outcome.FINISHED, Outcome.TIMED_OUT, Outcome.FINISHED]
  assert tree.nodes[1].turns[0].output == LOST[1] and not tree.replayable
  assert tree.episode.only("note") == [("note", (0,), "strike")]  # what has happened is not repeated
  after = struck.processes()
  assert len(after) == 2 and after[who] != before[who]
  assert_end(set(before.values()) - set(after.values()))


@pytest.mark.parametrize("who", [GUARD, WORKER])
def test_a_process_killed_while_idle_is_replaced_unseen(struck, who):
  state = struck.sandbox.run(None, "x = 41", NAMES, World()).state
  struck.strike(who, signal.SIGKILL)
  assert struck.sandbox.run(state, "x + 1", NAMES, World()).value == 42


def test_what_takes_the_host_hours_to_hash_costs_a_second(struck):
  tower = "x = 1\nfor i in range(60): x = (x, x)\n"
  assert run(struck.sandbox, tower + "hash(x) != 0").value is True  # the worker remembers hashes of tuples
  began = time.monotonic()
  result = run(struck.sandbox, tower + "{x: 1}")
  assert (result.status, result.error, result.timed_out) == LOST
  assert time.monotonic() - began < 5  # 0.25 of the clock and 0.75 of grace, on a busy machine


def test_a_process_that_cannot_start_is_an_error_at_once(monkeypatch):
  monkeypatch.setattr(sys, "executable", "/bin/false")
  with pytest.raises(RuntimeError, match="the sandbox's process did not start: /bin/false ended with 1"):
    GuardedInterpreter()


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), ConnectionResetError("judge"), EOFError("file")])
def test_an_exception_of_the_environment_is_raised_and_the_sandbox_goes_on(struck, error):
  def call(name, args, kwargs):
    raise error

  with pytest.raises(type(error), match=str(error)):
    struck.sandbox.run(None, "try:\n  get_info(1)\nexcept BaseException: pass", NAMES, call)
  assert run(struck.sandbox, "1 + 1").value == 2


def test_a_misused_state_is_an_error_as_without_a_guard(struck):
  first = struck.sandbox.run(None, "await launch_subagent(1)", NAMES, World())
  with pytest.raises(ValueError, match="waits for answers"):
    struck.sandbox.run(first.state, "x", NAMES, World())
  with pytest.raises(ValueError, match="2 answers for 1 launches"):
    struck.sandbox.resume(first.state, [1, 2], NAMES, World())
  assert struck.sandbox.resume(first.state, {0: "A"}, NAMES, World()).value == "A"


def test_answers_cross_as_plain_values_and_shown_texts(struck):
  call = lambda name, args, kwargs: Show("shown") if name == "get_info" else {"set": {2, 1}, "self": struck}
  result = struck.sandbox.run(None, "print(get_info(1))\ncraft(2)['set']", NAMES, call)
  assert (result.stdout, result.value) == ("shown\nNone\n", [1, 2])


def test_the_processes_have_nothing_of_the_trainers_environment(monkeypatch):
  monkeypatch.setenv("SECRET_TOKEN", "canary-7a1f")
  struck = Struck()
  with struck.sandbox:
    assert struck.processes().keys() == {GUARD, WORKER}
    for pid in struck.processes().values():
      with open(f"/proc/{pid}/environ") as file:
        assert "canary-7a1f" not in file.read()


def test_signals_meant_for_the_trainer_leave_the_sandbox_at_work(struck):
  for number in (signal.SIGINT, signal.SIGTERM):
    struck.strike(GUARD, number)
  before = struck.processes()
  assert run(struck.sandbox, "1 + 1").value == 2 and struck.processes() == before


def test_no_process_outlives_a_trainer_that_is_killed():
  code = (
    "import sys\nfrom rao_jax.rollout.guard import GuardedInterpreter\nsandbox = GuardedInterpreter()\n"
    "sandbox.run(None, '1', frozenset(), print)\nprint('ready', flush=True)\nsys.stdin.read()"
  )
  pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
  with subprocess.Popen([sys.executable, "-c", code], **pipe) as trainer:
    assert trainer.stdout.readline() == "ready\n"
    sandbox = family(trainer.pid).keys()
    assert len(sandbox) == 2
    trainer.kill()
  assert_end(sandbox)
