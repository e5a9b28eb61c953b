#!/usr/bin/env bash
# Trains on this machine: CPU, all its GPUs, or the chips of a TPU VM with one host. Started again if it dies.
# The same command goes on from the workdir's last checkpoint.
#
#   launch/local.sh -- --config=experiments/textcraft_synth.py --workdir=runs/a
#   launch/local.sh --processes=2 -- --config=experiments/demo.py:recursive --workdir=runs/b     (CPU: 2 processes)
#
# One process drives all GPUs of a machine; --processes is for trying several on a CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/common.sh
. launch/common.sh
USAGE="launch/local.sh [--dry_run] [--processes=N] [--restarts=N] -- --config=FILE --workdir=DIR [--config.key=value ...]"

processes=1 restarts=3
while [ $# -gt 0 ]; do
  case $1 in
    --dry_run) DRY_RUN=1 ;;
    --processes=*) processes=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --) shift; break ;;
    *) usage "unknown option $1" ;;
  esac
  shift
done
need_config_and_workdir "$@"
[ -z "$(bucket_of "$@")" ] || usage "mount the bucket first (gcsfuse BUCKET DIR), and name a folder in DIR"

# GPUs: most of the memory (JAX's own default is 75 %). launch/plan.py counts on this share.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
run "${PYTHON:-python3}" -m rao_jax.supervise --processes="$processes" --restarts="$restarts" -- \
  "${PYTHON:-python3}" -m rao_jax.train "$@"
