#!/usr/bin/env bash
# On a machine with a GPU: images per second of each model, and time to quality on CIFAR-10. 445 seconds on an H200, where
# the judge was there already: it is trained once, on the CPU.
# It needs the extra `bench`. The tables are in Markdown, for the README. PYTHON names the interpreter, .venv/bin/python by default.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "no GPU here that torch can use: nothing to measure"
    exit 0
fi
"$PYTHON" benchmarks/gpu_speed.py --seconds 240
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
"$PYTHON" benchmarks/time_to_quality.py --results "$results" run dcgan projected_lite0_at_once --minutes 1 --points 6 --trainer gpu \
    --precision 32-true
"$PYTHON" benchmarks/time_to_quality.py --results "$results" report
