"""The door: worlds by name, and those of a user's own by `module:function`."""

import inspect
from typing import Any

from rao_jax.envs.base import Environment
from rao_jax.plugin import load_function

KNOWN = {
  "textcraft_synth": "rao_jax.envs.textcraft.factory:make",
  "textcraft_minecraft": "rao_jax.envs.textcraft.minecraft:make",
  "documents": "rao_jax.envs.documents.factory:make",
}


def make(name: str, options: dict[str, Any]) -> Environment:
  """The environment that `config.environment.name` asks for.

  Args:
    name: a key of `KNOWN`, or `module:function` of an importable module.
    options: keyword arguments of the function.
  Raises:
    ValueError: it names what is unknown, missing or superfluous.
  """
  asked = f"config.environment.name={name!r}"
  path = KNOWN.get(name, name)
  if ":" not in path:
    raise ValueError(f"{asked} is unknown: choose one of {sorted(KNOWN)}, or module:function for one of your own")
  function = load_function(path, asked)
  try:
    inspect.signature(function).bind(**options)
  except TypeError as error:
    raise ValueError(
      f"config.environment.options={options} do not fit {asked} ({error}): it takes {inspect.signature(function)}"
    ) from None
  return function(**options)
