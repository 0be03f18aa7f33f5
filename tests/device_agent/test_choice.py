"""Which artifact is tried first, and what it takes to serve."""

from __future__ import annotations

import msgspec
import pytest
from support.bundles import SCORES, parity

from edgeml.bundle import Artifact, Budgets, File, Manifest, Measurement, Provenance, Requirement
from edgeml.device_agent.install.selection import select
from edgeml.errors import UsageError

FILE = File(path="x", sha256="0" * 64, bytes=1)


def artifact(name: str, *, chosen: bool = True, p50: float | None = None, peak: float = 50):
    target, _, precision = name.partition("-")
    measured = None
    if p50 is not None:
        measured = Measurement(
            machine="here",
            isa="avx2",
            threads=1,
            samples=100,
            load_ms=1,
            p50_ms=p50,
            p99_ms=2 * p50,
            peak_rss_mb=peak,
        )
    return Artifact(
        id=name,
        target=target,
        precision=precision,
        files=(FILE,),
        inputs={},
        outputs={},
        requires=Requirement(packages=()),
        parity=parity(),
        measured=measured,
        chosen=chosen,
    )


def manifest(*artifacts: Artifact, memory_mb: float | None = None) -> Manifest:
    return Manifest(
        name="m",
        version="1",
        created="",
        inputs=(),
        outputs=(SCORES,),
        artifacts=artifacts,
        golden=FILE,
        provenance=Provenance(source_format="", source_name="", source_sha256="", tools={}),
        budgets=Budgets(memory_mb=memory_mb),
    )


def order(found) -> list[str]:
    return [entry.id for entry in found.candidates]


def everything_runs(target: str) -> None:
    return None


def test_chosen_before_the_rest_and_then_the_fastest():
    found = select(
        manifest(
            artifact("onnx-fp32", chosen=False, p50=0.1),
            artifact("tflite-int8", p50=3.0),
            artifact("openvino-int8", p50=2.0),
            artifact("tensorrt-int8"),
        ),
        everything_runs,
    )
    assert order(found) == ["openvino-int8", "tflite-int8", "tensorrt-int8", "onnx-fp32"]


def test_what_does_not_run_here_is_listed_with_the_reason():
    found = select(
        manifest(artifact("tensorrt-int8", p50=0.1), artifact("onnx-int8", p50=1.0)),
        lambda target: "no GPU" if target == "tensorrt" else None,
    )
    assert order(found) == ["onnx-int8"]
    assert [msgspec.to_builtins(entry) for entry in found.rejected] == [
        {"artifact": "tensorrt-int8", "reason": "no GPU"}
    ]


def test_what_was_seen_to_exceed_the_budget_goes_last():
    found = select(
        manifest(
            artifact("openvino-int8", p50=1.0, peak=200),
            artifact("tflite-int8", p50=5.0, peak=60),
            memory_mb=100,
        ),
        everything_runs,
    )
    assert order(found) == ["tflite-int8", "openvino-int8"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("onnx-fp32", ["onnx-fp32"]), ("onnx", ["onnx-int8", "onnx-fp32"])],
)
def test_one_may_be_named(wanted, expected):
    bundle = manifest(
        artifact("onnx-fp32", chosen=False, p50=2.0),
        artifact("onnx-int8", p50=9.0),
        artifact("tflite-int8", p50=1.0),
    )
    assert order(select(bundle, everything_runs, wanted=wanted)) == expected


def test_a_name_that_is_not_in_the_bundle():
    with pytest.raises(UsageError, match="no artifact 'tflight'. Expected one of onnx-fp32"):
        select(manifest(artifact("onnx-fp32")), everything_runs, wanted="tflight")
