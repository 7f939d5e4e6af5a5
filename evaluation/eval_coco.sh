#!/usr/bin/env bash
# bash evaluation/eval_coco.sh [dataset] [flags of `python -m evaluation.run`, see --help]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m evaluation.run --suite detection "$@"
