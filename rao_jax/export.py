"""Writes a trained policy as a Hugging Face folder, adapters merged, with its tokenizer. Impure.

python -m rao_jax.export --workdir=runs/qwen3_4b --out=models/qwen3_4b_rao
"""

import argparse
import pathlib
import shutil

import jax

from rao_jax.build import make_run
from rao_jax.evaluate import load_config, restore_state
from rao_jax.hf_tokenizer import JSON_FILE, MODEL_FILE
from rao_jax.policy.hf_config import DTYPES
from rao_jax.policy.lora import join, merged
from rao_jax.policy.pretrained import save_pretrained, with_dtype
from rao_jax.train import quieten


def export(workdir: pathlib.Path, out: pathlib.Path, checkpoint: str = "last", dtype: str | None = None) -> int:
  """Writes the folder; returns the step that its parameters are of.

  Args:
    workdir: of a training run.
    out: folder to make; if it is there, it must hold no weights.
    checkpoint: `last`, `best` or `warm_start`.
    dtype: of the weights in the folder; None is the dtype in which the run used them.
  """
  config = load_config(workdir)
  run = make_run(config, workdir)
  try:
    step, state, _ = restore_state(run, workdir, checkpoint)
    policy, params = merged(join(run.frozen, state.params), run.policy)
  finally:
    run.close()
  policy = with_dtype(policy, dtype or policy.dtype)
  source = pathlib.Path(config.policy.path) if config.policy.path else None
  params = jax.tree.map(lambda x: x.astype(policy.param_dtype), params)
  save_pretrained(out, policy, params, like=source if source and source.is_dir() else None)
  for name in (JSON_FILE, MODEL_FILE):
    if (workdir / name).exists():
      shutil.copy(workdir / name, out / name)
  return step


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(prog="python -m rao_jax.export", description=__doc__)
  parser.add_argument("--workdir", type=pathlib.Path, required=True, help="of a training run")
  parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to make")
  parser.add_argument("--checkpoint", choices=("last", "best", "warm_start"), default="last")
  parser.add_argument("--dtype", choices=DTYPES, help="of the weights; default: that in which the run used them")
  args = parser.parse_args(argv)
  quieten()
  step = export(args.workdir, args.out, args.checkpoint, args.dtype)
  print(f"{args.out}: the policy of step {step}")


if __name__ == "__main__":
  main()
