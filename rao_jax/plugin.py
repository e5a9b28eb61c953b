"""Functions of a user's own, named in a config as `module:function`."""

import importlib
from collections.abc import Callable


def load_function(path: str, setting: str) -> Callable:
  """The function that `path` names.

  Args:
    path: `module:function`, of a module that can be imported.
    setting: `config.key='value'` as errors quote it.
  Raises:
    ValueError: the module or the function is not to be had.
  """
  module_name, _, name = path.partition(":")
  try:
    module = importlib.import_module(module_name)
  except ImportError as e:
    raise ValueError(
      f"{setting}: module {module_name!r} cannot be imported ({e}): install what is missing, or run the command in the "
      "module's folder"
    ) from e
  function = getattr(module, name, None)
  if not callable(function):
    raise ValueError(f"{setting}: module {module_name!r} has no function {name!r}")
  return function
