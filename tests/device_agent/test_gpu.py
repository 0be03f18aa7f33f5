"""The agent on a real NVIDIA GPU, by ONNX Runtime's CUDA provider. ``scripts/gpu.sh`` runs this.

What TensorRT would add is not shown here: its libraries need not be there.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.agents import PATIENCE_S, AgentProcess, StartAgent, frame, is_gone
from support.bundles import MODELS, Budgets, tiny_bundle
from support.weights import images, scores

from edgeml.device_agent.local.client import CallError
from edgeml.errors import RefusedError
from edgeml.targets.host import can_run_here
from edgeml.targets.onnx_cuda.captured import CapturedSession
from edgeml.targets.registry import target
from edgeml.targets.runtime import Cancellable, open_session

STRICT = dict(target("onnx-cuda").options)
PATIENT = Budgets(deadline_ms=5_000)
ENDLESS = 1e12
"""Turns of the loop in ``endless.onnx``: hours."""

HOG = """
import sys
import numpy as np
import onnxruntime as ort
if hasattr(ort, "preload_dlls"):
    ort.preload_dlls()
hoard, size = [], 2**30
while size >= 2**24:
    try:
        hoard.append(ort.OrtValue.ortvalue_from_shape_and_type([size], np.uint8, "cuda"))
    except Exception:
        size //= 2
print("full", flush=True)
sys.stdin.readline()
"""
"""Takes all of the GPU's memory, to the last 16 MB."""


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="this machine has no NVIDIA GPU"),
    pytest.mark.skipif(not _installed("onnxruntime-gpu"), reason="needs onnxruntime-gpu"),
]


def gpu_mb() -> int:
    """Memory of the first GPU that is in use, by whomever, 2^20 bytes."""
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(asked, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def until(condition: Callable[[], bool]) -> None:
    """The driver takes back a dead process's memory a moment after its end."""
    last = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.05)


def answer(agent: AgentProcess, one: np.ndarray) -> np.ndarray:
    with agent.client() as client:
        return client.infer({"image": one})["scores"]


def serves(agent: AgentProcess, artifact: str) -> None:
    """It answers right, and says that this artifact does."""
    one = images(1, seed=5)
    np.testing.assert_allclose(answer(agent, one), scores(one), atol=1e-5)
    with agent.client() as client:
        (model,) = client.get("/edgeml/v1/status")["models"]
    assert model["artifact"] == artifact


class TestOneSession:
    def test_the_target_can_run_here(self):
        assert can_run_here("onnx-cuda") is None

    def test_every_node_is_on_the_gpu_and_the_answer_is_right(self):
        before = gpu_mb()
        session = open_session("onnx-cuda", MODELS / "tiny.onnx", options=STRICT)
        frames = images(20)
        found = [session.run({"image": one[None]})["scores"] for one in frames]
        assert gpu_mb() > before  # so it is no CPU that answered
        np.testing.assert_allclose(np.concatenate(found), scores(frames), atol=1e-5)
        session.close()

    def test_its_kernels_are_launched_at_once(self):
        session = open_session("onnx-cuda", MODELS / "tiny.onnx", options=STRICT)
        assert isinstance(session, CapturedSession)
        frames = images(2)
        first, second = (session.run({"image": one[None]})["scores"] for one in frames)
        np.testing.assert_allclose([first[0], second[0]], scores(frames), atol=1e-5)

    def test_where_a_shape_depends_on_values_they_are_launched_one_by_one(self):
        options = {**STRICT, "placement.share": "0"}
        session = open_session("onnx-cuda", MODELS / "ragged.onnx", options=options)
        assert not isinstance(session, CapturedSession)
        one = images(1)
        np.testing.assert_allclose(session.run({"image": one})["scores"], scores(one), atol=1e-5)
        wanted = {**options, "cuda_enable_cuda_graph": "1"}
        with pytest.raises(RefusedError):
            open_session("onnx-cuda", MODELS / "ragged.onnx", options=wanted)

    def test_or_where_somebody_wants_it(self):
        options = {**STRICT, "cuda_enable_cuda_graph": "0"}
        session = open_session("onnx-cuda", MODELS / "tiny.onnx", options=options)
        assert not isinstance(session, CapturedSession)
        one = images(1)
        np.testing.assert_allclose(session.run({"image": one})["scores"], scores(one), atol=1e-5)

    def test_an_operator_that_cuda_lacks_is_named(self):
        with pytest.raises(RefusedError, match=r"1 on CPUExecutionProvider.*nodes: Det"):
            open_session("onnx-cuda", MODELS / "divided.onnx", options=STRICT)

    def test_whoever_accepts_that_says_so(self):
        accepted = {**STRICT, "placement.share": "0.5"}
        session = open_session("onnx-cuda", MODELS / "divided.onnx", options=accepted)
        one = images(1)
        np.testing.assert_allclose(session.run({"image": one})["scores"], scores(one), atol=1e-5)

    def test_a_run_is_broken_off(self):
        """Between two nodes; a kernel that is at work ends first."""
        options = {**STRICT, "placement.share": "0"}
        session = open_session("onnx-cuda", MODELS / "endless.onnx", options=options)
        ended: list[BaseException] = []

        def run() -> None:
            try:
                session.run({"image": frame(ENDLESS)})
            except RefusedError as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        assert isinstance(session, Cancellable)
        session.cancel()
        thread.join(60)
        assert ended


