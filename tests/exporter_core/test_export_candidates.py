"""Which artifacts are tried, and what each must reach."""

from edgeml.exporter.candidates import TOLERANCES, Candidate, candidates, nothing_left, tolerances
from edgeml.exporter.request import ToleranceOverride
from edgeml.targets.registry import TARGETS


def test_auto_tries_float_and_int8_of_every_target():
    found, refused = candidates(("tflite", "onnx"), "auto", "torch", calibrated=True)
    assert found == (
        Candidate("tflite", "fp32"),
        Candidate("tflite", "int8"),
        Candidate("onnx", "fp32"),
        Candidate("onnx", "int8"),
    )
    assert not refused


def test_auto_tries_float16_weights_too_where_they_cost_openvino_nothing():
    found, _ = candidates(("openvino",), "auto", "torch", calibrated=True)
    assert [each.precision for each in found] == ["fp32", "fp16", "int8"]


def test_auto_leaves_int8_to_tensorrt_where_cuda_would_only_be_later():
    found, _ = candidates(("onnx-cuda", "tensorrt"), "auto", "torch", calibrated=True)
    assert found == (
        Candidate("onnx-cuda", "fp32"),
        Candidate("onnx-cuda", "fp16"),
        Candidate("tensorrt", "fp32"),
        Candidate("tensorrt", "int8"),
    )


def test_auto_without_calibration_data_leaves_int8_out():
    found, refused = candidates(("onnx",), "auto", "torch", calibrated=False)
    assert found == (Candidate("onnx", "fp32"),)
    assert not refused


def test_int8_without_calibration_data_is_refused_and_the_reason_says_why():
    found, refused = candidates(("tflite", "onnx"), "int8", "torch", calibrated=False)
    assert found == ()
    assert set(refused) == {"tflite", "onnx"}
    error = nothing_left(refused)
    assert "without calibration data" in error.found
    assert "random data" in error.found
    assert "--calibration" in error.remedy


def test_a_source_that_a_target_does_not_read_is_refused_and_the_others_go_on():
    found, refused = candidates(("coreml", "onnx"), "fp32", "onnx", calibrated=False)
    assert found == (Candidate("onnx", "fp32"),)
    assert "ONNX" in refused["coreml"].reason
    assert refused["coreml"].remedy


def test_reasons_that_differ_are_all_told():
    _, onnx_source = candidates(("coreml",), "fp32", "onnx", calibrated=False)
    _, no_data = candidates(("onnx",), "int8", "onnx", calibrated=False)
    error = nothing_left({**onnx_source, **no_data})
    assert "coreml: " in error.found
    assert "onnx: " in error.found


def test_with_limits_auto_may_try_all_that_a_target_makes():
    found, _ = candidates(("onnx",), "auto", "torch", calibrated=True, searching=True)
    assert {each.precision for each in found} == set(TARGETS["onnx"].precisions)


def test_mixed_is_tried_beside_float_and_int8_which_tell_what_stays_float():
    found, refused = candidates(("onnx", "coreml"), "mixed", "torch", calibrated=True)
    assert [each.id for each in found] == ["onnx-fp32", "onnx-int8", "onnx-mixed"]
    assert set(refused) == {"coreml"}


def test_what_is_rounded_in_measured_ranges_needs_samples():
    found, _ = candidates(("tflite",), "auto", "torch", calibrated=False, searching=True)
    assert not {each.precision for each in found} & {"int8", "int16x8", "mixed"}
    assert "int8-dynamic" in {each.precision for each in found}


def test_tolerances_are_the_defaults_but_for_what_was_set():
    found = tolerances({"int8": ToleranceOverride(cosine=0.5)})
    assert found["int8"].cosine == 0.5
    assert found["int8"].agreement == TOLERANCES["int8"].agreement
    assert found["fp32"] == TOLERANCES["fp32"]
