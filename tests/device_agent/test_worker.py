"""The worker from its parent's side: shared memory, the doorbell, and the ways it can end."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import is_gone
from support.bundles import MODELS
from support.weights import images, scores

from edgeml.device_agent.worker import wire
from edgeml.device_agent.worker.layout import ALIGNMENT, Layout, TensorSpec
from edgeml.device_agent.worker.parent import Worker, WorkerDiedError, WorkerError
from edgeml.device_agent.worker.wire import WorkerSpec

IMAGE = TensorSpec("image", (1, 1, 8, 8), "float32")
SCORES = TensorSpec("scores", (1, 4), "float32")


def spec(**changes) -> WorkerSpec:
    settings = {
        "target": "onnx",
        "entry": str(MODELS / "tiny.onnx"),
        "threads": 1,
        "options": {},
        "inputs": {"image": "image"},
        "outputs": {"scores": "scores"},
        "layout": Layout((IMAGE,), (SCORES,)),
        **changes,
    }
    return WorkerSpec(**settings)


def start(tmp_path: Path, **changes) -> Worker:
    worker = Worker(spec(**changes), log=tmp_path / "log")
    worker.wait_ready(60)
    return worker


def test_tensors_go_there_and_back(tmp_path: Path):
    worker = start(tmp_path)
    frames = images(20)
    found = [worker.run({"image": one[np.newaxis]}, timeout_s=60)["scores"] for one in frames]
    np.testing.assert_allclose(np.concatenate(found), scores(frames), atol=1e-5)
    worker.close()
    assert is_gone(worker.pid)


def test_results_are_the_callers_own(tmp_path: Path):
    worker = start(tmp_path)
    frames = images(2)
    first = worker.run({"image": frames[:1]}, timeout_s=60)["scores"]
    kept = first.copy()
    worker.run({"image": frames[1:]}, timeout_s=60)
    np.testing.assert_array_equal(first, kept)
    worker.close()


REFUSALS = {
    "another output shape": (
        {"layout": Layout((IMAGE,), (TensorSpec("scores", (1, 5), "float32"),))},
        r"shape \[1, 4\] and dtype float32. Expected shape \[1, 5\]",
    ),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entry": "/nowhere/model.onnx"}, "There is no file /nowhere/model.onnx"),
        ({"inputs": {"image": "picture"}}, r"inputs \['picture'\] that the artifact does not have"),
        (
            {"layout": Layout((TensorSpec("image", (1, 64), "float32"),), (SCORES,))},
            r"shape \[1, 64\] and dtype float32. Expected shape \[1, 1, 8, 8\]",
        ),
        ({"target": "abacus"}, "There is no target 'abacus'"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_the_runtimes_words(tmp_path: Path, changes, message):
    with pytest.raises(WorkerError, match=message):
        start(tmp_path, **changes)


def test_an_output_that_is_not_what_the_manifest_says(tmp_path: Path):
    changes, message = REFUSALS["another output shape"]
    worker = start(tmp_path, **changes)
    with pytest.raises(WorkerError, match=message):
        worker.run({"image": images(1)}, timeout_s=60)
    worker.close()


def test_a_worker_that_is_gone(tmp_path: Path):
    worker = start(tmp_path)
    assert worker.resident_bytes()
    worker.kill()
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        worker.run({"image": images(1)}, timeout_s=60)
    assert worker.resident_bytes() is None
    worker.close()  # twice is once


def test_memory_that_cannot_be_had_is_an_error_and_no_bus_error(tmp_path: Path):
    huge = TensorSpec("image", (1, 2**50), "float32")
    with pytest.raises(WorkerError, match="no room for the"):
        Worker(spec(layout=Layout((huge,), (SCORES,))), log=tmp_path / "log")


TENSORS = st.lists(
    st.builds(
        TensorSpec,
        st.just("t"),
        st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple),
        st.sampled_from(["float32", "uint8", "int64", "float16", "bool"]),
    ),
    min_size=1,
    max_size=5,
)


@given(TENSORS, TENSORS)
def test_tensors_lie_apart_and_aligned(inputs, outputs):
    inputs = [TensorSpec(f"i{n}", t.shape, t.dtype) for n, t in enumerate(inputs)]
    outputs = [TensorSpec(f"o{n}", t.shape, t.dtype) for n, t in enumerate(outputs)]
    layout = Layout(tuple(inputs), tuple(outputs))
    end = 0
    for tensor, offset in zip([*inputs, *outputs], layout.offsets(), strict=True):
        assert offset % ALIGNMENT == 0
        assert offset >= end
        end = offset + tensor.nbytes
    assert end <= layout.nbytes
    with mmap.mmap(-1, layout.nbytes) as memory:
        views = [view for side in layout.views(memory) for view in side.values()]
        assert [view.shape for view in views] == [tensor.shape for tensor in [*inputs, *outputs]]
        del views


@given(st.integers(0, 4), st.integers(0, 2**64 - 1), st.text(max_size=3000))
def test_a_message_fits_a_datagram(code, number, text):
    datagram = wire.message(code, number, text)
    assert len(datagram) <= wire.MAX_MESSAGE
    assert wire.parse(datagram)[:2] == (code, number)
