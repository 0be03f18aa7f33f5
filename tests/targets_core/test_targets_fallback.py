"""Silent fallback for real: onnxruntime-gpu, in an environment of its own, where there is no GPU.

``scripts/silent_fallback.sh`` makes that environment and runs this; elsewhere it is skipped.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.bundles import tiny_bundle

VARIABLE = "EDGEML_ONNXRUNTIME_GPU"
PYTHON = os.environ.get(VARIABLE, "")
SUPPORT = Path(__file__).parents[1] / "support"
MODEL = SUPPORT / "models" / "tiny.onnx"

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason=f"{VARIABLE} names no Python with onnxruntime-gpu"),
    pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU"),
]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    path = [str(SUPPORT / "blindfold"), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [PYTHON, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
    )


def test_onnx_runtime_itself_says_nothing():
    """Without this the other tests would prove nothing."""
    code = (
        "import sys, onnxruntime as o\n"
        "assert 'CUDAExecutionProvider' in o.get_available_providers()\n"
        "s = o.InferenceSession(sys.argv[1], providers=['CUDAExecutionProvider'])\n"
        "print(s.get_providers())"
    )
    done = run("-c", code, MODEL)
    assert done.stdout.strip() == "['CPUExecutionProvider']", done.stderr


OPEN = (
    "import sys, pathlib, edgeml.targets.runtime as r\n"
    "from edgeml.errors import RefusedError\n"
    "options = dict(pair.split('=') for pair in sys.argv[3:])\n"
    "try: r.open_session(sys.argv[1], pathlib.Path(sys.argv[2]), options=options)\n"
    "except RefusedError as error: print(error)\n"
    "else: print('it runs')"
)


@pytest.mark.parametrize("options", [(), ("placement.share=0",), ("placement.share=0.5",)])
def test_a_session_on_the_cpu_is_refused_with_its_nodes(options: tuple[str, ...]):
    done = run("-c", OPEN, "onnx-cuda", MODEL, *options)
    assert (
        "asked for CUDAExecutionProvider and fell back to CPUExecutionProvider without a word "
        "(3 of 3 nodes: Flatten, Gemm, Softmax)"
    ) in done.stdout, done.stderr


def test_tensorrt_is_refused(tmp_path: Path):
    done = run("-c", OPEN, "tensorrt", MODEL, f"trt_engine_cache_path={tmp_path}")
    assert "TensorrtExecutionProvider" in done.stdout, done.stderr
    assert "it runs" not in done.stdout


def test_the_agent_passes_over_it_and_says_why(tmp_path: Path):
    bundle = tiny_bundle(tmp_path, targets=("onnx-cuda",))
    done = run(
        "-m", "edgeml", "agent", "run", "--bundle", bundle, "--http", "", "--state", tmp_path / "s"
    )
    assert done.returncode == 1
    assert "onnx-cuda-fp32: ONNX Runtime was asked for CUDAExecutionProvider" in done.stderr
    assert "(3 of 3 nodes: Flatten, Gemm, Softmax)" in done.stderr
