"""The worker from its parent's side: shared memory, the doorbell, and the ways it can end."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import platform
import resource
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import PATIENCE_S, SUPPORT, frame, is_gone
from support.bundles import MODELS
from support.processes import children, classes
from support.sleeper.sleeper_runtime import CRASH, HANG, NAP, SHOUT, SPIN
from support.weights import BIAS, WEIGHTS, images, scores

from edgeml.device_agent.serving.shadow import idle_priority
from edgeml.device_agent.worker import wire
from edgeml.device_agent.worker.layout import ALIGNMENT, Layout, TensorSpec
from edgeml.device_agent.worker.output import MAX_BYTES
from edgeml.device_agent.worker.parent import (
    Worker,
    WorkerDiedError,
    WorkerError,
    WorkerLateError,
)
from edgeml.device_agent.worker.turns import LONG_S, SEEN, TURN_NS, Turns
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
    worker.wait_ready(PATIENCE_S)
    return worker


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker that misbehaves when a frame says so."""
    entry = tmp_path / "weights.npz"
    np.savez(entry, weights=WEIGHTS, bias=BIAS)
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT / "sleeper"), prepend=os.pathsep)
    worker = start(tmp_path, target="sleeper", entry=str(entry))
    yield worker
    worker.close()


def test_tensors_go_there_and_back(tmp_path: Path):
    worker = start(tmp_path)
    frames = images(20)
    found = [
        worker.run({"image": one[np.newaxis]}, timeout_s=PATIENCE_S)["scores"] for one in frames
    ]
    np.testing.assert_allclose(np.concatenate(found), scores(frames), atol=1e-5)
    worker.close()
    assert is_gone(worker.pid)


def test_results_are_the_callers_own(tmp_path: Path):
    worker = start(tmp_path)
    frames = images(2)
    first = worker.run({"image": frames[:1]}, timeout_s=PATIENCE_S)["scores"]
    kept = first.copy()
    worker.run({"image": frames[1:]}, timeout_s=PATIENCE_S)
    np.testing.assert_array_equal(first, kept)
    worker.close()


def turn_ns(thread: int) -> int:
    """Of the scheduler, as asked for or by default; 0 where the kernel knows no such wish."""
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]  # sched_getattr
    found = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(number, thread, found, len(found), 0) == 0
    return struct.unpack("=IIQiIQQQ", found)[5]


@pytest.mark.parametrize(
    ("slow_s", "before", "after"),
    [
        (2 * LONG_S, os.SCHED_OTHER, os.SCHED_BATCH),
        (0, os.SCHED_OTHER, os.SCHED_OTHER),
        (2 * LONG_S, os.SCHED_IDLE, os.SCHED_IDLE),  # a shadow's
    ],
)
def test_where_inferences_are_long_the_worker_interrupts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_s: float, before: int, after: int
):
    entry = tmp_path / "weights.npz"
    np.savez(entry, weights=WEIGHTS, bias=BIAS)
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT / "sleeper"), prepend=os.pathsep)
    worker = start(tmp_path, target="sleeper", entry=str(entry), options={"slow_s": str(slow_s)})
    if before == os.SCHED_IDLE:
        idle_priority(worker.pid)
    for count in range(SEEN + 1):
        assert classes(worker.pid) == {before if count < SEEN else after}
        worker.run({"image": images(1)}, timeout_s=PATIENCE_S)
    if turn_ns(os.getpid()) and after != os.SCHED_IDLE:
        asked = after == os.SCHED_BATCH
        assert (turn_ns(worker.pid) == TURN_NS) == asked
        assert not asked or turn_ns(worker.pid) > turn_ns(os.getpid()), "whoever wakes goes first"
    worker.close()


def test_a_short_inference_is_not_long_because_it_had_to_wait(monkeypatch: pytest.MonkeyPatch):
    """On a busy machine others run in the middle of most of them."""
    moments = itertools.accumulate([0.0, LONG_S / 9, 0.0, 4 * LONG_S, 0.0, 9 * LONG_S] * SEEN)
    clock = SimpleNamespace(monotonic=moments.__next__)
    monkeypatch.setattr("edgeml.device_agent.worker.turns.time", clock)
    given_way: list[int] = []
    monkeypatch.setattr("edgeml.device_agent.worker.turns.give_way", given_way.append)
    turns = Turns()
    for _ in range(SEEN):
        with turns:
            pass
    assert given_way == []


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
        worker.run({"image": images(1)}, timeout_s=PATIENCE_S)
    worker.close()


