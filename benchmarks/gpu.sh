#!/usr/bin/env bash
# On a machine with a GPU: images per second of each model, and time to quality on CIFAR-10, in about 7 minutes on an
# NVIDIA H200. The judge is trained once before that, on the CPU. PYTHON names the interpreter, .venv/bin/python by default.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "no GPU here that torch can use: nothing to measure"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" benchmarks/gpu_speed.py run --work "$work"
"$PYTHON" benchmarks/time_to_quality.py run dcgan cifar10 --minutes 1 --points 6 --trainer gpu --precision 32-true --work "$work"
"$PYTHON" benchmarks/time_to_quality.py report --work "$work" --results "$work"
