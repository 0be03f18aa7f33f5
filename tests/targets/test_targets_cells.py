"""Every cell of the table, source kind by target by precision: made for real, run, compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from support.conversions import Make, Source

from edgeml.targets.registry import PRECISIONS, TARGETS, can_make
from edgeml.targets.runtime import NamedSession, open_session

KINDS = {
    "classifier": "torch",
    "pair": "torch",
    "tensorflow": "savedmodel",
    "lite": "tflite",
    "onnx": "onnx",
    "forest": "classical",
}
CELLS = [
    pytest.param(name, row.name, precision, id=f"{name}-{row.name}-{precision}")
    for name, kind in KINDS.items()
    for row in TARGETS.values()
    for precision in PRECISIONS
    if can_make(row, kind, precision) is None and not row.runs_on
]
# Largest error that a right artifact of these models shows, and the smallest cosine.
TOLERANCE = {"fp32": (1e-5, 0.99999), "fp16": (5e-3, 0.9999), "int8": (0.1, 0.998)}


def session_of(make: Make, name: str, target: str, precision) -> NamedSession:
    artifact = make(name, target, precision)
    # The graphs of the GPU targets are plain ONNX, which the CPU can check.
    runtime = "onnx" if TARGETS[target].needs_nvidia else target
    options = {} if TARGETS[target].needs_nvidia else artifact.options
    session = open_session(runtime, artifact.files[0], options=options)
    return NamedSession(session, artifact.inputs, artifact.outputs)


def run_all(session: NamedSession, feeds: Mapping[str, np.ndarray], rows: range):
    results = [
        session.run({name: array[row : row + 1] for name, array in feeds.items()}) for row in rows
    ]
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


@pytest.mark.parametrize(("name", "target", "precision"), CELLS)
def test_the_artifact_computes_what_its_source_does(
    name: str, target: str, precision, make: Make, sources: Mapping[str, Source]
):
    source = sources[name]
    with session_of(make, name, target, precision) as session:
        for infos, arrays in (
            (session.inputs, source.feeds),
            (session.outputs, source.expected),
        ):
            assert [info.name for info in infos] == list(arrays)
            for info, array in zip(infos, arrays.values(), strict=True):
                assert (info.shape, info.dtype) == ((1, *array.shape[1:]), "float32")
        held_back = range(32, 48)
        found = run_all(session, source.feeds, held_back)
    largest, smallest = TOLERANCE[precision]
    for output, array in source.expected.items():
        expected = array[held_back.start :]
        error = float(np.abs(found[output] - expected).max())
        norms = float(np.linalg.norm(found[output]) * np.linalg.norm(expected))
        assert error <= largest, output
        assert float(np.vdot(found[output], expected)) / norms >= smallest, output


TWO_INPUTS = [
    (name, row.name)
    for name in ("pair", "tensorflow", "lite", "onnx")
    for row in TARGETS.values()
    if can_make(row, KINDS[name]) is None and not row.runs_on
]


@pytest.mark.parametrize(("name", "target"), TWO_INPUTS)
def test_inputs_of_one_shape_are_not_exchanged(
    name: str, target: str, make: Make, sources: Mapping[str, Source]
):
    """The counter-proof of the mapping: with its inputs exchanged, the model says otherwise."""
    source = sources[name]
    exchanged = {"left": source.feeds["right"], "right": source.feeds["left"]}
    with session_of(make, name, target, "fp32") as session:
        wrong = run_all(session, exchanged, range(1))
    assert np.abs(wrong["difference"] - source.expected["difference"][:1]).max() > 0.1


@pytest.mark.parametrize("target", TARGETS)
def test_every_artifact_of_a_target_carries_its_default_options(target: str, make: Make):
    options = make("classifier", target, "fp32").options
    assert TARGETS[target].options.items() <= options.items()


def test_openvino_is_told_to_compute_in_float32(make: Make):
    assert make("classifier", "openvino", "fp32").options == {"INFERENCE_PRECISION_HINT": "f32"}


def test_tensorrt_caches_its_engine_and_takes_the_precision_that_was_asked_for(make: Make):
    half = make("classifier", "tensorrt", "fp16").options
    assert half["trt_engine_cache_enable"] == half["trt_timing_cache_enable"] == "1"
    assert half["trt_fp16_enable"] == "1"
    assert "trt_fp16_enable" not in make("classifier", "tensorrt", "fp32").options
