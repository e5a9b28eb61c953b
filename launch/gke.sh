#!/usr/bin/env bash
# Trains on Google Kubernetes Engine through xpk, which makes a JobSet: TPU7x, and any slice of a cluster, also several.
#
#   pip install xpk          (and gcloud, kubectl; make the cluster once: xpk cluster create --cluster=C --tpu-type=v6e-16 ...)
#   CLUSTER=c ZONE=us-east5-b launch/gke.sh --name=rao --tpu-type=v6e-16 -- \
#     --config=experiments/qwen3_4b.py --workdir=gs://BUCKET/runs/a
#
# A bucket is attached to the cluster once, after which all workloads see it below /gcs:
#   xpk storage attach BUCKET --cluster=C --zone=Z --type=gcsfuse --bucket=BUCKET --mount-point=/gcs/BUCKET \
#     --readonly=false --auto-mount=true --size=1
# This commit is put into an image; each host runs one process. When a pod fails Kubernetes starts all again, up to
# --restarts times, and they go on from the workdir's last checkpoint, as does the same command under another --name.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/common.sh
. launch/common.sh
USAGE="CLUSTER=... ZONE=... launch/gke.sh [--dry_run] --name=NAME --tpu-type=TYPE [--slices=N] [--restarts=N] -- --config=FILE --workdir=gs://... [--config.key=value ...]"

name="" type="" slices=1 restarts=20
while [ $# -gt 0 ]; do
  case $1 in
    --dry_run) DRY_RUN=1 ;;
    --name=*) name=${1#*=} ;;
    --tpu-type=*) type=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --) shift; break ;;
    *) usage "unknown option $1" ;;
  esac
  shift
done
need_config_and_workdir "$@"
[ -n "$name" ] && [ -n "$type" ] || usage "--name and --tpu-type must be set"
for variable in CLUSTER ZONE; do
  [ -n "${!variable:-}" ] || usage "the environment variable $variable is not set"
done

code=$(mktemp -d)
trap 'rm -rf "$code"' EXIT
run git archive --format=tar --output="$code/rao_jax.tar" HEAD
set_train_words "$@"
inside="tar xf rao_jax.tar && pip install -q '.[tpu]' && $(quoted python -m rao_jax.train --distributed --quiet "${train_words[@]}")"
run xpk workload create --cluster="$CLUSTER" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} --workload="$name" \
  --tpu-type="$type" --num-slices="$slices" --max-restarts="$restarts" \
  --base-docker-image=python:3.12 --script-dir="$code" --command="$inside"
