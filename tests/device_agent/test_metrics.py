"""What the agent tells of itself: Prometheus metrics, and ``edgeml agent status`` for a person."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.agents import PATIENCE_S, AgentProcess, Collector, StartAgent, frame
from support.bundles import sleeper_bundle, tiny_bundle
from support.sleeper.sleeper_runtime import HANG, RAISE
from support.weights import images

import edgeml
from edgeml.device_agent.local.call_error import CallError
from edgeml.device_agent.local.metrics import render
from edgeml.device_agent.local.status import (
    AgentStatus,
    AwakeState,
    BrokerState,
    DiskState,
    OutboxState,
)
from edgeml.device_agent.serving.pairs import Disagreement
from edgeml.device_agent.serving.snapshot import GuestSnapshot, LatencyHistogram, ModelSnapshot

Samples = dict[tuple[str, ...], float]


def scrape(agent: AgentProcess) -> Samples:
    with urllib.request.urlopen(f"{agent.url}/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return parse(response.read())


def parse(text: bytes) -> Samples:
    """Samples by name and values of their labels, in the labels' order backwards."""
    return {
        (sample.name, *dict(sorted(sample.labels.items(), reverse=True)).values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_requests_of_every_outcome_are_counted(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent(
        "--bundle", sleeper_bundle(tmp_path), "--deadline", 300, "--memory", 500, sleeper=True
    ).ready()
    with agent.client("sleeper") as client:
        for _ in range(3):
            client.infer({"image": frame(0.5)})
        for command in (RAISE, HANG):
            with pytest.raises(CallError):
                client.infer({"image": frame(command)})
        with pytest.raises(CallError):
            client.infer({"image": images(1)[..., :4]})
        agent.wait_for(" replaced ")
        found = scrape(agent)
        status = client.get("/edgeml/v1/status")
    served = ("edgeml_requests_total", "served", "sleeper")
    assert found[served] == 3
    assert found["edgeml_requests_total", "failed", "sleeper"] == 2
    assert found["edgeml_requests_total", "late", "sleeper"] == 1
    assert found["edgeml_request_duration_seconds_count", "sleeper"] == 3
    assert found["edgeml_request_duration_seconds_bucket", "sleeper", "+Inf"] == 3
    assert 0 < found["edgeml_request_duration_seconds_sum", "sleeper"] < 3 * 0.3
    assert found["edgeml_queue_requests", "sleeper"] == 0
    assert found["edgeml_worker_restarts_total", "sleeper"] == 1
    assert found["edgeml_worker_limit_bytes", "sleeper"] == 500e6
    assert 10e6 < found["edgeml_worker_resident_bytes", "sleeper"] < 500e6
    assert found["edgeml_worker_start_seconds", "sleeper"] > 0
    assert 10e6 < found["edgeml_agent_resident_bytes",] < 100e6
    (model,) = status["models"]
    assert model["outcomes"]["served"] == 3
    assert model["phase"] == "active"


def test_windows_and_the_outbox(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    collector.acknowledge = False
    agent = start_agent("--bundle", tiny_bundle(tmp_path), "--window", 0.05, *at_plant).ready()
    with agent.client() as client:
        for count in (1, 2):
            client.infer({"image": images(1)})
            agent.wait_for(" window ", count=count)
        collector.wait_for(lambda c: c.received >= 2, "two windows")
        before = scrape(agent)
        collector.acknowledge = True
        client.infer({"image": images(1)})
        collector.wait_for(lambda c: c.rows == 3, "all of them")
    assert before["edgeml_windows_closed_total", "tiny"] == 2
    assert before["edgeml_outbox_windows", "numbered"] == 2
    assert before["edgeml_outbox_bytes",] > 100
    assert before["edgeml_outbox_limit_bytes",] == 32e6
    assert before["edgeml_broker_connected",] == 1
    bundle = tmp_path / "tiny-1.0.edgeml"
    assert before["edgeml_disk_used_bytes", "bundles"] == bundle.stat().st_size
    assert before["edgeml_disk_used_bytes", "artifacts"] > 100
    assert before["edgeml_disk_used_bytes", "engines"] == 0


def test_an_agent_without_anything_has_metrics_too(start_agent: StartAgent):
    found = scrape(start_agent().ready())
    assert found["edgeml_outbox_windows", "waiting"] == 0
    assert not [key for key in found if "sleeper" in key]
    assert ("edgeml_broker_connected",) not in found


def full_status() -> AgentStatus:
    latency = LatencyHistogram()
    for ms in (0.4, 0.6, 0.7, 40.0, 99_999.0):
        latency.add(ms)
    model = ModelSnapshot(
        name="digits",
        version="1.0",
        bundle="0" * 64,
        artifact="tflite-int8",
        phase="active",
        memory_limit="cgroup2",
        outcomes={"served": 5, "late": 1, "shed": 2, "failed": 0},
        looked_at=4,
        overruns=6,
        latency=latency,
        waiting=3,
        running=True,
        restarts=1,
        last_start_ms=250.0,
        resident_mb=80.0,
        limit_mb=None,
        variants=("onnx-fp32", "tflite-int8"),
        step=1,
        standby=True,
        profile=None,
        guest=GuestSnapshot(
            version="2.0",
            bundle="1" * 64,
            artifact="onnx-fp32",
            share=0.0,
            disagreement=Disagreement(pairs=200, differing=3, low=0.005, high=0.043, max_abs=0.5),
        ),
    )
    return AgentStatus(
        agent="0.1.0",
        site="plant-1",
        device="cam-7",
        boot="b" * 16,
        started_ms=1_700_000_000_123,
        uptime_s=90_061.0,
        resident_mb=40.0,
        temperature_c=61.5,
        memory_pressure=0.25,
        awake=AwakeState(keep_ms=20, held=True, problem=""),
        broker=BrokerState(address="broker:1883", connected=False),
        outbox=OutboxState(
            waiting=4,
            numbered=2,
            bytes=9_000,
            limit_bytes=32_000_000,
            events=1,
            merged=7,
            dropped=8,
        ),
        disk=DiskState(
            used_bytes={"bundles": 8_000_000, "artifacts": 4_000_000, "engines": 0},
            free_bytes=2_000_000_000,
        ),
        windows={"digits": 11},
        models=(model,),
    )


def test_buckets_add_up_and_units_are_prometheus_own():
    found = parse(render(full_status()))
    name = "edgeml_request_duration_seconds"
    assert found[f"{name}_bucket", "digits", "0.0005"] == 1
    assert found[f"{name}_bucket", "digits", "0.001"] == 3
    assert found[f"{name}_bucket", "digits", "0.025"] == 3
    assert found[f"{name}_bucket", "digits", "0.05"] == 4
    assert found[f"{name}_bucket", "digits", "10"] == 4
    assert found[f"{name}_bucket", "digits", "+Inf"] == found[f"{name}_count", "digits"] == 5
    np.testing.assert_allclose(
        found[f"{name}_sum", "digits"], (0.4 + 0.6 + 0.7 + 40 + 99_999) / 1e3
    )
    assert found["edgeml_worker_start_seconds", "digits"] == 0.25
    assert found["edgeml_temperature_celsius",] == 61.5
    assert found["edgeml_memory_pressure_ratio",] == 0.25
    assert found["edgeml_cores_awake",] == 1
    assert found["edgeml_ladder_step", "digits"] == 1
    assert found["edgeml_standby_workers", "digits"] == 1
    assert found["edgeml_outbox_merged_total",] == 7
    assert found["edgeml_outbox_dropped_total",] == 8
    assert found["edgeml_disk_used_bytes", "bundles"] == 8e6
    assert found["edgeml_disk_free_bytes",] == 2e9
    assert found["edgeml_input_overruns_total", "digits"] == 6
    assert found["edgeml_guest_share", "2.0", "digits"] == 0
    assert found["edgeml_shadow_pairs_total", "2.0", "digits"] == 200
    assert found["edgeml_shadow_differing_total", "2.0", "digits"] == 3
    assert ("edgeml_worker_limit_bytes", "digits") not in found  # there is none
    info = ("edgeml_model_info", "1.0", "active", "digits", "cgroup2", "tflite-int8")
    assert found[info] == 1


def test_a_person_reads_the_same(capsys: pytest.CaptureFixture[str]):
    from edgeml.cli.agent_status import show

    show(full_status())
    text = capsys.readouterr().out
    for part in (
        "plant-1/cam-7 · edgeml 0.1.0 · up 1 d 1 h · agent 40 MB · 62 °C · memory pressure 25%",
        "cores awake · broker broker:1883 absent",
        "outbox 9.0 kB of 32.0 MB · 6 windows and 1 events wait · 7 merged, 8 given up",
        "disk 2.0 GB free · bundles 8.0 MB · artifacts 4.0 MB\n",
        "digits 1.0 · tflite-int8 (step 2 of 2) + standby · active",
        "5 served · 1 late · 2 shed · 0 failed · 3 waiting, one running · 6 gaps in the sound",
        "80 MB, limit by cgroup2 · 1 restarts · latest start 250 ms · 11 windows",
        "beside it 2.0, onnx-fp32, as a shadow · they disagree on 3 of 200 inputs (0.5% … 4.3%)",
    ):
        assert part in text


def status_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgeml", "agent", "status", *map(str, arguments)]


def test_status_of_a_running_agent(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    with edgeml.Client(agent.socket, "tiny") as client:
        client.infer({"image": images(1)})

    def run(*arguments: object) -> str:
        done = subprocess.run(
            status_command(*arguments), check=True, capture_output=True, text=True
        )
        return done.stdout

    assert re.search(
        r"tiny 1\.0 · onnx-fp32 · active\n +1 served · 0 late", run("--socket", agent.socket)
    )
    document = json.loads(run("--url", agent.url, "--json"))
    assert document["models"][0]["outcomes"]["served"] == 1


def test_no_agent_to_ask(tmp_path: Path):
    done = subprocess.run(
        status_command("--socket", tmp_path / "agent.sock"),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "did not answer" in done.stderr


def test_on_a_terminal_it_is_live_until_ctrl_c(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    master, slave = pty.openpty()
    process = subprocess.Popen(
        status_command("--socket", agent.socket, "--every", 0.1),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "COLUMNS": "160", "TERM": "xterm"},
        # Tests that run in the background of a shell have Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(slave)
    try:
        read_until(master, "onnx-fp32 · active\\s+0 served")
        with edgeml.Client(agent.socket, "tiny") as client:
            client.infer({"image": images(1)})
        read_until(master, " 1 served")
    finally:
        process.send_signal(signal.SIGINT)
        # A terminal goes on reading: a full one would hold up the last thing that it shows.
        with contextlib.suppress(OSError):
            read_until(master, "nothing that it ever shows")
        assert process.wait(PATIENCE_S) == 130
        os.close(master)


def read_until(master: int, pattern: str) -> None:
    text = b""
    while not re.search(pattern, text.decode(errors="replace")):
        assert select.select([master], [], [], PATIENCE_S)[0], text
        text += os.read(master, 65536)
