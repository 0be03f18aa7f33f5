"""What stands in the int8 artifacts, and what int8 needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper
from support.conversions import Make, Source, calibration_folder, torch_source

from edgeml.errors import SourceError
from edgeml.targets.compiling import compile_here
from edgeml.targets.onnx.runtime import NOT_FOR_GPUS
from edgeml.targets.runtime import NamedSession, open_session
from edgeml.targets.sources import MAX_CALIBRATION_SAMPLES, samples


def quantizers(make: Make, target: str):
    """The quantizing nodes of the classifier's graph, and its constants."""
    graph = onnx.load(make("classifier", target, "int8").files[0]).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    return graph, nodes, constants


@pytest.mark.parametrize("target", ["onnx-cuda", "tensorrt"])
def test_the_gpu_graphs_are_symmetric(target: str, make: Make):
    graph, nodes, constants = quantizers(make, target)
    assert nodes
    for node in nodes:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    (softmax,) = [node for node in graph.node if node.op_type == "Softmax"]
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    assert made_by[softmax.output[0]] == "Softmax"
    assert softmax.output[0] == graph.output[0].name  # no QDQ pair after it


def test_onnx_runtime_leaves_the_biases_of_a_gpu_graph_in_float(make: Make, tmp_path: Path):
    """By itself it makes them int32, which no GPU's provider takes."""

    def dequantized(name: str, disabled: list[str]) -> set[int]:
        settings = ort.SessionOptions()
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        settings.optimized_model_filepath = str(tmp_path / name)
        entry = make("classifier", "onnx-cuda", "int8").files[0]
        ort.InferenceSession(str(entry), settings, disabled_optimizers=disabled)
        graph = onnx.load(tmp_path / name).graph
        kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
        nodes = [node for node in graph.node if node.op_type == "DequantizeLinear"]
        return {kinds[node.input[0]] for node in nodes if node.input[0] in kinds}

    assert onnx.TensorProto.INT32 in dequantized("usual.onnx", [])
    assert onnx.TensorProto.INT32 not in dequantized("ours.onnx", NOT_FOR_GPUS)


def test_the_cpu_graph_has_unsigned_activations_and_weights_per_channel(make: Make):
    _, nodes, constants = quantizers(make, "onnx")
    weights = [constants[node.input[0]] for node in nodes if node.input[0] in constants]
    activations = [
        constants[node.input[2]].dtype for node in nodes if node.op_type == "QuantizeLinear"
    ]
    assert set(activations) == {np.dtype("uint8")}
    kernels = [weight for weight in weights if weight.ndim == 4]
    assert len(kernels) == 2
    assert {kernel.dtype for kernel in kernels} == {np.dtype("int8")}
    for node in nodes:
        if node.input[0] in constants and constants[node.input[0]].ndim == 4:
            assert constants[node.input[1]].size == 12  # a scale for each of 12 channels


def test_the_tflite_inside_is_int8_between_float_ends(make: Make):
    interpreter = Interpreter(model_path=str(make("classifier", "tflite", "int8").files[0]))
    kinds = [tensor["dtype"] for tensor in interpreter.get_tensor_details()]
    assert kinds.count(np.int8) > len(kinds) / 2
    assert interpreter.get_input_details()[0]["dtype"] == np.float32


def test_the_openvino_weights_are_int8(make: Make):
    model = ov.Core().read_model(make("classifier", "openvino", "int8").files[0])
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    assert ov.Type.i8 in {node.get_element_type() for node in constants}
    assert "FakeQuantize" in {node.get_type_name() for node in model.get_ops()}


@pytest.mark.parametrize("target", ["tflite", "openvino", "onnx"])
def test_lower_precision_is_smaller(target: str, make: Make):
    # The last file holds the weights: OpenVINO's .xml before it grows by the casts.
    sizes = [
        make("classifier", target, precision).files[-1].stat().st_size
        for precision in ("fp32", "fp16")
    ]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("target", ["tflite", "openvino", "onnx", "tensorrt"])
