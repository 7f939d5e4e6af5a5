#!/usr/bin/env bash
# GRPO of Qwen2.5-VL-7B with veRL 0.9.1 or EasyR1, on one machine with 8 GPUs or on N of them. ENGINE: verl, easyr1.
#
#   bash cluster.sh ENGINE setup                                   once: an environment of its own, .venv/ENGINE
#   bash cluster.sh ENGINE train TRAIN VAL [KEY=VALUE ...]         into runs/ENGINE
#   bash cluster.sh ENGINE merge runs/ENGINE/global_step_200 FOLDER
#
# TRAIN and VAL are folders that `python -m vision_reasoner.training.prepare ... --format ENGINE` wrote, or parquet files.
# Settings are in ENGINE.yaml; KEY=VALUE changes one for this run. A run that was stopped continues from its last
# checkpoint with the same command. FOLDER is then a checkpoint for --model_path.
#
# On N machines with this repository, the environment and the data on a shared disk:
#
#   .venv/ENGINE/bin/ray start --head --port 6379                  on the first
#   .venv/ENGINE/bin/ray start --address FIRST:6379                on the others
#   bash cluster.sh ENGINE train TRAIN VAL trainer.nnodes=N        on the first
#
# CLUSTER_ENV names another environment. `verl setup --check` leaves vLLM and flash-attn out: enough for `merge` and
# the tests.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)

usage() {
  sed -n '2,20s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

# The parquet files of a folder, or the one that is given, one path a line.
tables() {
  local found=
  [[ -e $1 ]] && found=$(find "$(realpath "$1")" -maxdepth 1 -name '*.parquet' | sort)
  [[ -n $found ]] || { echo "error: no parquet file in $1: prepare the rows first" >&2; return 1; }
  [[ $(sed 's|.*/||; s|-.*||' <<<"$found" | sort -u | wc -l) -eq 1 ]] || {
    echo "error: more than one split in $1: prepare each into a folder of its own" >&2
    return 1
  }
  echo "$found"
}

# Paths, one a line, as a list on Hydra's command line.
as_list() { sed "s/.*/'&'/" <<<"$1" | paste -sd, | sed 's/.*/[&]/'; }

# EasyR1 takes one folder with nothing but tables in it, whose names say nothing of splits.
link() {
  local path number=0
  rm -rf "$2"
  mkdir -p "$2"
  while read -r path; do ln -s "$path" "$2/part$((number++)).parquet"; done <<<"$1"
}

[[ $# -ge 2 && ($1 == verl || $1 == easyr1) ]] || usage
engine=$1 command=$2
shift 2
environment=${CLUSTER_ENV:-$root/.venv/$engine}
python=$environment/bin/python
easyr1=$environment/EasyR1
easyr1_commit=dd71bbd # of 2026: a reward module says of which type it is (REWARD_TYPE)
runs=$root/runs/$engine
[[ $command == setup || -x $python ]] || {
  echo "error: no environment in $environment: run \`bash ${BASH_SOURCE[0]} $engine setup\` first" >&2
  exit 1
}

case "$engine $command" in
  *" setup")
    [[ $# -eq 0 || "$engine $*" == "verl --check" ]] || usage
    python3 -m venv "$environment"
    if [[ $# -eq 1 ]]; then
      "$python" -m pip install verl==0.9.1 torchvision scipy
    else
      "$python" -m pip install -r "$here/requirements-$engine.txt"
      "$python" -m pip install --no-build-isolation flash-attn==2.8.3
    fi
    if [[ $engine == easyr1 ]]; then
      [[ -d $easyr1 ]] || git clone https://github.com/hiyouga/EasyR1 "$easyr1"
      git -C "$easyr1" checkout --quiet "$easyr1_commit"
      "$python" -m pip install -e "$easyr1" -c "$here/requirements-easyr1.txt"
    fi
    "$python" -m pip install --no-deps -e "$root"
    ;;
  *" train")
    [[ $# -ge 2 ]] || usage
    train=$(tables "$1")
    val=$(tables "$2")
    shift 2
    export TENSORBOARD_DIR=$runs/tensorboard
    if [[ $engine == verl ]]; then
      exec "$python" -m verl.trainer.main_ppo --config-path "$here" --config-name verl \
        trainer.default_local_dir="$runs" data.train_files="$(as_list "$train")" data.val_files="$(as_list "$val")" "$@"
    else
      link "$train" "$runs/data/train"
      link "$val" "$runs/data/val"
      exec "$python" -m verl.trainer.main config="$here/easyr1.yaml" trainer.save_checkpoint_path="$runs" \
        worker.reward.reward_function="$here/easyr1_reward.py:compute_score" \
        data.train_files="$runs/data/train" data.val_files="$runs/data/val" "$@"
    fi
    ;;
  *" merge")
    [[ $# -eq 2 ]] || usage
    if [[ $engine == verl ]]; then
      "$python" -m verl.model_merger merge --backend fsdp --local_dir "$1/actor" --target_dir "$2"
    else
      "$python" "$easyr1/scripts/model_merger.py" --local_dir "$1/actor"
      mkdir -p "$2"
      cp -r "$1/actor/huggingface/." "$2"
    fi
    ;;
  *) usage ;;
esac
