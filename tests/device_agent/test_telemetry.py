"""What the broker and the collector see of an agent, over outages of either."""

from __future__ import annotations

import re
import signal
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.agents import AgentProcess, Collector, StartAgent
from support.bundles import tiny_bundle
from support.counts import counts_of
from support.weights import images, scores

from edgeml.bundle import open_bundle
from edgeml.statistics import Counts, Observer
from edgeml.telemetry import Topics


def infer(agent: AgentProcess, count: int, seed: int = 0) -> None:
    with agent.client() as client:
        for one in images(count, seed):
            client.infer({"image": one})


def wait_for_stored(agent: AgentProcess, rows: int) -> None:
    """Until its windows on the disk hold so many."""
    for closed in count(1):
        agent.wait_for("INFO window ", count=closed)
        if sum(map(int, re.findall(r"INFO window .* rows=(\d+)", "\n".join(agent.lines)))) == rows:
            return


def test_birth_reported_state_and_goodbye(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    bundle = tiny_bundle(tmp_path)
    agent = start_agent("--bundle", bundle, *at_plant).ready()
    collector.wait_for(lambda c: c.phase == "active", "state")
    (state,) = collector.reported[-1].models
    assert (state.name, state.version, state.artifact) == ("tiny", "1.0", "onnx-fp32")
    assert state.bundle == open_bundle(bundle).sha256
    collector.wait_for(lambda c: c.statuses[-1][0].models, "birth with its model")
    birth, _ = collector.statuses[-1]
    assert birth.online
    assert birth.facts.cores >= 1
    assert agent.terminate() == 0
    collector.wait_for(lambda c: not c.statuses[-1][0].online, "offline status")
    assert collector.statuses[-1][0].boot == birth.boot


def test_the_last_will_speaks_for_an_agent_that_was_killed(
    start_agent: StartAgent, collector: Collector, at_plant: list[str]
):
    agent = start_agent(*at_plant).ready()
    collector.wait_for(lambda c: c.statuses and c.statuses[-1][0].online, "birth")
    agent.process.kill()
    collector.wait_for(lambda c: not c.statuses[-1][0].online, "last will")
    assert collector.statuses[-1][0].boot == collector.statuses[0][0].boot


def test_windows_hold_exactly_what_went_through(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    bundle = tiny_bundle(tmp_path)
    agent = start_agent("--bundle", bundle, *at_plant, "--window", 0.3).ready()
    infer(agent, 100)
    assert agent.terminate() == 0
    collector.wait_for(lambda c: c.rows == 100, "100 rows")
    baseline = open_bundle(bundle).baseline()
    assert baseline is not None
    observer = Observer(baseline)
    frames = images(100)
    observer.observe({"image": frames}, {"scores": scores(frames)})
    expected = observer.take()
    found = {name: Counts.zeros(stream.grid) for name, stream in baseline.streams.items()}
    for window in collector.windows.values():
        for name, counts in counts_of(window, baseline).items():
            found[name] += counts
    # Sums over all rows are exact; a value on the edge of a cell may fall a cell further.
    for name, counts in found.items():
        assert counts.total == 100
        assert np.abs(counts.cells - expected[name].cells).sum() <= 2, name
    assert [key[1] for key in sorted(collector.windows)] == list(
        range(1, len(collector.windows) + 1)
    )


def test_a_refused_bundle_is_heard_of(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    agent = start_agent("--bundle", tiny_bundle(tmp_path, wrong_golden=True), *at_plant)
    assert agent.end() == 1
    collector.wait_for(lambda c: any(e.kind == "refused" for e in c.events), "event")
    collector.wait_for(lambda c: c.phase == "failed", "state")
    assert "golden vectors" in collector.reported[-1].models[0].error


def test_an_agent_serves_without_a_broker_and_connects_when_there_is_one(
    start_agent: StartAgent, tmp_path: Path, mosquitto: Any
):
    mosquitto.kill()
    agent = start_agent(
        "--bundle", tiny_bundle(tmp_path), "--broker", f"127.0.0.1:{mosquitto.port}",
        "--site", "plant", "--device", "cam", "--window", 0.2,
    ).ready()  # fmt: skip
    infer(agent, 30)
    agent.wait_for("INFO window ")
    mosquitto.start()
    collector = Collector(mosquitto.host, mosquitto.port, Topics("plant", "cam"))
    agent.wait_for("INFO connected ")
    collector.wait_for(lambda c: c.rows == 30, "all rows")
    collector.close()


def test_a_long_time_off_line_costs_resolution_and_no_count(
    start_agent: StartAgent, tmp_path: Path, mosquitto: Any
):
    """An outbox for a few windows, and many more than that before there is a broker."""
    mosquitto.kill()
    config = tmp_path / "agent.toml"
    config.write_text("outbox_mb = 0.004\n")
    agent = start_agent(
        "--config", config, "--bundle", tiny_bundle(tmp_path), "--window", 0.05,
        "--broker", f"127.0.0.1:{mosquitto.port}", "--site", "plant", "--device", "cam",
    ).ready()  # fmt: skip
    for number in range(1, 21):
        infer(agent, 3, seed=number)
        agent.wait_for("INFO window ", count=number)
    mosquitto.start()
    collector = Collector(mosquitto.host, mosquitto.port, Topics("plant", "cam"))
    collector.wait_for(lambda c: c.rows == 60, "all rows")
    collector.wait_for(lambda c: any(e.kind == "outbox-merged" for e in c.events), "event")
    assert agent.terminate() == 0
    count = len([line for line in agent.lines if "INFO window " in line])
    assert sum(window.merged for window in collector.windows.values()) == count
    assert len(collector.windows) < count
    assert collector.outcomes["served"] == 60
    collector.close()


def test_a_broker_that_is_killed_and_comes_back_costs_no_window(
    start_agent: StartAgent, tmp_path: Path, mosquitto: Any, collector: Collector,
    at_plant: list[str],
):  # fmt: skip
    agent = start_agent("--bundle", tiny_bundle(tmp_path), *at_plant, "--window", 0.1).ready()
    for time in (1, 2, 3):
        infer(agent, 40, seed=time)
        mosquitto.kill()
        agent.wait_for("broker lost", count=time)
        infer(agent, 25, seed=10 + time)
        mosquitto.start()
        agent.wait_for("INFO connected ", count=time + 1)
    infer(agent, 5)
    collector.wait_for(lambda c: c.rows >= 200, "200 rows")
    assert agent.terminate() == 0
    collector.wait_for(lambda c: not c.statuses[-1][0].online, "offline status")
    assert collector.rows == 3 * 65 + 5
    assert collector.outcomes == {"served": 200, "late": 0, "shed": 0, "failed": 0}


def test_windows_wait_for_the_collector_and_not_only_for_the_broker(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    """The broker takes every window, the collector stores none, the agent is killed: nothing is
    lost, and the next run hands in what the last one could not."""
    collector.acknowledge = False
    bundle = tiny_bundle(tmp_path)
    agent = start_agent("--bundle", bundle, *at_plant, "--window", 0.1).ready()
    infer(agent, 50)
    collector.wait_for(lambda c: c.received >= 1, "a window at the collector")
    infer(agent, 1)
    wait_for_stored(agent, 51)
    agent.process.kill()
    agent.end()
    collector.acknowledge = True
    second = start_agent("--bundle", bundle, *at_plant).ready()
    collector.wait_for(lambda c: c.rows == 51, "what the first run had closed")
    assert second.terminate() == 0


def test_a_device_that_restarts_all_the_time_loses_no_stored_window(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    """Killed after each window, off line, and again as soon as it is on line."""
    bundle = tiny_bundle(tmp_path)
    for rows in range(1, 5):
        agent = start_agent("--bundle", bundle, "--window", 0.3).ready()
        infer(agent, rows)
        wait_for_stored(agent, rows)
        agent.terminate(signal.SIGKILL)
    collector.tells = False
    agent = start_agent("--bundle", bundle, *at_plant).ready()
    collector.wait_for(lambda c: c.received >= 1, "the first of them")
    agent.terminate(signal.SIGKILL)
    collector.tells = True
    agent = start_agent("--bundle", bundle, *at_plant).ready()
    collector.wait_for(lambda c: c.rows >= 10, "all of them")
    assert agent.terminate() == 0
    assert collector.rows == 1 + 2 + 3 + 4
    assert collector.outcomes == {"served": 10, "late": 0, "shed": 0, "failed": 0}


def test_a_garbage_mark_does_no_harm(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    agent = start_agent("--bundle", tiny_bundle(tmp_path), *at_plant, "--window", 0.1).ready()
    collector.publish(collector.topics.stored, b"\x00garbage")
    agent.wait_for("bad message")
    infer(agent, 10)
    collector.wait_for(lambda c: c.rows == 10, "rows")


@pytest.fixture
def embedded_broker(unused_port: int):
    """amqtt, which speaks MQTT 3.1.1 only and hangs up on MQTT 5."""
    import asyncio
    import threading

    from amqtt.broker import Broker

    loop = asyncio.new_event_loop()
    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{unused_port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def start() -> Broker:
        broker = Broker(settings)
        await broker.start()
        return broker

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    broker = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield unused_port
    asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


def test_a_broker_that_speaks_only_3_1_1(
    start_agent: StartAgent, tmp_path: Path, embedded_broker: int
):
    collector = Collector("127.0.0.1", embedded_broker, Topics("plant", "cam"))
    agent = start_agent(
        "--bundle", tiny_bundle(tmp_path), "--broker", f"127.0.0.1:{embedded_broker}",
        "--site", "plant", "--device", "cam", "--window", 0.2,
    ).ready()  # fmt: skip
    assert "protocol=MQTTv311" in agent.wait_for("INFO connected ")
    infer(agent, 20)
    collector.wait_for(lambda c: c.rows == 20, "rows")
    assert agent.terminate() == 0
    collector.wait_for(lambda c: not c.statuses[-1][0].online, "offline status")
    collector.close()


def test_a_name_that_cannot_stand_in_a_topic_is_refused(start_agent: StartAgent, tmp_path: Path):
    bundle = tiny_bundle(tmp_path / "odd.edgeml", name="digits/7")
    agent = start_agent("--bundle", bundle)
    assert agent.end() == 1
    assert "the model is called 'digits/7'. Expected 1 to 64 letters" in agent.lines[-1]
