"""docs/configuration.md is what its script prints now, and has a text for every setting."""

import importlib.util
import pathlib
import re

from rao_jax.command import keys
from rao_jax.config import OPEN, base_config

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def test_the_page_is_made_of_the_config_as_it_is():
  spec = importlib.util.spec_from_file_location("configuration", DOCS / "configuration.py")
  script = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(script)
  text = (DOCS / "configuration.md").read_text()
  assert text == script.page() + "\n", "make it anew: python docs/configuration.py > docs/configuration.md"
  rows = re.findall(r"^\| `([\w.]+)` \| `(.*)` \| (.*) \|$", text, re.MULTILINE)
  assert {name for name, *_ in rows} == {*keys(base_config()), *OPEN} and all(about for *_, about in rows)
  told = {name: (default, about) for name, default, about in rows}
  assert told["learn.rate"] == ("0.0003", "peak learning rate")
  assert told["caps.max_nodes"] == ("128", "nodes of a tree, the root included")
