"""Where the GPU takes from the machine's own memory, the runtime is told how much it may have."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import Budgets, sleeper_bundle
from support.services import scores_of, serving
from support.sleeper.sleeper_runtime import CRASH

from edgeml.device_agent.limits import gpu
from edgeml.device_agent.serving import runner
from edgeml.device_agent.worker.parent import Worker
from edgeml.device_agent.worker.wire import WorkerSpec

MB = 10**6


def test_on_a_jetson_the_limit_goes_to_the_runtimes_options(tmp_path: Path):
    model = tmp_path / "model"
    model.write_text("NVIDIA Jetson Orin Nano Developer Kit\0")
    assert gpu.shares_memory(tmp_path / "absent", model)
    assert not gpu.shares_memory(tmp_path / "absent", tmp_path / "absent")

    limit = 400 * MB
    assert gpu.within({}, "onnx-cuda", limit, shared=True) == {"cuda_gpu_mem_limit": str(limit)}
    assert gpu.within({}, "tensorrt", limit, shared=True) == {
        "trt_max_workspace_size": str(limit // 2)
    }
    lower = {"cuda_gpu_mem_limit": str(MB)}
    assert gpu.within(lower, "onnx-cuda", limit, shared=True) == lower
    assert gpu.within({}, "onnx-cuda", limit, shared=False) == {}
    assert gpu.within({}, "tflite", limit, shared=True) == {}
    assert gpu.within({}, "onnx-cuda", None, shared=True) == {}


@pytest.mark.parametrize("shared", [True, False])
def test_every_worker_of_a_model_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
):
    """The first one and its replacement, with the budget of their model."""
    told: list[dict[str, str]] = []

    class Told(Worker):
        def __init__(self, spec: WorkerSpec, *, log: Path) -> None:
            told.append(dict(spec.options))
            super().__init__(spec, log=log)

    monkeypatch.setattr(runner, "Worker", Told)
    monkeypatch.setattr(gpu, "GPU_TARGETS", ("sleeper",))
    monkeypatch.setattr(gpu, "shares_memory", lambda: shared)
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(memory_mb=300), options={"slow_s": "0"})
    with serving(bundle, tmp_path, deadline_ms=60_000) as desk:
        desk.call(CRASH)
        desk.wait_for("replaced")
        scores_of(desk.call())
    limit = {"cuda_gpu_mem_limit": str(300 * MB)} if shared else {}
    assert told == [{"slow_s": "0"} | limit] * 2
