"""Reports of finished or running runs.

python -m rao_jax.report --workdir=A                     writes A/report.html
python -m rao_jax.report --workdir=A --workdir=B         compares; runs that differ by their seed alone are one curve
python -m rao_jax.report --workdir=A --tree=31/2 --text  prints tree 2 of step 31; --node=0.1 one of its agents
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import sys

from rao_jax.report.page import write_report
from rao_jax.report.text import node_text, tree_text
from rao_jax.report.trees import find, read_dumps, read_tree


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m rao_jax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=pathlib.Path, action="append", required=True, help="a run; may be given again")
  parser.add_argument(
    "--summary", type=pathlib.Path, help="summary.json of a demo; default: the one beside the workdirs"
  )
  parser.add_argument("--out", type=pathlib.Path, help="default: report.html in the first workdir")
  parser.add_argument("--tree", help="FILE/LINE of a dump in the first workdir; 31/2 means step_000031/2")
  parser.add_argument("--text", action="store_true", help="print the tree, write no page")
  parser.add_argument("--node", help="with --text: print the turns of this agent, e.g. root or 0.1")
  args = parser.parse_args(argv)
  for workdir in args.workdir:
    if not workdir.is_dir():
      parser.error(f"--workdir={workdir} is not a directory")
  if (args.text and not args.tree) or (args.node and not args.text):
    parser.error("--text prints the tree that --tree names, and with --node one agent of it: --tree=31/2 --text")
  if args.node and not re.fullmatch(r"root|\d+(\.\d+)*", args.node):
    parser.error(f"--node={args.node}: write root, or launches from the root on, e.g. 0.1")
  try:
    if args.text:
      print_tree(args.workdir[0], args.tree, args.node)
      return
    out = args.out or args.workdir[0] / "report.html"
    summary = args.summary or summary_beside(args.workdir)
    write_report(args.workdir, out, json.loads(summary.read_text()) if summary else None, args.tree)
  except ValueError as error:
    parser.error(str(error))
  print(out)


def summary_beside(workdirs: list[pathlib.Path]) -> pathlib.Path | None:
  """The summary of the runs, if all of them are of one demo."""
  folders = {workdir.absolute().parent for workdir in workdirs}
  beside = [workdirs[0]] * (len(workdirs) == 1) + list(folders) * (len(folders) == 1)
  return next((path for folder in beside if (path := folder / "summary.json").exists()), None)


def print_tree(workdir: pathlib.Path, asked: str, node: str | None) -> None:
  source = asked.rpartition("/")[0]
  paths = sorted(workdir.glob("trees/*.jsonl"))
  named = [
    path for path in paths if path.stem == source or (source.isdecimal() and path.stem == f"step_{int(source):06d}")
  ]
  tree = read_tree(find(read_dumps(named or paths).trees, asked))
  if node is None:
    text = tree_text(tree, width=shutil.get_terminal_size().columns)
  else:
    text = node_text(tree, [int(part) for part in node.split(".")] if node != "root" else [])
  try:
    print(text, flush=True)
  except BrokenPipeError:  # less, head: has read enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
  main()
