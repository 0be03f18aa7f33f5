"""What an export refuses, and how it ends when something goes wrong. Whole processes."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load, save
from support.exports import SUPPORT, Export, Models, finish

from edgeml.exporter.events import Collapse


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"picture": "image"}, "holds 'picture'", "one array an input, 'image'"),
        ({"image": "transposed"}, "shape [20, 8, 8, 1]", "[samples, 1, 8, 8]"),
        ({"image": "integers"}, "dtype int64", "float32"),
        ({"image": "empty"}, "is empty", "at least one sample"),
        ({"image": "nan"}, "NaN or infinite, the first in sample 7", "finite"),
    ],
    ids=["name", "shape", "type", "empty", "nan"],
)
def test_calibration_data_that_does_not_fit(
    models: Models,
    export: Export,
    tmp_path: Path,
    change: dict[str, str],
    found: str,
    expected: str,
):
    with np.load(models.torch / "calibration.npz") as data:
        images = data["image"][:20]
    broken = images.copy()
    broken[7, 0, 0, 0] = np.nan
    kinds = {
        "image": images,
        "transposed": images.transpose(0, 2, 3, 1),
        "integers": images.astype(np.int64),
        "empty": images[:0],
        "nan": broken,
    }
    np.savez(tmp_path / "data.npz", **{name: kinds[kind] for name, kind in change.items()})
    outcome = export(
        model=str(models.torch / "net.onnx"),
        targets=["onnx"],
        calibration=str(tmp_path / "data.npz"),
        output=str(tmp_path / "out"),
    )
    assert outcome.status == 1
    assert outcome.failure.error == "SourceError"
    assert found in outcome.failure.found
    assert expected in outcome.failure.expected
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("request_part", "error", "found", "status"),
    [
        ({"model": "gone.onnx"}, "SourceError", "There is no file gone.onnx", 1),
        ({"model": "net.ckpt"}, "UsageError", "is no form of model", 2),
        ({"targets": ["tflight"]}, "UsageError", "There is no target 'tflight'", 2),
        ({"targets": []}, "UsageError", "No target was named", 2),
        ({"calibration": "gone.npz"}, "SourceError", "There is no file gone.npz", 1),
        ({"calibration": "data.csv"}, "UsageError", "is no form of data", 2),
        ({"calibration": None}, "SourceError", "There are no samples", 1),
        (
            {"calibration": None, "precision": "int8"},
            "RefusedError",
            "int8 was asked for without calibration data",
            1,
        ),
        ({"precision": "int4"}, "UsageError", "request cannot be read", 2),
        ({"name": "a/b"}, "UsageError", "The name 'a/b' cannot be one", 2),
        ({"output": "/proc/out"}, "SourceError", "Nothing can be written to /proc", 1),
    ],
)
def test_what_is_plainly_wrong_is_said_before_any_work(
    models: Models,
    export: Export,
    request_part: dict[str, object],
    error: str,
    found: str,
    status: int,
):
    request = {
        "model": str(models.torch / "net.onnx"),
        "targets": ["onnx"],
        "calibration": str(models.torch / "calibration.npz"),
        "output": str(models.torch),
        **request_part,
    }
    outcome = export(**request)
    assert outcome.status == outcome.failure.status == status
    assert outcome.failure.error == error
    assert found in outcome.failure.found
    assert outcome.stages == []


def test_a_truncated_model(models: Models, export: Export, tmp_path: Path):
    path = tmp_path / "net.onnx"
    path.write_bytes((models.torch / "net.onnx").read_bytes()[:5000])
    outcome = export(
        model=str(path),
        targets=["onnx"],
        calibration=str(models.torch / "calibration.npz"),
        output=str(tmp_path),
    )
    assert outcome.status == 1
    assert "net.onnx (5,000 bytes) is cut short, damaged" in outcome.failure.found


def test_a_failed_check_is_an_error_and_no_bundle_is_written(
    models: Models, export: Export, tmp_path: Path
):
    outcome = export(
        model=str(models.torch / "net.onnx"),
        targets=["onnx"],
        calibration=str(models.torch / "calibration.npz"),
        precision="int8",
        tolerances={"int8": {"cosine": 1.0}},
        output=str(tmp_path / "out"),
    )
    assert outcome.status == 1
    assert "The check against the source model failed for onnx int8" in outcome.failure.found
    assert "--tolerance int8:" in outcome.failure.remedy
    assert not (tmp_path / "out").exists()
    # The figures are shown all the same.
    row = outcome.rows["onnx-int8"]
    assert (row.passed, row.chosen) == (False, False)
    assert row.p50_ms is not None
    # And the layers that add most noise, with the module and line that each comes from.
    (collapse,) = outcome.of(Collapse)
    assert (collapse.target, collapse.precision) == ("onnx", "int8")
    assert 1 < len(collapse.layers) <= collapse.compared
    places = {(each.module, each.line.partition(":")[0]) for each in collapse.layers if each.line}
    assert ("head", "export_torch.py") in places
    assert "dB" in collapse.text


def test_an_operator_that_a_target_lacks_is_named_with_its_module(
    models: Models, export: Export, tmp_path: Path
):
    outcome = export(
        model=models.factory("spectrum"),
        targets=["tflite"],
        calibration=str(models.torch / "calibration.npz"),
        output=str(tmp_path),
    )
    assert outcome.status == 1
    refusal = outcome.refused["tflite"]
    assert "eigh" in refusal.reason
    assert "'spectrum' (Eigen), export_torch.py:" in refusal.reason
    assert refusal.remedy
    assert outcome.failure.error == "RefusedError"
    assert Path(outcome.failure.log).is_file()


def test_the_smallest_model_that_shows_a_refusal_is_written(export: Export, tmp_path: Path):
    operators = ["Abs", "Relu", "Sigmoid", "Det", "Neg", "Exp"]
    names = ["x", *(f"t{index}" for index in range(5)), "y"]
    nodes = [
        helper.make_node(operator, [names[index]], [names[index + 1]], name=f"volume/{operator}")
        for index, operator in enumerate(operators)
    ]
    graph = helper.make_graph(
        nodes,
        "volume",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "net.onnx")
    np.save(tmp_path / "data.npy", np.ones((20, 4, 4), np.float32))
    outcome = export(
        model=str(tmp_path / "net.onnx"),
        targets=["openvino"],
        evaluation=str(tmp_path / "data.npy"),
        precision="fp32",
        minimize=str(tmp_path / "small.onnx"),
    )
    assert outcome.status == 1
    refusal = outcome.refused["openvino"]
    assert "OpenVINO has no operator for Det" in refusal.reason
    assert "node 'volume/Det' (float32[1, 4, 4] → float32[1])" in refusal.reason
    assert f"{tmp_path / 'small.onnx'} shows it with 1 node of 6" in refusal.remedy
    assert [node.op_type for node in load(tmp_path / "small.onnx").graph.node] == ["Det"]


DETERMINANT = """
import torch