class TestTheAgent:
    def test_it_serves(self, start_agent: StartAgent, tmp_path: Path):
        bundle = tiny_bundle(tmp_path, targets=("onnx-cuda",), budgets=PATIENT)
        agent = start_agent("--bundle", bundle).ready()
        serves(agent, "onnx-cuda-fp32")

    def test_without_tensorrt_it_serves_by_cuda_and_says_why(
        self, start_agent: StartAgent, tmp_path: Path
    ):
        if can_run_here("tensorrt") is None:
            pytest.skip("TensorRT is installed")
        bundle = tiny_bundle(tmp_path, targets=("tensorrt", "onnx-cuda", "onnx"), budgets=PATIENT)
        agent = start_agent("--bundle", bundle).ready()
        assert "libnvinfer" in agent.wait_for("artifact=tensorrt-fp32")
        serves(agent, "onnx-cuda-fp32")

    def test_without_the_gpu_it_serves_by_the_cpu_and_says_why(
        self, start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        bundle = tiny_bundle(tmp_path, targets=("onnx-cuda", "onnx"), budgets=PATIENT)
        agent = start_agent("--bundle", bundle).ready()
        assert "CUDAExecutionProvider" in agent.wait_for("artifact=onnx-cuda-fp32")
        serves(agent, "onnx-fp32")

    def test_a_late_run_on_the_gpu_is_gone_and_so_is_its_memory(
        self, start_agent: StartAgent, tmp_path: Path
    ):
        before = gpu_mb()
        bundle = tiny_bundle(
            tmp_path,
            targets=("onnx-cuda",),
            budgets=Budgets(deadline_ms=2_000),
            models={"onnx-cuda": "endless.onnx"},
            options={"onnx-cuda": {"placement.share": "0"}},
        )
        agent = start_agent("--bundle", bundle).ready()
        assert gpu_mb() > before
        with pytest.raises(CallError, match="late"):
            answer(agent, frame(ENDLESS))
        serves(agent, "onnx-cuda-fp32")
        assert agent.terminate() == 0
        until(lambda: gpu_mb() <= before)

    def test_a_killed_worker_leaves_nothing_on_the_gpu(
        self, start_agent: StartAgent, tmp_path: Path
    ):
        before = gpu_mb()
        bundle = tiny_bundle(tmp_path, targets=("onnx-cuda",), budgets=PATIENT)
        agent = start_agent("--bundle", bundle).ready()
        (worker,) = agent.workers()
        os.kill(worker, 9)
        agent.wait_for(" replaced ")
        assert is_gone(worker)
        serves(agent, "onnx-cuda-fp32")
        assert agent.terminate() == 0
        until(lambda: gpu_mb() <= before)

    def test_a_limit_of_the_gpus_memory_is_kept(self, start_agent: StartAgent, tmp_path: Path):
        """What a Jetson's agent does by itself; here the bundle's options do."""
        bundle = tiny_bundle(
            tmp_path,
            targets=("onnx-cuda", "onnx"),
            budgets=PATIENT,
            models={"onnx-cuda": "hungry.onnx"},
            options={"onnx-cuda": {**STRICT, "cuda_gpu_mem_limit": str(100 * 10**6)}},
        )
        agent = start_agent("--bundle", bundle).ready()
        assert "memory" in agent.wait_for("artifact=onnx-cuda-fp32")
        serves(agent, "onnx-fp32")

    def test_and_what_fits_runs(self, start_agent: StartAgent, tmp_path: Path):
        bundle = tiny_bundle(
            tmp_path,
            targets=("onnx-cuda",),
            budgets=PATIENT,
            models={"onnx-cuda": "hungry.onnx"},
            options={"onnx-cuda": {**STRICT, "cuda_gpu_mem_limit": str(2 * 10**9)}},
        )
        serves(start_agent("--bundle", bundle).ready(), "onnx-cuda-fp32")

    def test_too_little_memory_for_cuda_itself(self, start_agent: StartAgent, tmp_path: Path):
        """CUDA takes some hundred megabytes of the machine's own memory."""
        bundle = tiny_bundle(
            tmp_path,
            targets=("onnx-cuda", "onnx"),
            budgets=Budgets(deadline_ms=5_000, memory_mb=150),
        )
        agent = start_agent("--bundle", bundle).ready()
        assert "150 MB are allowed" in agent.wait_for("artifact=onnx-cuda-fp32")
        serves(agent, "onnx-fp32")

    def test_a_gpu_that_others_have_filled(self, start_agent: StartAgent, tmp_path: Path):
        bundle = tiny_bundle(tmp_path, targets=("onnx-cuda", "onnx"), budgets=PATIENT)
        hog = subprocess.Popen(
            [sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert hog.stdout is not None
            assert hog.stdout.readline() == "full\n"
            agent = start_agent("--bundle", bundle).ready()
            assert "memory" in agent.wait_for("artifact=onnx-cuda-fp32")
            serves(agent, "onnx-fp32")
        finally:
            hog.kill()
            hog.communicate()

    def test_a_swap_under_load_drops_nothing(self, start_agent: StartAgent, tmp_path: Path):
        first = tiny_bundle(tmp_path, targets=("onnx-cuda",), budgets=PATIENT)
        second = tiny_bundle(tmp_path, targets=("onnx-cuda",), version="2.0", budgets=PATIENT)
        agent = start_agent("--bundle", first).ready()
        stop = threading.Event()
        failed: list[BaseException] = []
        answered = [0]

        def call() -> None:
            one = images(1, seed=7)
            try:
                with agent.client() as client:
                    while not stop.is_set():
                        found = client.infer({"image": one})["scores"]
                        np.testing.assert_allclose(found, scores(one), atol=1e-5)
                        answered[0] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a dropped request
                failed.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        try:
            deploy = [sys.executable, "-m", "edgeml", "agent", "deploy", second]
            subprocess.run([*deploy, "--socket", agent.socket], check=True)
            agent.wait_for("version=2.0")
            seen = answered[0]
            until(lambda: answered[0] > seen + 100 or not thread.is_alive())
        finally:
            stop.set()
            thread.join()
        assert not failed
        with agent.client() as client:
            (model,) = client.get("/edgeml/v1/status")["models"]
        assert model["version"] == "2.0"
        assert {outcome for outcome, count in model["outcomes"].items() if count} == {"served"}
