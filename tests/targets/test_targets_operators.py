"""Backend tests of the onnx package through the targets: the sweep's fast part.

``benchmarks/operators.py`` runs all of them; these are some of each kind, and those that came out
wrong before they were mended or refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from operator_cases import Case, difference, judge

FLOAT, DOUBLE, INT8, BFLOAT16 = (
    getattr(TensorProto, name) for name in ("FLOAT", "DOUBLE", "INT8", "BFLOAT16")
)
PICTURE = np.arange(16, dtype="float32").reshape(1, 1, 4, 4)
ROW = np.array([[1, 2, -np.inf], [-np.inf] * 3], "float32")


def case(operator: str, feeds: list, expected: list, *, elem=None, opset=18, weights=(), **given):
    """A case of one operator: the arrays that it is fed, and what ONNX says comes out."""
    names = [f"x{index}" for index in range(len(feeds))]
    outputs = [f"y{index}" for index in range(len(expected))]
    fixed = [f"w{index}" for index in range(len(weights))]

    def kind(array: np.ndarray) -> int:
        return elem or helper.np_dtype_to_tensor_dtype(array.dtype)

    graph = helper.make_graph(
        [helper.make_node(operator, [*names, *fixed], outputs, **given)],
        "case",
        list(map(helper.make_tensor_value_info, names, map(kind, feeds), map(np.shape, feeds))),
        [
            helper.make_tensor_value_info(outputs[i], kind(a), a.shape)
            for i, a in enumerate(expected)
        ],
        list(map(onnx.numpy_helper.from_array, weights, fixed)),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return Case(
        name=operator,
        model=model.SerializeToString(),
        feeds=tuple(feeds),
        expected=tuple(expected),
        rtol=1e-3,
        atol=1e-7,
    )


EQUAL = {
    "abs": case("Abs", [np.float32([-1, 2])], [np.float32([1, 2])]),
    "of a scalar": case("Neg", [np.array(3, "float32")], [np.array(-3, "float32")]),
    "of int64": case("Add", [np.int64([2**30]), np.int64([1])], [np.int64([2**30 + 1])]),
    "of bool": case("Not", [np.array([True, False])], [np.array([False, True])]),
    "of float16": case("Mul", [np.float16([2]), np.float16([4])], [np.float16([8])]),
    "of uint8": case("Max", [np.uint8([3]), np.uint8([200])], [np.uint8([200])]),
    "of nothing": case("Relu", [np.zeros((1, 0), "float32")], [np.zeros((1, 0), "float32")]),
    "nan stays": case("Floor", [np.float32([np.nan, 1.5])], [np.float32([np.nan, 1])]),
    "a batch of three": case(
        "Flatten", [np.ones((3, 2, 2), "float32")], [np.ones((3, 4), "float32")]
    ),
    "an input given out": case("Identity", [PICTURE], [PICTURE]),
    "an inference dropout": case("Dropout", [PICTURE], [PICTURE]),
    "ties go to the first": case(
        "TopK",
        [np.int64([[0, 0, 0]])],
        [np.int64([[0, 0]]), np.int64([[0, 1]])],
        weights=(np.int64([2]),),
    ),
    "an opset that is not released": case("Sqrt", [np.float32([4])], [np.float32([2])], opset=27),
    "the largest of nothing": case(
        "ReduceMax",
        [np.zeros((1, 0), "float32")],
        [np.full((1, 1), -np.inf, "float32")],
        weights=(np.int64([1]),),
    ),
    "convolution": case(
        "Conv",
        [PICTURE],
        [np.full((1, 1, 2, 2), 9 * 5, "float32") + np.float32([[0, 9], [36, 45]])],
        weights=(np.ones((1, 1, 3, 3), "float32"),),
    ),
    "resize": case(
        "Resize",
        [PICTURE[:, :, :2, :2]],
        [PICTURE[:, :, :2, :2].repeat(2, 2).repeat(2, 3)],
        weights=(np.float32([]), np.float32([1, 1, 2, 2])),
        mode="nearest",
    ),
}

REFUSED = {
    "bfloat16": (
        case("Abs", [np.float32([1])], [np.float32([1])], elem=BFLOAT16),
        ("onnx", "openvino"),
        "holds bfloat16",
    ),
    "random numbers": (
        case("RandomNormalLike", [PICTURE], [PICTURE]),
        ("onnx", "openvino"),
        "draws random numbers",
    ),
    "a step off the grid": (
        case(
            "Resize",
            [PICTURE],
            [np.zeros((1, 1, 2, 2), "float32")],
            weights=(np.float32([]), np.float32([1, 1, 0.6, 0.6])),
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
        ("onnx", "openvino"),
        "otherwise than ONNX defines it: with aligned corners",
    ),
    "a signed shift": (
        case(
            "BitShift", [np.int8([-8]), np.int8([1])], [np.int8([-4])], opset=28, direction="RIGHT"
        ),
        ("openvino",),
        "OpenVINO computes BitShift otherwise",
    ),
    "integers beyond 32 bits": (
        case("Add", [np.int64([2**40]), np.int64([1])], [np.int64([2**40 + 1])]),
        ("openvino",),
        "'x0' holds 1099511627776, and OpenVINO computes int64 in 32 bits",
    ),
    "float64 at the ends": (
        case("Cast", [ROW], [ROW.astype("float64")], to=DOUBLE),
        ("openvino",),
        "an infinity becomes the largest number",
    ),
    "no rule": (
        case("Det", [np.eye(2, dtype="float32")], [np.float32(1)], opset=22),
        ("openvino",),
        "OpenVINO has no operator for Det, which the model needs. It is the node that makes 'y0' "
        "(float32[2, 2] → float32[])",
    ),
}


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("name", EQUAL)
def test_what_an_operator_computes(name: str, target: str, tmp_path: Path):
    verdict = judge(EQUAL[name], target, tmp_path)
    assert (verdict.outcome, verdict.reason) == ("equal", "")


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_target_gets_wrong_is_refused(name: str, tmp_path: Path):
    given, targets, reason = REFUSED[name]
    for target in targets:
        verdict = judge(given, target, tmp_path)
        assert verdict.outcome == "refused", verdict
        assert reason in verdict.reason


def test_a_difference_is_told_with_its_place():
    told = difference(["y"], [np.float32([1, 2])], [np.float32([1, 3])], rtol=1e-3, atol=0)
    assert "[1]: 3.0 (ACTUAL), 2.0 (DESIRED)" in told
    assert "int32 in place of" in difference(
        ["y"], [np.int64([1])], [np.int32([1])], rtol=1e-3, atol=0
    )
    assert (
        difference(["y"], [np.float32([1e4, 0])], [np.float32([1e4, 1e-3])], rtol=0, atol=0) == ""
    )
