"""The smallest ONNX model that a target refuses, or gets wrong."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from support.conversions import save_torch
from support.torch_modules import Camera, bessel

from edgeml.errors import RefusedError
from edgeml.exporter.diagnosis.shrink import DIFFERS, ShrinkJob, confirm, shrink
from edgeml.targets.compiling import CompileJob, compile_here


def chain(path: Path, *nodes: tuple[str, dict], rank: int = 3) -> Path:
    """Operators one after another, from ``t0`` to ``out``; a product takes the same twice."""
    names = [*(f"t{index}" for index in range(len(nodes))), "out"]
    made = [
        helper.make_node(kind, [a, a] if kind == "Mul" else [a], [b], name=f"node {b}", **given)
        for (kind, given), a, b in zip(nodes, names[:-1], names[1:], strict=True)
    ]
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, (1, 2, 2))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * rank)],
    )
    opsets = [helper.make_opsetid("", 22)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def failure(folder: Path, path: Path, symptom: str, sample: np.ndarray, kind="onnx") -> ShrinkJob:
    np.save(folder / "0.npy", sample)
    return ShrinkJob(
        target="openvino",
        job=CompileJob(
            source_kind=kind,
            source=path,
            precision="fp32",
            inputs=("t0",),
            outputs=("out",),
            workdir=folder / "made",
        ),
        symptom=symptom,
        samples=(folder / "0.npy",),
        output=folder / "smallest.onnx",
    )


def test_of_a_refusal_the_operator_is_left_with_its_real_shapes(tmp_path: Path):
    operators = ["Abs", "Relu", "Sqrt", "Sigmoid", "Det", "Neg", "Exp", "Tanh"]
    path = chain(tmp_path / "model.onnx", *((operator, {}) for operator in operators), rank=1)
    job = failure(tmp_path, path, "", np.ones((3, 2, 2), "float32"))
    with pytest.raises(RefusedError, match="OpenVINO has no operator for Det") as caught:
        compile_here(job.target, job.job)
    job = failure(tmp_path, path, caught.value.found, np.ones((3, 2, 2), "float32"))
    found = shrink(job)
    assert (found.nodes, found.of) == (1, 8)
    graph = onnx.load(job.output).graph
    assert [node.op_type for node in graph.node] == ["Det"]
    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim] == [1, 2, 2]
    assert confirm(job)


def test_of_a_wrong_artifact_the_node_is_left_that_computes_something_else(tmp_path: Path):
    """OpenVINO's CPU computes int64 in 32 bits, and 70,000² is beyond them."""
    path = chain(
        tmp_path / "model.onnx",
        ("Abs", {}),
        ("Cast", {"to": TensorProto.INT64}),
        ("Mul", {}),
        ("Cast", {"to": TensorProto.FLOAT}),
        ("Neg", {}),
    )
    job = failure(tmp_path, path, DIFFERS, np.full((1, 2, 2), 7e4, "float32"))
    found = shrink(job)
    assert found.nodes <= 2
    assert "Mul" in [node.op_type for node in onnx.load(job.output).graph.node]


def test_a_torch_model_goes_by_way_of_onnx_where_there_is_a_way(tmp_path: Path):
    """An operator that ONNX lacks as well has no smallest ONNX model, and that is said."""
    path = tmp_path / "model.pt2"
    module = Camera(bessel)
    save_torch(module, {"t0": np.ones((1, 1, 8, 8), "float32")}, path)
    samples = np.ones((1, 1, 8, 8), "float32")
    found = shrink(failure(tmp_path, path, "OpenVINO has no operator for i0", samples, "torch"))
    assert found.nodes == 0
    assert "cannot be made into ONNX: ONNX has no operator for" in found.text


def volume(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.det(torch.tanh(x[:, 0]))


def test_an_operator_of_torch_is_found_under_the_name_that_onnx_has_for_it(tmp_path: Path):
    """OpenVINO refuses ``aten._linalg_det`` of the module, and ``Det`` of the graph."""
    sample = np.ones((1, 1, 4, 4), "float32")
    save_torch(Camera(volume), {"t0": sample}, tmp_path / "model.pt2")
    job = failure(tmp_path, tmp_path / "model.pt2", "", sample, "torch")
    with pytest.raises(RefusedError, match="no operator for aten") as caught:
        compile_here(job.target, job.job)
    job = msgspec.structs.replace(job, symptom=caught.value.found)
    found = shrink(job)
    assert found.nodes == 1
    assert [node.op_type for node in onnx.load(job.output).graph.node] == ["Det"]
    assert confirm(msgspec.structs.replace(job, symptom=found.symptom))


def test_what_is_not_refused_by_way_of_onnx_has_a_way_round(tmp_path: Path):
    sample = np.ones((1, 1, 4, 4), "float32")
    save_torch(Camera(torch.relu), {"t0": sample}, tmp_path / "model.pt2")
    symptom = "OpenVINO has no operator for aten.relu, which the model needs"
    found = shrink(failure(tmp_path, tmp_path / "model.pt2", symptom, sample, "torch"))
    assert found.nodes == 0
    assert "is not refused, so that its ONNX file is a way round" in found.text


def test_a_failure_that_is_not_there_is_not_shown(tmp_path: Path):
    path = chain(tmp_path / "model.onnx", ("Abs", {}), ("Neg", {}))
    found = shrink(failure(tmp_path, path, DIFFERS, np.ones((1, 2, 2), "float32")))
    assert found.nodes == 0
    assert "does not show it alone" in found.text
