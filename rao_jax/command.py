"""What the commands share: flags and settings that cannot work end in one line, with the spelling that would do.

Impure: reads the command line, ends the process.
"""

import contextlib
import difflib
import importlib.util
import itertools
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags
from ml_collections import ConfigDict

REFUSED = 2  # exit code where the words or the settings cannot work
STOPPED = 1  # where the run cannot go on, but its state is saved

PACKAGE = pathlib.Path(__file__).parent
SETTING = re.compile(r"--?(?:no)?config\.([^=]+)(=.*)?$", re.DOTALL)


def run(main: Callable[[flags.FlagValues], None]) -> None:
  """Parses the flags and calls `main` with them; errors of the words or of `settings` are one line, no traceback."""
  app.run(lambda f: _or_one_line(main, f), flags_parser=lambda argv: _or_one_line(parse, argv))


def _or_one_line(call: Callable, argument):
  try:
    return call(argument)
  except (app.UsageError, flags.Error) as e:
    line = str(e)
  except Exception as e:
    if not getattr(e, "is_setting", False):
      raise
    line = str(e)
  print(f"error: {line}", file=sys.stderr, flush=True)
  sys.exit(REFUSED)


@contextlib.contextmanager
def settings() -> Iterator[None]:
  """Work before the work: what this package or the system refuses here is a setting, or a file that one names.

  An error that comes from elsewhere, such as a user's environment or JAX, keeps its traceback.
  """
  try:
    yield
  except (ValueError, OSError, ImportError) as e:
    here = pathlib.Path(traceback.extract_tb(e.__traceback__)[-1].filename)
    e.is_setting = not isinstance(e, ValueError) or here.is_relative_to(PACKAGE)
    raise


def parse(argv: Sequence[str]) -> flags.FlagValues:
  """The flags; a UsageError says what is wrong with a word and how it should read."""
  f = flags.FLAGS
  if "config" in f:
    words = list(argv[1:])
    files = [b for a, b in itertools.pairwise(words) if a in ("-config", "--config")]
    files += [word.partition("=")[2] for word in words if re.match("--?config=", word)]
    if files:
      config = load_config(files[-1])
      for word in words:
        check_setting(config, word)
  left = f(argv)[1:]
  if left:
    known = lambda word: word.startswith("config.") or word.partition("=")[0] in f
    meant = [f"--{word}" for word in left if known(word)]
    raise app.UsageError(
      f"left over on the command line: {' '.join(left)}; "
      + (f"write {' '.join(meant)}" if meant else "flags begin with --, settings read --config.key=value")
    )
  return f


def load_config(path: str) -> ConfigDict:
  """What `get_config` of an experiment file gives; a UsageError names the line that sets what cannot be set."""
  file, *argument = path.split(":", 1)
  if not pathlib.Path(file).is_file():
    raise app.UsageError(f"--config={path}: there is no file {file}")
  spec = importlib.util.spec_from_file_location("experiment", file)
  experiment = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(experiment)
    return experiment.get_config(*argument)
  except (AttributeError, KeyError, TypeError, ValueError) as e:
    frames = traceback.extract_tb(e.__traceback__)
    own = [frame.lineno for frame in frames if pathlib.Path(frame.filename).name == pathlib.Path(file).name]
    if not own or "ml_collections" not in frames[-1].filename:
      raise  # a bug of the experiment's own code
    # An unknown key: all others are listed in the middle of the message.
    text = re.sub(r" Other fields present: .*?(?=Did you|'?$)", " ", str(e.args[0]), flags=re.DOTALL)
    text = " ".join(text.replace("\\n", " ").replace("\\", "").strip("'").split())
    raise app.UsageError(f"{file}, line {own[-1]}: {text}") from None


def check_setting(config: ConfigDict, word: str) -> None:
  """UsageError if `word` sets what there is not, with the nearest that there is."""
  match = SETTING.match(word)
  if not match:
    return
  key, node = match[1], config
  for name in key.split("."):
    if not isinstance(node, ConfigDict) or name not in node:
      near = nearest(key, list(keys(config)))
      hint = f": did you mean --config.{near}{match[2] or ''}?" if near else ""
      raise app.UsageError(f"{word}: there is no setting config.{key}{hint}")
    node = node[name]


def keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
  """The settings' names, `learn.rate` and so on."""
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from keys(value, f"{prefix}{name}.")
    else:
      yield prefix + name


def nearest(key: str, known: Sequence[str]) -> str | None:
  """The name most like `key`: one that has its last part in another group, or nearly its letters."""
  last = key.split(".")[-1]
  elsewhere = [name for name in known if name.split(".")[-1] == last]
  if elsewhere:
    return difflib.get_close_matches(key, elsewhere, 1, cutoff=0.0)[0]
  if found := difflib.get_close_matches(key, known, 1):
    return found[0]
  found = difflib.get_close_matches(last, [name.split(".")[-1] for name in known], 1)
  return next((name for name in known if name.split(".")[-1] in found), None)
