"""What the exporter is asked, and what it answers, as documents."""

import msgspec
import pytest

from edgeml.errors import UsageError
from edgeml.exporter.events import Done, Failure, Row, decode_event, encode_event
from edgeml.exporter.plan import plan
from edgeml.exporter.request import (
    ExportRequest,
    ToleranceOverride,
    decode_request,
    parse_tolerance,
)


def test_a_request_survives_the_pipe():
    request = ExportRequest(
        model="net.py:build",
        targets=("tflite", "onnx"),
        calibration="cal.npz",
        tolerances={"int8": ToleranceOverride(cosine=0.95)},
        deadline_ms=20,
    )
    assert decode_request(msgspec.json.encode(request)) == request


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"{}", b'{"model": "a", "targets": ["onnx"], "colour": 1}'],
    ids=["nothing", "cut short", "a list", "no fields", "an unknown field"],
)
def test_what_is_no_request_is_wrong_usage(text: bytes):
    with pytest.raises(UsageError, match="export request"):
        decode_request(text)


@pytest.mark.parametrize(
    ("text", "precision", "override"),
    [
        ("int8:cosine=.95,agreement=.9", "int8", ToleranceOverride(cosine=0.95, agreement=0.9)),
        ("fp16:agreement=1", "fp16", ToleranceOverride(agreement=1.0)),
        ("fp32:cosine=-1", "fp32", ToleranceOverride(cosine=-1.0)),
    ],
)
def test_a_tolerance_is_read(text: str, precision: str, override: ToleranceOverride):
    assert parse_tolerance(text) == (precision, override)


@pytest.mark.parametrize(
    "text", ["", "int8", "int8:", "int4:cosine=1", "int8:cosine=1.5", "int8:max=1", "int8:cosine=x"]
)
def test_what_is_no_tolerance_is_wrong_usage(text: str):
    with pytest.raises(UsageError, match="is no tolerance") as caught:
        parse_tolerance(text)
    assert "int8:cosine=.95,agreement=.9" in str(caught.value)


def test_each_event_is_one_line_and_comes_back_as_itself():
    events = [
        Row(
            target="onnx",
            precision="int8",
            bytes=10,
            passed=True,
            chosen=False,
            cosine=0.99,
            max_abs=0.1,
        ),
        Failure(error="SourceError", found="two\nlines"),
        Done(bundle="/a/b.edgeml", name="b", version="1", bytes=5, status=1),
    ]
    for event in events:
        line = encode_event(event)
        assert line.count(b"\n") == 1
        assert decode_event(line) == event


@pytest.mark.parametrize("family", ["colours", "text"])
def test_statistics_that_no_input_has_are_refused_before_anything_is_read(family: str):
    request = ExportRequest(model="missing.onnx", targets=("onnx",), statistics={"image": family})
    with pytest.raises(UsageError, match=rf"no statistics '{family}'.*'image'.*tensor, none"):
        plan(request)
