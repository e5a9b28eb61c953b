"""`python -m rao_jax.report --workdir=DIR [--workdir=DIR2]`: writes report.html of finished or running runs."""

import argparse
import json
import pathlib

from rao_jax.report.page import write_report


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(prog="python -m rao_jax.report", description=__doc__)
  parser.add_argument("--workdir", type=pathlib.Path, action="append", required=True, help="a run; may be given again")
  parser.add_argument(
    "--summary", type=pathlib.Path, help="summary.json of a demo; default: the one beside the workdirs"
  )
  parser.add_argument("--out", type=pathlib.Path, help="default: report.html in the first workdir")
  args = parser.parse_args(argv)
  for workdir in args.workdir:
    if not workdir.is_dir():
      parser.error(f"--workdir={workdir} is not a directory")
  beside = [args.workdir[0] / "summary.json", args.workdir[0].parent / "summary.json"]
  summary = args.summary or next((path for path in beside if path.exists()), None)
  out = args.out or args.workdir[0] / "report.html"
  write_report(args.workdir, out, json.loads(summary.read_text()) if summary else None)
  print(out)


if __name__ == "__main__":
  main()
