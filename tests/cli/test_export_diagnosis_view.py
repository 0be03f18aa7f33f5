"""How collapses and partings look, and stand in the document."""

from __future__ import annotations

import json

import pytest

from edgeml.cli.export_view import Result
from edgeml.exporter.events import Collapse, LayerNoise, Parted, decode_event, encode_event

COLLAPSE = Collapse(
    target="onnx",
    precision="int8",
    text="The first bad layer is 'norm'",
    layers=(
        LayerNoise(name="conv", operator="Conv", module="stem", line="net.py:19", snr_db=40.6),
        LayerNoise(name="norm", operator="Norm", snr_db=0.7, input_snr_db=30.3, first=True),
    ),
    compared=9,
)
PARTED = Parted(
    target="tflite",
    precision="fp32",
    text="Output 'y' first parts at sample 2",
    output="y",
    sample=2,
    index=(0, 1),
    source=1.0,
)


@pytest.fixture
def result() -> Result:
    taken = Result()
    for event in (COLLAPSE, PARTED):
        taken.take(decode_event(encode_event(event)))
    return taken


def test_the_layers_are_a_table_that_marks_the_first_bad_one(
    result: Result, capsys: pytest.CaptureFixture[str]
):
    result.write_table()
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert ["conv", "Conv", "–", "40.6", "stem,", "net.py:19"] in lines
    assert ["norm", "Norm", "30.3", "0.7", "←", "first", "bad"] in lines
    assert "onnx int8: The first bad layer is 'norm'.\n" in printed
    assert "tflite fp32: Output 'y' first parts at sample 2.\n" in printed


def test_the_document_has_both(result: Result):
    document = json.loads(json.dumps(result.document()))
    assert document["collapses"][0]["layers"][1]["snr_db"] == 0.7
    assert document["partings"][0]["index"] == [0, 1]
