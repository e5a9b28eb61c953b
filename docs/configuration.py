"""Prints docs/configuration.md, every setting with its default, from the comments of rao_jax/config.py.

  python docs/configuration.py > docs/configuration.md

A setting's text is the comment behind its line and the comment lines right above it; those that stand for the fields of
a class (caps, sandbox, more of the policy) have the text of the class's `Attributes`.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from rao_jax import config
from rao_jax.learn.losses import LossOptions
from rao_jax.policy.transformer import PolicyConfig
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.interpreter import Limits
from rao_jax.tree.credit import CreditOptions

CLASSES = {"policy": PolicyConfig, "caps": Caps, "sandbox": Limits, "credit": CreditOptions, "loss": LossOptions}
_SET = re.compile(r"c\.([\w.]+) = .*?(?:  # (.*))?$")


def comments() -> dict[str, str]:
  """Setting or group -> its text, which may be empty, in the order of the file."""
  texts, above = {}, []
  for line in inspect.getsource(config.base_config).splitlines():
    line = line.strip()
    if line.startswith("# "):
      above.append(line[2:])
    elif found := _SET.match(line):
      name, behind = found.groups()
      texts[name] = " ".join([*above, *([behind] if behind else [])])
      above = []
    elif not line:
      above = []
  return texts


def attributes(cls: type) -> dict[str, str]:
  """field -> its text in the `Attributes` of the class; fields that share a text all have it."""
  text = textwrap.dedent(inspect.getdoc(cls).partition("Attributes:\n")[2])
  out = {}
  for entry in re.split(r"\n(?=\S)", text.strip()):
    names, _, meaning = " ".join(entry.split()).partition(": ")
    out |= dict.fromkeys(names.split(", "), meaning)
  return out


def leaves(c: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """(dotted name, default) of every setting."""
  for name, value in c.items():
    if isinstance(value, ConfigDict) and value:
      yield from leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def shown(value: Any) -> str:
  if isinstance(value, ConfigDict):
    return "empty"
  if isinstance(value, tuple):
    return "(" + ", ".join(map(shown, value)) + ("," if len(value) == 1 else "") + ")"
  return f'"{value}"' if isinstance(value, str) else repr(value)


def page() -> str:
  texts = comments()
  lines = [
    "# Configuration\n",
    "Every setting with its default. An experiment file sets what differs, a command line overrides both:",
    "`--config.learn.rate=1e-4`. An unknown name, a value of the wrong type and a setting that would do nothing are",
    "errors before anything is built. Made from `rao_jax/config.py` by `python docs/configuration.py`.",
  ]
  order = list(texts)
  place = lambda name: order.index(name if name in texts else name.partition(".")[0])
  sections: dict[str, list[tuple[str, Any]]] = {"": []}
  for name, value in sorted(leaves(config.base_config()), key=lambda row: place(row[0])):
    sections.setdefault(name.partition(".")[0] if "." in name else "", []).append((name, value))
  for section, rows in sections.items():
    about = texts.get(section)
    lines += [f"\n## {section or 'The run'}\n", *([f"{about[0].upper()}{about[1:]}.\n"] if about else [])]
    lines.append("| setting | default | |\n|---|---|---|")
    of_class = attributes(CLASSES[section]) if section in CLASSES else {}
    for name, value in rows:
      text = texts.get(name) or of_class.get(name.rpartition(".")[2], "")
      lines.append(f"| `{name}` | `{shown(value)}` | {text.removesuffix('.').replace('|', '&#124;')} |")
  return "\n".join(lines)


if __name__ == "__main__":
  print(page())
