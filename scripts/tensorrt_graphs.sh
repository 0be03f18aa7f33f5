#!/bin/sh
# NVIDIA's own ONNX parser and compiler over the artifacts of the target `tensorrt`, without a GPU.
#
#   scripts/tensorrt_graphs.sh FOLDER BUNDLE...   an environment in FOLDER, then each artifact
#
# TensorRT itself comes from NVIDIA's own index and wants a device. TensorRT for RTX is on PyPI, has a
# parser of ONNX too, and compiles for a kind of GPU (here Ampere's, sm_86) on any machine. So this shows that
# the graphs are such as a TensorRT takes, and neither their answers nor their speed.
# About 100 MB are downloaded, under NVIDIA's licence.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n 's/^#   scripts/scripts/p' "$0" >&2; exit 2; }
folder=$1
shift
[ -x "$folder/bin/python" ] || "${PYTHON:-.venv/bin/python}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --only-binary :all: \
    --constraint edgeml/toolchain/constraints/light.txt --editable .
"$folder/bin/python" -m pip install --quiet --only-binary :all: --no-deps \
    tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116
exec "$folder/bin/python" - "$@" <<'END'
import sys
import tempfile
from pathlib import Path

import tensorrt_rtx_bindings as trt

from edgeml.bundle import open_bundle

logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
failed = False
for path in sys.argv[1:]:
    bundle = open_bundle(Path(path))
    for artifact in bundle.manifest.artifacts:
        if artifact.target != "tensorrt":
            continue
        network = builder.create_network()
        parser = trt.OnnxParser(network, logger)
        with tempfile.TemporaryDirectory() as folder:
            parsed = parser.parse_from_file(str(bundle.extract(artifact, Path(folder))))
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        engine = None
        if parsed:
            config = builder.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(trt.ComputeCapability.SM86, 0)
            engine = builder.build_serialized_network(network, config)
        failed = failed or engine is None
        told = f"{network.num_layers} layers, an engine of {engine.nbytes} bytes" if engine else errors
        print(f"{bundle.manifest.name} {artifact.id}: {told or 'not compiled'}", flush=True)
sys.exit(failed)
END
