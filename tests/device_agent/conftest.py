"""Fixtures of the agent's tests: real agents, on a real broker, with a collector's part played."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.agents import AgentProcess, Collector, StartAgent
from support.cgroups import remove_test_group

from edgeml.telemetry import Topics


@pytest.fixture(autouse=True, scope="session")
def _own_control_group() -> Iterator[None]:
    """What the agents' control groups are made in goes with the tests."""
    yield
    remove_test_group()


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Start agents of this test; those that are left are killed at its end."""
    started: list[AgentProcess] = []

    def start(
        *arguments: object,
        state: Path | None = None,
        sleeper: bool = False,
        under: Sequence[str] = (),
    ) -> AgentProcess:
        agent = AgentProcess(
            *arguments, state=state or tmp_path / "state", sleeper=sleeper, under=under
        )
        started.append(agent)
        return agent

    yield start
    for agent in started:
        if agent.process.poll() is None:
            agent.process.kill()
        agent.process.wait()
        assert agent.process.stderr is not None
        agent._reader.join(5)
        agent.process.stderr.close()


@pytest.fixture
def collector(mosquitto: Any) -> Iterator[Collector]:
    """A collector on this test's Mosquitto, for the device ``plant/cam``."""
    found = Collector(mosquitto.host, mosquitto.port, Topics("plant", "cam"))
    yield found
    found.close()


@pytest.fixture
def at_plant(mosquitto: Any) -> list[str]:
    """Flags of an agent that is ``plant/cam`` on this test's Mosquitto."""
    address = f"{mosquitto.host}:{mosquitto.port}"
    return ["--broker", address, "--site", "plant", "--device", "cam"]
