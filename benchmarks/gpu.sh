#!/usr/bin/env bash
# On a machine with a GPU: `model=vgg_disc` on CIFAR-10 at 64x64 for ten minutes, or for 200 epochs if these take less. Once
# a minute the judge measures it, and a grid of its samples is kept. The judge is trained once before that, on the CPU.
# PYTHON names the interpreter, TRANSFERGEN_SHARED the folder of data and weights, WORK the folder of results.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
WORK=${WORK:-outputs/gpu}
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "no GPU here that torch can use: nothing to measure"
    exit 0
fi
"$PYTHON" benchmarks/time_to_quality.py run vgg_disc --resolution 64 --minutes 10 --points 10 --trainer gpu \
    --precision bf16-mixed --work "$WORK" --also trainer.max_epochs=200
"$PYTHON" benchmarks/time_to_quality.py report --work "$WORK" --results "$WORK"
