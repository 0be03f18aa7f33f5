#!/bin/sh
# The agent on an NVIDIA GPU: every node of the graph there, deadlines kept, memory given back.
#
#   scripts/gpu.sh FOLDER [BUNDLE...]    an environment with onnxruntime-gpu, CUDA and cuDNN in FOLDER,
#                                        the test suite marked `gpu`, and the bundles measured
#
# Needs a GPU and its driver, x86-64 Linux and Python 3.11 or later; some two gigabytes are downloaded.
# PYTHON=/path/to/python chooses the interpreter. With EDGEML_GPU_PYTHON=/path/to/python nothing is
# made: that one has what it needs, as on a Jetson or in a container of one's own.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n 's/^#   scripts/scripts/p' "$0" >&2; exit 2; }
command -v nvidia-smi >/dev/null || { echo "gpu: nvidia-smi is not here, so there is no GPU" >&2; exit 1; }
folder=$1
shift
python=${EDGEML_GPU_PYTHON:-$folder/bin/python}
if [ -z "${EDGEML_GPU_PYTHON:-}" ]; then
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$folder"
    "$python" -m pip install --quiet --only-binary :all: \
        --constraint edgeml/toolchain/constraints/light.txt \
        --editable '.[agent,nvidia]' pytest hypothesis psutil
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
"$python" -m pytest -q -p no:cacheprovider -m gpu tests/device_agent/test_gpu.py
[ $# = 0 ] || "$python" benchmarks/gpu.py "$@"
