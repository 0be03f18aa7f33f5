"""The whole agent with each runtime: a frame in, an answer out, its counts at the collector.

Part of the suite ``arm``: on a device as here, and on the emulated one of ``scripts/arm.sh``.
"""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from support.agents import Collector, StartAgent, frame, is_gone
from support.bundles import sleeper_bundle, tiny_bundle
from support.counts import counts_of
from support.sleeper.sleeper_runtime import HANG
from support.weights import images, scores

from edgeml.bundle import Budgets, open_bundle
from edgeml.device_agent.local.client import CallError


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_the_agent_serves_counts_and_reports(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str], target: str
):
    bundle = tiny_bundle(tmp_path, targets=(target,), budgets=Budgets(deadline_ms=60_000))
    agent = start_agent("--bundle", bundle, *at_plant).ready()
    frames = images(20)
    with agent.client() as client:
        answers = [client.infer({"image": one})["scores"] for one in frames]
    np.testing.assert_allclose(np.concatenate(answers), scores(frames), atol=1e-5)
    assert agent.terminate() == 0
    collector.wait_for(lambda c: c.rows == 20, "all rows")
    (window,) = collector.windows.values()
    assert window.artifact == f"{target}-fp32"
    baseline = open_bundle(bundle).baseline()
    assert baseline is not None
    assert all(counts.total == 20 for counts in counts_of(window, baseline).values())
    assert collector.statuses[0][0].facts.machine == platform.machine()


def test_a_worker_that_hangs_is_gone_and_replaced(start_agent: StartAgent, tmp_path: Path):
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=3_000))
    agent = start_agent("--bundle", bundle, sleeper=True).ready()
    (worker,) = agent.workers()
    with agent.client("sleeper") as client:
        with pytest.raises(CallError, match="late"):
            client.infer({"image": frame(HANG)})
        agent.wait_for(" replaced ")
        assert is_gone(worker)
        frames = images(1)
        answer = client.infer({"image": frames})["scores"]
    np.testing.assert_allclose(answer, scores(frames), atol=1e-5)
