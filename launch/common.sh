# Shared by the scripts of this folder, which source it: they print each command, and with --dry_run only that.

DRY_RUN=${DRY_RUN:-}

# Prints a command as it can be pasted, and runs it unless this is a dry run.
run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  [ -n "$DRY_RUN" ] || "$@"
}

# The one-line form of words that another shell will read.
quoted() {
  local line
  printf -v line '%q ' "$@"
  printf '%s' "${line% }"
}

# Says what is wrong with the command line, and leaves.
usage() {
  echo "$(basename "$0"): $1" >&2
  echo "usage: $USAGE" >&2
  exit 2
}

# Training needs both; the workdir is also what a restart goes on from.
need_config_and_workdir() {
  case " $* " in *" --config="*) ;; *) usage "no --config=FILE after --" ;; esac
  case " $* " in *" --workdir="*) ;; *) usage "no --workdir=DIR after --" ;; esac
}

# The bucket of --workdir=gs://BUCKET/DIR, if it is one.
bucket_of() {
  local word
  for word in "$@"; do
    case $word in --workdir=gs://*) word=${word#--workdir=gs://}; echo "${word%%/*}" ;; esac
  done
}

# The words of a training run in the array `train_words`. Runs read and write files: a bucket is mounted at /gcs/BUCKET.
# It needs a hierarchical namespace, which makes the rename by which a checkpoint becomes whole one step.
set_train_words() {
  local word
  train_words=()
  for word in "$@"; do train_words+=("${word/#--workdir=gs:\/\//--workdir=/gcs/}"); done
}
