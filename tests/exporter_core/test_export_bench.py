"""What an export does side by side: the steps that are told of later, the processes that wait."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.bundles import MODELS
from support.weights import images

from edgeml.bundle.manifest import Precision
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.children import Children
from edgeml.exporter.events import Event, Progress, Stage
from edgeml.exporter.measure import (
    MOST_TOGETHER,
    TURNS,
    Bench,
    measure_in_turns,
    not_measurable,
    together,
)
from edgeml.exporter.plan import plan
from edgeml.exporter.request import ExportRequest, Limits
from edgeml.exporter.steps import Steps
from edgeml.targets.compiling import CompileResult
from edgeml.targets.measuring import MAX_RUNS, MIN_RUNS

LIBRARIES = {"onnx": "onnxruntime_pybind11_state", "openvino": "libopenvino.so"}
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path / "log.txt")
    yield children
    children.close()


def test_steps_that_came_early_are_told_of_in_their_stage():
    told: list[Event] = []
    steps = Steps(told.append)
    steps("onnx fp32")
    assert told == []
    stage = Stage(name="compile", title="Converting", steps=2)
    steps.open(stage)
    steps("onnx int8")
    assert told == [stage, Progress(text="onnx fp32", step=1), Progress(text="onnx int8", step=2)]


def test_each_measurement_has_a_process_of_its_own(children: Children):
    bench = Bench(children)
    bench.expect(Candidate("onnx", "fp32"))
    bench.settle()
    taken = [bench.take("onnx"), bench.take("onnx")]  # nobody said that there would be a second one
    processes = [child.pid for child in taken]
    assert None not in processes
    assert len(set(processes)) == 2
    bench.close()
    assert [child.pid for child in taken] == [None, None]


def test_a_process_for_a_measurement_waits_on_one_core_with_its_targets_runtime_and_no_other(
    children: Children,
):
    bench = Bench(children)
    bench.expect(Candidate("openvino", "fp16"))
    bench.expect(Candidate("onnx", "fp32"))
    bench.settle()
    pids = {target: bench.take(target).pid for target in ("onnx", "openvino")}
    maps = {target: Path(f"/proc/{pid}/maps").read_text() for target, pid in pids.items()}
    cores = [os.sched_getaffinity(pid) for pid in pids.values() if pid is not None]
    bench.close()
    for target, library in LIBRARIES.items():
        assert [each for each in pids if library in maps[each]] == [target]
    assert [len(each) for each in cores] == [1, 1]


def test_artifacts_that_are_compared_take_turns_each_in_a_process_of_its_own(
    children: Children, tmp_path: Path
):
    made = {
        Candidate("onnx", precision): CompileResult(
            files=(MODELS / "tiny.onnx",),
            inputs={"image": "image"},
            outputs={"scores": "scores"},
        )
        for precision in PRECISIONS
    }
    np.savez(tmp_path / "samples.npz", image=images(4))
    bench = Bench(children)
    found = measure_in_turns(made, tmp_path / "samples.npz", bench)
    bench.close()
    assert list(found) == list(made)
    for each in found.values():
        assert len(each.turns_ms) == TURNS
        assert min(each.turns_ms) <= each.p50_ms <= max(each.turns_ms)
        assert MIN_RUNS <= each.samples <= MAX_RUNS
        assert 20 < each.peak_rss_mb < 300


def test_turns_are_for_several_artifacts_that_can_be_measured_and_held_at_once(tmp_path: Path):
    def made(target: str, *sizes: int) -> dict[Candidate, CompileResult]:
        found: dict[Candidate, CompileResult] = {}
        for precision, size in zip(PRECISIONS, sizes, strict=False):
            file = tmp_path / f"{target}-{precision}"
            with file.open("wb") as stream:
                stream.truncate(size)
            candidate = Candidate(target, precision)
            found[candidate] = CompileResult(files=(file,), inputs={}, outputs={})
        return found

    assert together(made("onnx", 4000, 1000))
    assert not together(made("onnx", 4000))
    assert not together(made("onnx", MOST_TOGETHER, 1000))
    assert not together(made("tensorrt", 4000, 1000))


def test_nothing_is_started_for_what_cannot_run_here(children: Children):
    bench = Bench(children)
    bench.expect(Candidate("tensorrt", "fp16"))
    bench.settle()
    bench.close()
    assert not children.used


def test_what_needs_a_gpu_is_measured_on_the_device_whether_there_is_one_here_or_not(
    tmp_path: Path,
):
    for name in ("onnx-cuda", "tensorrt"):
        assert "edgeml bench" in not_measurable(name)
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08" + bytes(64))
    planned = plan(
        ExportRequest(
            model=str(tmp_path / "net.onnx"),
            targets=("onnx-cuda",),
            evaluation=__file__ + ":samples",
            limits=Limits(latency_ms=5),
        )
    )
    why = planned.refused["onnx-cuda"]
    assert "--max-latency cannot be judged for onnx-cuda here: an export computes" in why.reason
    assert "run the export there" not in why.remedy