def long_openvino(path: Path) -> Path:
    """An IR of four hundred products of matrices: some ten seconds on one core."""
    ov = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    image = ops.parameter([1, 1, 8, 8], np.float32, name="image")
    image.output(0).tensor.set_names({"image"})
    column = ops.reshape(image, np.array([64, 1], dtype=np.int64), special_zero=False)
    wide = ops.matmul(column, np.ones((1, 800), np.float32), False, False)
    square = ops.matmul(np.ones((800, 64), np.float32) / 64, wide, False, False)
    for _ in range(400):
        square = ops.matmul(ops.tanh(square), ops.tanh(square), False, False)
    rows = ops.reduce_mean(square, np.array([1]), keep_dims=False)
    scores = ops.reshape(
        ops.gather(rows, np.arange(4), np.array(0)), np.array([1, 4]), special_zero=False
    )
    scores.output(0).tensor.set_names({"scores"})
    ov.save_model(ov.Model([scores], [image], "long"), str(path), compress_to_fp16=False)
    return path


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_an_inference_is_broken_off_where_the_runtime_can(tmp_path: Path, target: str):
    entry = MODELS / "endless.onnx" if target == "onnx" else long_openvino(tmp_path / "long.xml")
    worker = start(tmp_path, target=target, entry=str(entry))
    with pytest.raises(WorkerLateError):
        worker.run({"image": frame(1e15)}, timeout_s=0.2)
    assert worker.settle(PATIENCE_S)  # endless, so nothing else ended it
    if target == "onnx":
        found = worker.run({"image": frame(0.5)}, timeout_s=PATIENCE_S)
        np.testing.assert_allclose(found["scores"], scores(frame(0.5)), atol=1e-5)
    worker.close()


def test_a_late_inference_that_ends_within_the_grace_costs_no_worker(sleeper: Worker):
    with pytest.raises(WorkerLateError):
        sleeper.run({"image": frame(NAP)}, timeout_s=0.05)
    assert sleeper.settle(PATIENCE_S)
    found = sleeper.run({"image": frame(0.5)}, timeout_s=PATIENCE_S)  # and not the nap's result
    np.testing.assert_allclose(found["scores"], scores(frame(0.5)), atol=1e-5)


@pytest.mark.parametrize("command", [HANG, SPIN])
def test_one_that_does_not_end_is_killed_after_the_grace(sleeper: Worker, command: float):
    with pytest.raises(WorkerLateError):
        sleeper.run({"image": frame(command)}, timeout_s=0.05)
    assert not sleeper.settle(0.05)
    assert is_gone(sleeper.pid)


def test_what_a_worker_writes_is_bounded(sleeper: Worker, tmp_path: Path):
    with pytest.raises(WorkerLateError):
        sleeper.run({"image": frame(SHOUT)}, timeout_s=1.0)
    assert not sleeper.settle(0.05)
    sleeper.close()
    assert (tmp_path / "log").stat().st_size <= MAX_BYTES + 100
    assert "aaaa" in (tmp_path / "log").read_text()


def test_the_last_words_of_a_worker_are_quoted(sleeper: Worker):
    with pytest.raises(WorkerDiedError, match=r"died with SIGSEGV \(.*farewell"):
        sleeper.run({"image": frame(CRASH)}, timeout_s=PATIENCE_S)


def test_a_worker_that_is_gone(tmp_path: Path):
    worker = start(tmp_path)
    assert worker.resident_bytes()
    worker.kill()
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        worker.run({"image": images(1)}, timeout_s=PATIENCE_S)
    assert worker.resident_bytes() is None
    worker.close()  # twice is once


@pytest.mark.parametrize("closed", [False, True])
def test_a_kill_by_another_is_told_from_one_of_ours(tmp_path: Path, closed: bool):
    ours, theirs = start(tmp_path), start(tmp_path)
    assert not theirs.was_killed(), "it lives"
    ours.kill()
    os.kill(theirs.pid, signal.SIGKILL)
    for worker in (ours, theirs):
        if closed:
            with pytest.raises(WorkerDiedError):
                worker.run({"image": images(1)}, timeout_s=PATIENCE_S)
        else:
            assert "SIGKILL" in worker.obituary()
    assert not ours.was_killed()
    assert theirs.was_killed()
    ours.close()
    theirs.close()


def test_a_crash_is_no_kill(sleeper: Worker):
    with pytest.raises(WorkerDiedError):
        sleeper.run({"image": frame(CRASH)}, timeout_s=PATIENCE_S)
    assert not sleeper.was_killed()


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


def test_where_descriptors_run_out_a_worker_does_not_start_and_nothing_is_left(tmp_path: Path):
    """A program may have taken all that the machine has. The model is not given up for a fault."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    start(tmp_path).close()  # what is opened once, for all workers, is open
    before, have, started = children(os.getpid()), open_files(), 0
    for first_not_to_be_had in sorted(set(range(1000)) - have)[:30]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_not_to_be_had, hard))
        try:
            worker = Worker(spec(), log=tmp_path / "log")
        except WorkerError:
            continue
        else:
            started += 1
            worker.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert children(os.getpid()) == before
            wait_until(lambda: open_files() == have)  # the reader of its output closes its own
    assert 0 < started < 30


def open_files() -> set[int]:
    """But for that which lists them."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()}


def wait_until(condition: Callable[[], bool]) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.001)
