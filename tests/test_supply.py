"""What the package must not do with data that others wrote, and what a default install brings."""

import ast
import pathlib
import re

import rao_jax

ROOT = pathlib.Path(rao_jax.__file__).parent
RUN_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch"}


def test_nothing_in_the_package_unpickles_or_evaluates():
  found = []
  for path in ROOT.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name.partition(".")[0] for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [(node.module or "").partition(".")[0]]
      elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        names = [node.func.id] if node.func.id in ("eval", "exec") else []
      elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
        names = ["pickle"]
      found += [f"{path.name}:{node.lineno} {name}" for name in names if name in RUN_DATA | {"eval", "exec"}]
  assert not found


def test_every_package_of_a_default_install_is_pinned_with_hashes_and_has_a_licence():
  lock = (ROOT.parent / "requirements.lock").read_text()
  packages = re.split(r"\n(?=\w)", re.sub("\n+# The following.*", "", lock.strip()))
  assert packages.pop(0).startswith("#") and len(packages) > 50
  assert all(re.match(r"[\w.-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", package) for package in packages)
  listed = re.findall(r"^\| (\S+) \| (\S+) \| (.+) \|$", (ROOT.parent / "docs/licences.md").read_text(), re.MULTILINE)[
    1:
  ]
  assert [f"{name}=={version}" for name, version, _ in listed] == [package.split()[0] for package in packages]
  assert not [row for row in listed if row[2] == "not stated" or re.search(r"(?<!L)GPL", row[2])]
