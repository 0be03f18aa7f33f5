"""Models that a converter cannot make: the error names the operator and where it comes from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from onnx import TensorProto, helper
from support.conversions import save_torch
from support.torch_modules import Camera, bessel, fourier, polish, singular_values

from edgeml.errors import RefusedError, SourceError
from edgeml.targets.compiling import CompileJob, compile_here

CONVERTERS = ["tflite", "openvino", "onnx"]  # of every framework
TORCH = [*CONVERTERS, "executorch"]


def job(kind, source: Path, workdir: Path) -> CompileJob:
    return CompileJob(
        source_kind=kind,
        source=source,
        precision="fp32",
        inputs=("x",),
        outputs=("y",),
        workdir=workdir,
    )


def refusal(target: str, work: CompileJob) -> str:
    with pytest.raises(RefusedError) as caught:
        compile_here(target, work)
    assert "another target" in caught.value.remedy
    assert "\n" not in caught.value.found
    return caught.value.found


@pytest.mark.parametrize("target", TORCH)
@pytest.mark.parametrize(
    ("function", "operator"),
    [(singular_values, "aten._linalg_svd"), (bessel, "i0")],
)
def test_torch(target: str, function: Callable, operator: str, tmp_path: Path):
    path = tmp_path / "model.pt2"
    save_torch(Camera(function), {"x": np.ones((1, 1, 8, 8), "float32")}, path)
    text = refusal(target, job("torch", path, tmp_path / "out"))
    assert operator in text
    assert "module 'spectrum' (Spectrum), torch_modules.py:" in text


def test_complex_numbers_in_litert(tmp_path: Path):
    path = tmp_path / "model.pt2"
    save_torch(Camera(fourier), {"x": np.ones((1, 1, 8, 8), "float32")}, path)
    text = refusal("tflite", job("torch", path, tmp_path / "out"))
    assert "aten.fft_fft2" in text
    assert "module 'spectrum'" in text


OPERATOR = """
import sys
import torch
sys.path.insert(0, sys.argv[2])
from support.torch_modules import Camera, polish

@torch.library.custom_op("edgeml_tests::polish", mutates_args=())
def operator(x: torch.Tensor) -> torch.Tensor:
    return x.clone()

@operator.register_fake
def _(x):
    return torch.empty_like(x)

program = torch.export.export(Camera(polish).eval(), (torch.ones(1, 1, 8, 8),))
torch.export.save(program, sys.argv[1])
"""


def test_an_operator_of_the_users_own(tmp_path: Path):
    """Only the user's process knows it; ours cannot even load the program, and says why."""
    path = tmp_path / "model.pt2"
    folder = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", OPERATOR, path, folder], check=True, capture_output=True)
    assert not hasattr(torch.ops.edgeml_tests, polish.__name__)
    text = refusal("onnx", job("torch", path, tmp_path / "out"))
    assert "edgeml_tests.polish" in text
    assert "module 'spectrum' (Spectrum), torch_modules.py:" in text


@pytest.fixture(scope="module")
def betainc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def __call__(self, x):
            with tf.name_scope("spectrum"):
                return {"y": tf.math.betainc(x, x, x)}

    path = tmp_path_factory.mktemp("betainc") / "model"
    model = Model()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.__call__})
    return path


@pytest.mark.parametrize("target", CONVERTERS)
def test_tensorflow(target: str, betainc: Path, tmp_path: Path):
    text = refusal(target, job("savedmodel", betainc, tmp_path))
    assert "Betainc" in text
    assert "node 'spectrum/Betainc'" in text


def test_what_is_blamed_is_not_the_cast_before_it(tmp_path: Path):
    """OpenVINO tells of both; its shapes and words are those of the transform."""

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8], tf.float32, name="x")])
        def __call__(self, x):
            with tf.name_scope("spectrum"):
                return {"y": tf.abs(tf.signal.fft2d(tf.cast(x, tf.complex64)))}

    model = Model()
    signatures = {"serving_default": model.__call__}
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=signatures)
    work = job("savedmodel", tmp_path / "model", tmp_path / "out")
    with pytest.raises(RefusedError, match="no operator for FFT2D") as caught:
        compile_here("openvino", work)
    assert "node 'spectrum/FFT2D' (complex64[?, 8, 8]" in caught.value.found
    assert "OpenVINO says: [TensorFlow Frontend]" in caught.value.found
    assert "matrices of its cosines" in caught.value.remedy


def save_onnx(path: Path, operator: str, domain: str = "", axes: tuple = ("N", 8, 8)) -> Path:
    node = helper.make_node(operator, ["x"], ["y"], name="spectrum/node", domain=domain)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, axes)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("shop", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.mark.parametrize("target", ["openvino", "onnx", "tensorrt"])
def test_onnx(target: str, tmp_path: Path):
    path = save_onnx(tmp_path / "model.onnx", "Polish", "shop")
    text = refusal(target, job("onnx", path, tmp_path / "out"))
    assert "Polish" in text
    assert "node 'spectrum/node'" in text


def test_an_open_axis_other_than_the_batch_is_an_error(tmp_path: Path):
    path = save_onnx(tmp_path / "model.onnx", "Relu", axes=("N", "length", 8))
    with pytest.raises(SourceError, match="Axis 1 of input 'x' is open"):
        compile_here("onnx", job("onnx", path, tmp_path / "out"))


@pytest.mark.parametrize(
    ("kind", "name"), [("torch", "m.pt2"), ("onnx", "m.onnx"), ("savedmodel", "m")]
)
def test_a_file_that_is_no_model_is_a_plain_error(kind, name: str, tmp_path: Path):
    path = tmp_path / name
    if kind == "savedmodel":
        path.mkdir()
    else:
        path.write_bytes(b"PK\x03\x04 no model")
    with pytest.raises(SourceError, match=name):
        compile_here("openvino", job(kind, path, tmp_path / "out"))


def test_names_that_the_model_does_not_have_are_an_error(tmp_path: Path):
    path = save_onnx(tmp_path / "model.onnx", "Relu")
    work = CompileJob(
        source_kind="onnx",
        source=path,
        precision="fp32",
        inputs=("picture",),
        outputs=("y",),
        workdir=tmp_path / "out",
    )
    with pytest.raises(SourceError, match=r"\['x'\]"):
        compile_here("openvino", work)
