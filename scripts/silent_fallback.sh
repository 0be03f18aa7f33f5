#!/bin/sh
# onnxruntime-gpu on a machine without a GPU lists CUDA as available and computes on the CPU. Shows
# that edgeml refuses that instead, with the list of nodes. About 400 MB are downloaded.
#
#   scripts/silent_fallback.sh [FOLDER]    makes an environment in FOLDER (default .onnxruntime-gpu)
set -eu
cd "$(dirname "$0")/.."
FOLDER=${1:-.onnxruntime-gpu}
PYTHON=${PYTHON:-.venv/bin/python}
[ -x "$FOLDER/bin/python" ] || "$PYTHON" -m venv "$FOLDER"
"$FOLDER/bin/python" -m pip install --quiet --only-binary :all: \
    --constraint edgeml/toolchain/constraints/light.txt onnxruntime-gpu --editable '.[agent]'
EDGEML_ONNXRUNTIME_GPU=$(cd "$FOLDER" && pwd)/bin/python \
    "$PYTHON" -m pytest -q tests/targets_core/test_targets_fallback.py
