"""Ctrl-C and SIGTERM while an export searches, and while it looks into what failed; and a reader of
its events that goes.

A plain export's stages, a full disk and a kill are in test_export_faults.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.cutting import READER_GONE, SIGNALS, cut_short
from support.exports import Models

SEARCH = ["--max-accuracy-drop", "5%", "--max-latency", "1s", "--report", "{}/report.html"]
MIXED = ["--precision", "mixed", "--tolerance", "mixed:cosine=0.99985"]
FAILING = ["--precision", "int8", "--tolerance", "int8:cosine=1.0"]


@pytest.mark.parametrize(
    ("arguments", "moment", "how"),
    [
        (SEARCH, "onnx fp32: converting", "Ctrl-C"),
        (SEARCH, "Reading", READER_GONE),
        (SEARCH, "onnx fp32: measuring", "SIGTERM"),
        (SEARCH, "onnx int8: checking", "SIGINT"),
        (SEARCH, "measuring in turns", "Ctrl-C"),
        (MIXED, "comparing its layers", "SIGTERM"),
        (FAILING, "Looking into what failed", "Ctrl-C"),
        (FAILING, "Looking into what failed", "SIGTERM"),
    ],
)
def test_nothing_is_left_of_a_search_or_of_a_look_at_the_layers(
    models: Models, tmp_path: Path, arguments: list[str], moment: str, how: str
):
    line = [str(models.torch / "net.onnx"), "-t", "onnx"]
    line += ["--calibration", str(models.torch / "calibration.npz")]
    cut_short(tmp_path, [*line, *(each.format(tmp_path) for each in arguments)], moment, how)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("how", SIGNALS)
def test_nothing_is_left_of_the_search_for_the_smallest_model(tmp_path: Path, how: str):
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Det", ["a"], ["d"]),
        helper.make_node("Exp", ["d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "volume",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data = tmp_path / "given"
    data.mkdir()
    onnx.save(model, str(data / "net.onnx"))
    np.save(data / "data.npy", np.ones((20, 4, 4), np.float32))
    line = [str(data / "net.onnx"), "-t", "openvino", "--evaluate", str(data / "data.npy")]
    line += ["--precision", "fp32", "--minimize", str(tmp_path / "small.onnx")]
    cut_short(tmp_path, line, "Looking for the smallest model", how)
    assert not list(tmp_path.glob("*small.onnx*"))
