"""Torch's operators in ONNX, read once."""

from torch.onnx._internal.exporter import _registration as registration

from edgeml.targets.onnx.torchlib import read


def known() -> dict[object, list[object]]:
    found = registration.ONNXRegistry.from_torchlib().functions
    return {operator: [each.onnx_function for each in many] for operator, many in found.items()}


def test_the_operators_that_were_read_ahead_are_those_that_an_export_would_read():
    before = known()
    read()
    first, again = (registration.onnxscript_apis.get_torchlib_ops() for _ in range(2))
    assert first is again
    assert len(first) > 400
    assert known() == before
