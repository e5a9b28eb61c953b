"""Compiles a run's programs for chips that this machine does not have: what fits, what a step costs at least.

python launch/plan.py --config=experiments/qwen3_4b.py --topology=v5e:4x4 [--topology=h100:8 ...]
  [--config.key=value ...] [--json=FILE]

Needs the compiler of the target: extra `plan` for TPUs, `plan-cuda` for NVIDIA GPUs. Needs no weights, no tokenizer and
no accelerator, and allocates no parameter. Leaves with 0 if every program fits every topology, else with 3.
"""

import json
import logging
import os
import pathlib
import sys

os.environ["JAX_PLATFORMS"] = "cpu"  # the chips are only compiled for
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags
from ml_collections import config_flags

from rao_jax import command
from rao_jax.plan.programs import make_plan, parts_of
from rao_jax.plan.remedies import find_remedy
from rao_jax.plan.table import as_json, remedy_text, text
from rao_jax.plan.targets import FORMS, find_target
from rao_jax.plan.verdict import judge_all

DOES_NOT_FIT = 3


def main(f: flags.FlagValues) -> None:
  say = lambda line: print(line, file=sys.stderr, flush=True)
  tokens = f.tokens_per_tree or f.config.caps.window
  try:
    targets = [find_target(name) for name in f.topology]
    plans = [make_plan(f.config, parts_of(f.config, target.devices), tokens) for target in targets]
  except (ImportError, ValueError) as e:
    sys.exit(f"no plan: {e}")
  results, name = [], config_flags.get_config_filename(f["config"])
  for plan, target in zip(plans, targets, strict=True):
    verdicts = judge_all(plan, target, say)
    print(text(name, plan, target, verdicts), flush=True)
    remedy, failed = None, [v.name.split()[0] for v in verdicts if not v.fits]
    if failed and f.tries:
      remedy = find_remedy(f.config, plan.parts, target, tokens, failed, f.tries, say)
      print(remedy_text(remedy), flush=True)
    print()
    results.append(as_json(plan, target, verdicts, remedy))
  if f.json:
    pathlib.Path(f.json).write_text(json.dumps(results, indent=2))
  sys.exit(0 if all(r["fits"] for r in results) else DOES_NOT_FIT)


if __name__ == "__main__":
  config_flags.DEFINE_config_file("config", None, "An experiment file with get_config().", lock_config=True)
  flags.DEFINE_multi_string("topology", None, f"Chips to compile for, any number of times: {FORMS}.")
  flags.DEFINE_string("json", "", "File to write the same figures to.")
  flags.DEFINE_integer("tokens_per_tree", 0, "Tokens of a tree, to count a step's calls; 0 is config.caps.window.")
  flags.DEFINE_integer("tries", 6, "Sets of changes to compile if it does not fit; 0 looks for none.")
  flags.mark_flags_as_required(["config", "topology"])
  logging.getLogger("jax").setLevel(logging.ERROR)
  command.run(main)
