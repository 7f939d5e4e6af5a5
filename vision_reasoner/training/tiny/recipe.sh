#!/usr/bin/env bash
# Trains VisionReasoner-Tiny from nothing: drawings, all supervised stages, averaging, reinforcement learning, and a
# bundle that --model_path takes, with its figures.
#
#   bash vision_reasoner/training/tiny/recipe.sh --hours 12
#
#   --hours H         time for all supervised stages together (default: 12). On top come 8 steps of reinforcement
#                     learning for each, about a minute, fetching drawings, starting up, and measuring
#   --output_dir DIR  checkpoints, logs and DIR/bundle (default: runs/recipe)
#   --processes N     processes that train together, on one core each (default: 2); they may share a GPU
#   --seed N          of weights and scenes (default: 1)
#   --n N             new scenes of each kind that the figures are of; 0: no figures (default: 200)
#
# It can be interrupted at any time: the same command goes on where it stopped, for every stage's checkpoint holds the
# minutes that it was trained for. Stages train on a GPU if there is one, else on CPU cores. DIR/bundle has the figures
# (figures.md), what was printed (recipe.log) and the git commit of each start (commits.txt).
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
fail() { echo "error: $*" >&2; exit 2; }

hours=12 output_dir=runs/recipe processes=2 seed=1 n=200
while (($#)); do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --hours | --output_dir | --output-dir | --processes | --seed | --n) (($# > 1)) || fail "$1 needs a value" ;;&
    --hours) hours=$2 ;;
    --output_dir | --output-dir) output_dir=$2 ;;
    --processes) processes=$2 ;;
    --seed) seed=$2 ;;
    --n) n=$2 ;;
    *) fail "unknown option $1 (--help says which there are)" ;;
  esac
  shift 2
done
[[ $hours =~ ^[0-9]*\.?[0-9]+$ && $hours =~ [1-9] ]] || fail "--hours: '$hours' is not a number above 0"
[[ $processes =~ ^[1-9][0-9]*$ ]] || fail "--processes: '$processes' is not an integer of at least 1"
[[ $seed =~ ^[0-9]+$ ]] || fail "--seed: '$seed' is not an integer"
[[ $n =~ ^[0-9]+$ ]] || fail "--n: '$n' is not an integer"
seed=$((10#$seed)) n=$((10#$n)) # bash reads 08 as an octal number

tiny=vision_reasoner.training.tiny
mkdir -p "$output_dir"
exec > >(tee -a "$output_dir/recipe.log") 2>&1
commit=$(git -C "$(dirname "${BASH_SOURCE[0]}")" describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
echo "$(date -u +%FT%TZ) $commit --hours $hours --processes $processes --seed $seed" | tee -a "$output_dir/commits.txt"

# The minutes that a checkpoint was trained for; 0 where there is none.
minutes_of() {
  [[ -e $1 ]] || { echo 0; return; }
  python -c 'import sys, torch; print(torch.load(sys.argv[1], weights_only=True, map_location="cpu").get("minutes", 0))' "$1"
}

# stage NAME PERCENT FOLDER [FLAG...]: train until FOLDER/NAME.pt has had PERCENT of the hours.
stage() {
  local name=$1 percent=$2 folder=$3 budget spent left
  shift 3
  budget=$(awk "BEGIN { print $hours * 60 * $percent / 100 }")
  spent=$(minutes_of "$folder/$name.pt")
  left=$(awk "BEGIN { left = $budget - $spent; print (left > 0.01 * $budget ? left : 0) }")
  [[ $left != 0 ]] || { echo "$name: done"; return; }
  echo "$name: $left of $budget minutes"
  local run=(python)
  ((processes == 1)) || run=(python -m torch.distributed.run --standalone --nproc_per_node "$processes")
  OMP_NUM_THREADS=1 "${run[@]}" -m "$tiny.$name" --output_dir "$folder" --minutes "$left" --seed "$seed" "$@"
  spent=$(minutes_of "$folder/$name.pt")
  awk "BEGIN { exit !($spent >= 0.99 * $budget) }" || fail "$name was stopped early; the same command goes on"
}

python -c 'from vision_reasoner.scenes.art import load_sprites; load_sprites()' 2>/dev/null ||
  python -m vision_reasoner.scenes.art

# Percent of the hours: the vision tower is by far the slowest to learn. A stage's percent is the sum over its lines.
stage vision 40 "$output_dir"
stage language 14 "$output_dir"
stage language 24 "$output_dir" --seen
# With more hours the first stages have gone on; what came of them begins anew.
for first in vision language; do
  [[ ! $output_dir/$first.pt -nt $output_dir/joint.pt ]] || rm -f "$output_dir/joint.pt"
done
stage joint 10 "$output_dir"
# Two runs that go on from the same weights on other scenes: the mean of the weights is better than each.
for branch in 1 2; do
  folder="$output_dir/branch$branch"
  mkdir -p "$folder"
  if [[ $output_dir/joint.pt -nt $folder/joint.pt ]]; then
    cp "$output_dir/joint.pt" "$folder/joint.new"
    mv "$folder/joint.new" "$folder/joint.pt"
  fi
  seed=$((seed + branch)) stage joint 15 "$folder"
done
stage segmenter 12 "$output_dir"
stage router 4 "$output_dir"

# pack FOLDER REASONER: a bundle of this reasoner with the router and the segmenter, in one step.
pack() {
  rm -rf "$1.new"
  mkdir -p "$1.new"
  cp -r "$2" "$output_dir/router" "$output_dir/segmenter" "$1.new"
  printf '{\n "summary": "trained by recipe.sh for %s hours at commit %s%s"\n}\n' "$hours" "$commit" "${3:-}" \
    > "$1.new/bundle.json"
  rm -rf "$1"
  mv "$1.new" "$1"
}

python -m "$tiny.joint" --export_only --output_dir "$output_dir/branch1" --average "$output_dir/branch2"
pack "$output_dir/supervised" "$output_dir/branch1/reasoner" ", without reinforcement learning"
bundle="$output_dir/bundle" trained="$output_dir/supervised"
# With more hours the stages go on, and what follows them begins anew.
steps=$(awk "BEGIN { print int(8 * $hours) }")
if ((steps)); then
  python -m vision_reasoner.training.grpo --preset tiny --model_path "$output_dir/supervised" --max_steps "$steps" \
    --eval_every 25 --seed "$seed" --output_dir "$output_dir/grpo-$hours"
  trained="$output_dir/grpo-$hours"
fi
pack "$bundle" "$trained/reasoner"

# The rows of the model card's table.
runs=()
for split in $( ((n)) && echo train held_out unseen_style); do
  scenes="$output_dir/scenes-$n/$split"
  if [[ ! -d $scenes ]]; then
    python -m evaluation.prepare scenes --split "$split" --n "$n" --output_dir "$scenes.new" --overwrite
    mv "$scenes.new" "$scenes"
  fi
  for set in counting:counting grounding:by_name segmentation:referring segmentation:purpose grounding:absent \
    vqa:questions vqa:signs segmenter:objects; do
    runs+=("$output_dir/figures-$hours-$n/${set#*:}_$split")
    python -m evaluation.run --suite "${set%:*}" "$scenes/${set#*:}_$split" --model_path "$bundle" \
      --output_path "${runs[-1]}"
  done
done
((!n)) || python -m evaluation.table "${runs[@]}" > "$bundle/figures.md"
cp "$output_dir/recipe.log" "$output_dir/commits.txt" "$bundle"
echo "written: $bundle; try it: python vision_reasoner/inference.py --model_path $bundle"
