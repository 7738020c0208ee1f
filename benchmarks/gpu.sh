#!/usr/bin/env bash
# On a machine with a GPU: images per second of each model at 64x64, and time to quality on CIFAR-10, in a few minutes.
# The judge is trained once before that, on the CPU. PYTHON names the interpreter, .venv/bin/python by default.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "no GPU here that torch can use: nothing to measure"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
data=(data=shapes data.source.train=12800 data.source.test=16 data.batch_size=128 trainer=gpu trainer.devices=1)
for model in dcgan "vgg_disc backbone.weights=random" projected "vision_aided discriminator.backbones.vgg19.weights=random"; do
    # shellcheck disable=SC2086  (a model and its overrides are words)
    "$PYTHON" benchmarks/train_command.py run option --option trainer.precision=32-true --rounds 1 --images 40000 --log-every 50 --work "$work" \
        --overrides "${data[@]}" model=$model
done
"$PYTHON" benchmarks/time_to_quality.py run dcgan cifar10 --minutes 1 --points 6 --trainer gpu --precision 32-true --work "$work"
"$PYTHON" benchmarks/time_to_quality.py report --work "$work" --results "$work"