class Area(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.det(torch.relu(x) + 1).tanh().unsqueeze(1)

def build():
    return Area()
"""


def test_what_torch_has_and_litert_lacks_is_shown_by_way_of_onnx(export: Export, tmp_path: Path):
    (tmp_path / "area.py").write_text(DETERMINANT)
    np.save(tmp_path / "data.npy", np.ones((20, 2, 2), np.float32))
    outcome = export(
        model=f"{tmp_path / 'area.py'}:build",
        targets=["tflite"],
        evaluation=str(tmp_path / "data.npy"),
        precision="fp32",
        minimize=str(tmp_path / "small.onnx"),
    )
    assert outcome.status == 1
    refusal = outcome.refused["tflite"]
    assert "aten._linalg_det" in refusal.reason
    assert f"{tmp_path / 'small.onnx'} shows it with 1 node of 5" in refusal.remedy
    assert [node.op_type for node in load(tmp_path / "small.onnx").graph.node] == ["Det"]


def test_a_full_disk_is_a_plain_error(models: Models, tmp_path: Path):
    # A limit on the size of files stands in for the disk: the same path, another number.
    limited = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeml.exporter"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "TMPDIR": str(tmp_path),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "EDGEML_CACHE": str(tmp_path / "state"),
        },
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert limited.stdin is not None
    request = (
        f'{{"model": "{models.torch / "net.onnx"}", "targets": ["onnx"], '
        f'"calibration": "{models.torch / "calibration.npz"}", "output": "{tmp_path}/out"}}'
    )
    limited.stdin.write(request.encode())
    limited.stdin.close()
    outcome = finish(limited)
    assert outcome.status == 1
    assert f"There is no room left in {tmp_path}" in outcome.failure.found
    assert "TMPDIR" in outcome.failure.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("limits", [{}, {"accuracy_drop": 0.5}], ids=["bulk", "search"])
def test_an_artifact_that_its_runtime_does_not_open_takes_nothing_from_the_others(
    models: Models,
    export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, float],
):
    path = [str(SUPPORT / "unopened"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    outcome = export(
        model=str(models.torch / "net.onnx"),
        targets=["openvino", "onnx"],
        precision="fp32",
        evaluation=str(models.torch / "evaluation.npz"),
        limits=limits,
        output=str(tmp_path),
    )
    assert outcome.status == 1
    assert "cannot compile it" in outcome.refused["openvino"].reason
    assert outcome.refused["openvino"].remedy == "Use another target's."
    assert [artifact.id for artifact in outcome.bundle().manifest.artifacts] == ["onnx-fp32"]
