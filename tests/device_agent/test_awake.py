"""Cores are kept from sleeping for a while after a request, and only then; who may not says so."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import PATIENCE_S, AgentProcess, StartAgent
from support.bundles import tiny_bundle
from support.weights import images

import edgeml
from edgeml.device_agent.awake import DEVICE, Awake

AWAKE, ANY = 0, 2_000_000_000
"""What the kernel is told, µs."""

LONG_S, SHORT_S = 3600.0, 0.01


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A file keeps all that is written, one after another."""
    path = tmp_path / "cpu_dma_latency"
    path.touch()
    return path


@pytest.fixture
def keeping() -> Iterator[list[Awake]]:
    """Closed at the end of the test."""
    found: list[Awake] = []
    yield found
    for one in found:
        one.close()


def told(device: Path) -> list[int]:
    return [word for (word,) in struct.iter_unpack("=i", device.read_bytes())]


def wait_until_told(device: Path, *wanted: int) -> None:
    patience = time.monotonic() + PATIENCE_S
    while told(device) != list(wanted):
        assert time.monotonic() < patience, told(device)


def test_it_is_told_once_however_many_requests_come(device: Path, keeping: list[Awake]):
    awake = Awake(LONG_S, device=device)
    keeping.append(awake)
    assert told(device) == []
    assert not awake.state.held
    for _ in range(100):
        awake.stir(time.monotonic())
    assert told(device) == [AWAKE]
    assert awake.state.held


def test_after_a_while_without_any_cores_may_sleep_until_the_next(
    device: Path, keeping: list[Awake]
):
    awake = Awake(SHORT_S, device=device)
    keeping.append(awake)
    for count in range(1, 20):  # the next one comes at the very moment
        awake.stir(time.monotonic())
        wait_until_told(device, *[AWAKE, ANY] * count)
        assert not awake.state.held


def test_the_end_does_not_wait_for_it(device: Path):
    awake = Awake(LONG_S, device=device)
    awake.stir(time.monotonic())
    awake.close()
    assert not awake.state.held
    awake.stir(time.monotonic())  # a late caller's
    assert told(device) == [AWAKE], "the kernel forgets it with the handle"


def test_without_it_nothing_is_opened(tmp_path: Path, keeping: list[Awake]):
    awake = Awake(0.0, device=tmp_path / "absent")
    keeping.append(awake)
    awake.stir(time.monotonic())
    assert (awake.state.held, awake.state.problem) == (False, "")


def test_who_may_not_says_so_and_goes_on(tmp_path: Path, keeping: list[Awake]):
    awake = Awake(LONG_S, device=tmp_path / "absent")
    keeping.append(awake)
    awake.stir(time.monotonic())
    assert not awake.state.held
    assert awake.state.problem == f"{tmp_path}/absent: No such file or directory"


def test_a_device_that_takes_nothing_is_let_go(keeping: list[Awake]):
    awake = Awake(LONG_S, device=Path("/dev/full"))
    keeping.append(awake)
    for _ in range(2):
        awake.stir(time.monotonic())
    assert not awake.state.held
    assert awake.state.problem == "It cannot be written to: No space left on device"


def keeps_awake(start_agent: StartAgent, folder: Path) -> AgentProcess:
    bundle = tiny_bundle(folder)
    config = folder / "agent.toml"
    config.write_text(f'awake_ms = 1000\n[[model]]\nbundle = "{bundle}"\n')
    return start_agent("--config", config).ready()


@pytest.mark.skipif(not os.access(DEVICE, os.R_OK | os.W_OK), reason="not allowed here")
def test_the_kernel_is_told_while_requests_come(start_agent: StartAgent, tmp_path: Path):
    handle = os.open(DEVICE, os.O_RDWR)

    def allowed_us() -> int:
        """By all processes together."""
        return struct.unpack("=i", os.pread(handle, 4, 0))[0]

    try:
        if allowed_us() == AWAKE:
            pytest.skip("somebody else keeps the cores awake")
        agent = keeps_awake(start_agent, tmp_path)
        with edgeml.Client(agent.socket, "tiny") as client:
            assert client.get("/edgeml/v1/status")["awake"] == {
                "keep_ms": 1000,
                "held": False,
                "problem": "",
            }
            patience = time.monotonic() + PATIENCE_S
            while allowed_us() != AWAKE:
                client.infer({"image": images(1)})
                assert time.monotonic() < patience
            while client.get("/edgeml/v1/status")["awake"]["held"]:
                assert time.monotonic() < patience
            assert allowed_us() != AWAKE
        (worker,) = agent.workers()
        inherited = {path.readlink() for path in Path(f"/proc/{worker}/fd").iterdir()}
        assert DEVICE not in inherited
    finally:
        os.close(handle)


@pytest.mark.skipif(os.access(DEVICE, os.W_OK), reason="it is allowed here")
def test_an_agent_that_may_not_serves(start_agent: StartAgent, tmp_path: Path):
    agent = keeps_awake(start_agent, tmp_path)
    assert str(DEVICE) in agent.wait_for("cores may sleep")
    with edgeml.Client(agent.socket, "tiny") as client:
        client.infer({"image": images(1)})
        assert str(DEVICE) in client.get("/edgeml/v1/status")["awake"]["problem"]
