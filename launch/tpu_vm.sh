#!/usr/bin/env bash
# Trains on a slice of Cloud TPU VMs (v4 to v6e; newer chips: launch/gke.sh), one process per host, from your machine.
#
#   export NAME=rao ZONE=us-west4-a TYPE=v5litepod-16
#   launch/tpu_vm.sh create                    asks for the slice as a queued resource, and waits for it
#   launch/tpu_vm.sh setup                     copies this commit to all hosts and installs it
#   launch/tpu_vm.sh train -- --config=experiments/qwen3_4b.py --workdir=gs://BUCKET/runs/a
#   launch/tpu_vm.sh logs                      follows the first host
#   launch/tpu_vm.sh watch -- --config=...     all of the above, and all again whenever the slice is taken away
#   launch/tpu_vm.sh stop | delete
#
# With --dry_run after the verb it only prints its commands. Optional: PROJECT, SPOT=1, RUNTIME (the image).
# The workdir must be one folder that all hosts see: of a bucket with a hierarchical namespace, or a file share. `train` again goes on from its last checkpoint; it does nothing on
# a host where the run is still going.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/common.sh
. launch/common.sh
USAGE="NAME=... ZONE=... TYPE=... launch/tpu_vm.sh create|setup|train|logs|watch|stop|delete [--dry_run] [-- --config=FILE --workdir=DIR ...]"

verb=${1:-}
[ $# -eq 0 ] || shift
if [ "${1:-}" = --dry_run ]; then
  DRY_RUN=1
  shift
fi
if [ $# -gt 0 ]; then
  [ "$1" = -- ] || usage "unknown option $1"
  shift
fi
for variable in NAME ZONE TYPE; do
  [ -n "${!variable:-}" ] || usage "the environment variable $variable is not set"
done
where=(--zone="$ZONE")
[ -z "${PROJECT:-}" ] || where+=(--project="$PROJECT")

# The image that goes with the chip.
runtime() {
  case $TYPE in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) usage "TYPE=$TYPE: v4-8, v5litepod-16, v5p-8, v6e-16 and so on; for newer chips launch/gke.sh" ;;
  esac
}

on_all() { run gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker=all --command="$1"; }

state() {
  gcloud compute tpus queued-resources describe "$NAME" "${where[@]}" --format='value(state.state)' 2>/dev/null || echo NONE
}

create() {
  local image=${RUNTIME:-}
  [ -n "$image" ] || image=$(runtime)
  run gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" "${where[@]}" \
    --accelerator-type="$TYPE" --runtime-version="$image" ${SPOT:+--spot}
  [ -z "$DRY_RUN" ] || return 0
  while true; do
    case $(state) in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDED | NONE) echo "the request for $NAME failed: see queued-resources describe" >&2; return 1 ;;
      *) sleep 30 ;;
    esac
  done
}

setup() {
  local folder
  folder=$(mktemp -d)
  run git archive --format=tgz --output="$folder/rao_jax.tgz" HEAD
  run gcloud compute tpus tpu-vm scp "$folder/rao_jax.tgz" "$NAME:rao_jax.tgz" "${where[@]}" --worker=all
  rm -rf "$folder"
  # The images come with Python 3.10; uv brings its own.
  on_all "set -e; mkdir -p rao_jax; tar xzf rao_jax.tgz -C rao_jax; cd rao_jax; python3 -m pip install -q --user uv; \
command -v gcsfuse >/dev/null || { echo deb https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main | \
sudo tee /etc/apt/sources.list.d/gcsfuse.list; curl -s https://packages.cloud.google.com/apt/doc/apt-key.gpg | \
sudo tee /etc/apt/trusted.gpg.d/gcsfuse.asc >/dev/null; sudo apt-get update -qq; sudo apt-get install -y -qq gcsfuse; }; \
~/.local/bin/uv venv -q --clear --python 3.12 .venv; \
~/.local/bin/uv pip install -q --python .venv/bin/python '.[tpu]'"
}

train() {
  need_config_and_workdir "$@"
  local command bucket mount="" python=.venv/bin/python
  set_train_words "$@"
  command=$(quoted $python -m rao_jax.supervise -- $python -m rao_jax.train --distributed --quiet "${train_words[@]}")
  bucket=$(bucket_of "$@")
  if [ -n "$bucket" ]; then
    mount="mountpoint -q /gcs/$bucket || { sudo install -d -o \$USER /gcs/$bucket; gcsfuse --implicit-dirs $bucket /gcs/$bucket; }; "
  fi
  # The lock is the run's: held as long as it goes on, so that a second `train` starts nothing.
  on_all "${mount}cd rao_jax; nohup setsid flock -n ../rao.lock $command >> ../rao.log 2>&1 < /dev/null &"
}

delete() { run gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force --quiet; }

watch() {
  need_config_and_workdir "$@"
  while true; do
    if [ -n "$DRY_RUN" ] || [ "$(state)" != ACTIVE ]; then
      delete || true
      create && setup && train "$@" || echo "trying again in 5 minutes" >&2
      [ -z "$DRY_RUN" ] || return 0
    fi
    sleep 300
  done
}

case $verb in
  create | setup | delete) "$verb" ;;
  train | watch) "$verb" "$@" ;;
  logs) run gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker=0 --command='tail -n 50 -f rao.log' ;;
  # The holders of the lock are the supervisor and what it has started: it hands the signal on.
  stop) on_all "fuser -s -k -TERM rao.lock || true" ;;
  *) usage "unknown verb ${verb:-(none)}" ;;
esac
