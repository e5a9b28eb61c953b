"""Prints docs/licences.md, what a default install brings, by the metadata of the packages. Run by make lock."""

import importlib.metadata
import pathlib
import re

LOCK = pathlib.Path(__file__).parents[1] / "requirements.lock"


def pinned() -> list[tuple[str, str]]:
  """(name, version) of every package of the lock file."""
  return re.findall(r"^([\w.-]+)==([^\s\\;]+)", LOCK.read_text(), re.MULTILINE)


def licence(name: str) -> str:
  """The expression of a package's metadata; of older ones the classifiers, or the first line of the text."""
  data = importlib.metadata.metadata(name)
  if data.get("License-Expression"):
    return data["License-Expression"]
  classified = [c.split(" :: ")[-1] for c in data.get_all("Classifier") or [] if c.startswith("License ::")]
  return " / ".join(classified) or (data.get("License") or "not stated").splitlines()[0].strip()


def main() -> None:
  print("# Licences of a default install\n")
  print("Made by `make lock` from the packages' own metadata. rao_jax itself is under Apache-2.0.\n")
  print("| package | version | licence |\n|---|---|---|")
  for name, version in pinned():
    print(f"| {name} | {version} | {licence(name)} |")


if __name__ == "__main__":
  main()
