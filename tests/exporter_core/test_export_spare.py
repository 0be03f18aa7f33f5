"""OpenVINO computes float16 as float32: under auto one of them is looked at."""

import pytest

from edgeml.exporter.candidates import Candidate, candidates, spares
from edgeml.exporter.judging.choose import holds
from edgeml.exporter.judging.figures import Figures


def test_openvino_s_fp16_stands_for_fp32_under_auto():
    tried, _ = candidates(["openvino", "onnx"], "auto", "torch", calibrated=True)
    assert spares(tried, "auto") == {Candidate("openvino", "fp32"): Candidate("openvino", "fp16")}


def test_a_precision_that_was_asked_for_is_looked_at():
    tried, _ = candidates(["openvino"], "fp32", "torch", calibrated=False)
    assert spares(tried, "fp32") == {}


@pytest.mark.parametrize(
    ("shortfall", "drop", "expected"),
    [("", None, True), ("", 0.005, True), ("", 0.02, False), ("cosine .99", None, False)],
)
def test_one_that_fails_or_loses_more_than_a_point_does_not_hold(
    shortfall: str, drop: float | None, expected: bool
):
    half = Figures(
        candidate=Candidate("openvino", "fp16"), bytes=100, shortfall=shortfall, drop=drop
    )
    assert holds(half) is expected