def test_it_says_how_many_samples_it_saw(target: str, make: Make):
    assert make("classifier", target, "int8").calibration_samples == 32
    assert make("classifier", target, "fp32").calibration_samples == 0


@pytest.mark.parametrize("target", ["tflite", "openvino", "onnx", "tensorrt"])
def test_the_same_samples_make_the_same_artifact(
    target: str, make: Make, sources: Mapping[str, Source], tmp_path: Path
):
    first = make("classifier", target, "int8")
    images = sources["classifier"].feeds["image"][:32]
    calibration = calibration_folder(tmp_path / "calibration", images)
    job = sources["classifier"].job("int8", tmp_path, calibration)
    again = compile_here(target, job)
    # OpenVINO's .xml carries names that count up within a process; the numbers are in the .bin.
    assert again.files[-1].read_bytes() == first.files[-1].read_bytes()


def test_int8_without_calibration_data_is_refused(sources: Mapping[str, Source], tmp_path: Path):
    with pytest.raises(SourceError, match="without calibration data") as caught:
        compile_here("onnx", sources["classifier"].job("int8", tmp_path, None))
    assert "random data" in caught.value.expected


def test_calibration_data_for_fewer_inputs_is_refused(
    sources: Mapping[str, Source], tmp_path: Path
):
    job = sources["classifier"].job("int8", tmp_path, calibration_folder(tmp_path / "c"))
    with pytest.raises(SourceError, match=r"lacks 0\.npy"):
        compile_here("onnx", job)


def test_many_samples_are_thinned_evenly(sources: Mapping[str, Source], tmp_path: Path):
    """Data sorted by class must not lose its last classes."""
    rows = np.arange(3 * MAX_CALIBRATION_SAMPLES, dtype="float32").reshape(-1, 1, 1, 1)
    job = sources["classifier"].job("int8", tmp_path, calibration_folder(tmp_path / "c", rows))
    seen = [float(sample["image"].item()) for sample in samples(job)]
    assert len(seen) == MAX_CALIBRATION_SAMPLES
    assert (seen[0], seen[-1]) == (0.0, float(len(rows) - 1))
    assert max(np.diff(seen)) <= 4


class DeadChannels(torch.nn.Module):
    """Of each layer with weights, two channels that compute next to nothing but their bias."""

    def __init__(self):
        super().__init__()
        self.whole = torch.nn.Conv2d(2, 6, 3)
        self.depthwise = torch.nn.Conv2d(6, 6, 3, groups=6)
        self.transposed = torch.nn.ConvTranspose2d(6, 6, 2, stride=2)
        self.head = torch.nn.Linear(6, 6)
        with torch.no_grad():
            for layer in (self.whole, self.depthwise, self.transposed, self.head):
                channels = layer.weight.transpose(0, 1 if layer is self.transposed else 0)
                channels[0] = 0
                channels[1] *= 1e-8
                layer.bias[:2] = torch.tensor([1.5, -0.5])

    def forward(self, image):
        whole = self.whole(image)
        depthwise = self.depthwise(whole)
        head = self.head(whole.mean((2, 3)))
        return whole, depthwise, self.transposed(depthwise), head


def test_dead_channels_of_tflite_keep_their_biases(tmp_path: Path):
    """Their weights are too small for their bias to fit into int32 at the step that they make."""
    torch.manual_seed(4)
    images = np.random.default_rng(6).uniform(0, 1, (8, 2, 8, 8)).astype("float32")
    outputs = ["whole", "depthwise", "transposed", "head"]
    source = torch_source(DeadChannels(), {"image": images}, outputs, tmp_path / "dead.pt2")
    calibration = calibration_folder(tmp_path / "calibration", images)
    artifact = compile_here("tflite", source.job("int8", tmp_path, calibration))
    session = open_session("tflite", artifact.files[0], options=artifact.options)
    with NamedSession(session, artifact.inputs, artifact.outputs) as named:
        found = named.run({"image": images[:1]})
    for name in outputs:
        assert found[name] == pytest.approx(source.expected[name][:1], abs=0.05), name
