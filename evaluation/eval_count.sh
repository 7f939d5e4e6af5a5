#!/usr/bin/env bash
# bash evaluation/eval_count.sh [dataset] [flags of `python -m evaluation.run`, see --help]
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
# -P: nothing is imported from the working folder
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -P -m evaluation.run --suite counting "$@"
