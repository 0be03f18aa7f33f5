"""Real collectors, a real Mosquitto: nothing lost, nothing twice, whatever dies."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from support.collectors import Start, fleet
from support.devices import Source, wire

from edgeml.telemetry import Status, Window, encode


def stored(database: Path) -> list[tuple[str, int]]:
    """Device and sequence of each stored window."""
    with sqlite3.connect(database) as connection:
        return sorted(
            connection.execute(
                "SELECT device, sequence FROM windows JOIN devices ON devices.id = device_id"
            )
        )


def rolled_up(database: Path) -> int:
    """Requests served, as the rollups have them."""
    with sqlite3.connect(database) as connection:
        query = "SELECT COALESCE(SUM(count), 0) FROM outcome_rollups WHERE outcome = 'served'"
        return int(connection.execute(query).fetchone()[0])


def test_a_broken_camera_raises_an_alarm_and_a_healthy_one_does_not(
    start: Start, mosquitto: Any, bundle: Path
) -> None:
    collector = start("--broker", f"127.0.0.1:{mosquitto.port}", "--bundle", str(bundle))
    collector.wait_ready()
    collector.wait_until("health", lambda health: health["ok"])
    broken, healthy = Source(bundle, seed=1), Source(bundle, seed=2)
    with (
        wire("hall", "broken", "127.0.0.1", mosquitto.port) as one,
        wire("hall", "healthy", "127.0.0.1", mosquitto.port) as two,
    ):
        for sent, source in ((one, broken), (two, healthy)):
            sent.send(source.status(), *source.windows(30))
            sent.wait_stored(30)
        assert collector.get("alarms")["alarms"] == []
        streams = collector.get("drift")["streams"]
        assert sum(stream["armed"] for stream in streams) > 0.9 * len(streams)

        one.send(*broken.windows(12, broken=True))
        two.send(*healthy.windows(12))
        one.wait_stored(42)
        two.wait_stored(42)

        alarms = collector.get("alarms")["alarms"]
        assert {alarm["device"] for alarm in alarms} == {"broken"}
        luma = next(alarm for alarm in alarms if alarm["stream"] == "input.image.luma_mean")
        assert luma["evidence"] >= luma["threshold"]
        assert luma["effect"] > 0.3
        fleet = {device["device"]: device for device in collector.get("fleet")["devices"]}
        assert fleet["broken"]["state"] == "alarm"
        assert fleet["healthy"]["state"] == "armed"
        assert fleet["healthy"]["online"]
        assert fleet["healthy"]["models"][0]["artifact"] == "onnx-fp32"
        assert fleet["healthy"]["outcomes"] == {"served": 42 * 40, "late": 42}
    # MQTT 5, since this broker speaks it.
    assert collector.get("health")["broker"]["protocol"] == "5"
    assert collector.stop() == 0


def test_an_alarm_and_its_evidence_outlive_the_collector(
    start: Start, mosquitto: Any, bundle: Path
) -> None:
    options = ("--broker", f"127.0.0.1:{mosquitto.port}", "--bundle", str(bundle))
    source = Source(bundle, seed=1)
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        first = start(*options).wait_ready()
        first.wait_until("health", lambda health: health["ok"])
        device.send(*source.windows(26), *source.windows(3, broken=True))
        device.wait_stored(29)
        before = {s["stream"]: s["evidence"] for s in first.get("drift")["streams"]}
        assert first.stop() == 0

        second = start(*options).wait_ready()
        second.wait_until("health", lambda health: health["ok"])
        after = {s["stream"]: s["evidence"] for s in second.get("drift")["streams"]}
        assert after == before
        # Three drifted windows before the restart and five after it: evidence went on.
        device.send(*source.windows(5, broken=True))
        device.wait_stored(34)
        alarms = second.get("alarms")["alarms"]
        assert "input.image.luma_mean" in {alarm["stream"] for alarm in alarms}
        assert second.stop() == 0

        third = start(*options).wait_ready()
        assert third.get("alarms")["alarms"] == alarms


def test_a_broker_that_comes_late_is_no_reason_to_give_up(
    start: Start, mosquitto: Any, bundle: Path, tmp_path: Path
) -> None:
    mosquitto.kill()
    collector = start("--broker", f"127.0.0.1:{mosquitto.port}").wait_ready()
    collector.wait_for("no connection to the broker")
    health = collector.get("health")
    assert not health["ok"]
    assert "refused" in health["broker"]["trouble"]
    mosquitto.start()
    collector.wait_until("health", lambda health: health["ok"])
    source = Source(bundle, seed=1)
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        device.send(*source.windows(3))
        device.wait_stored(3)
    assert stored(tmp_path / "fleet.sqlite") == [("cam", 1), ("cam", 2), ("cam", 3)]


def test_a_broker_killed_and_back_loses_nothing_and_doubles_nothing(
    start: Start, mosquitto: Any, bundle: Path, tmp_path: Path
) -> None:
    collector = start("--broker", f"127.0.0.1:{mosquitto.port}").wait_ready()
    collector.wait_until("health", lambda health: health["ok"])
    source = Source(bundle, seed=1)
    windows = source.windows(10)
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        device.send(*windows[:5])
        device.wait_stored(5)
        mosquitto.kill()
        collector.wait_until("health", lambda health: not health["ok"])
        mosquitto.start()
        collector.wait_until("health", lambda health: health["ok"])
    # As a device does that has not heard the last marks: again from the third on.
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        device.send(*windows[2:])
        device.wait_stored(10)
    assert stored(tmp_path / "fleet.sqlite") == [("cam", n) for n in range(1, 11)]
    assert rolled_up(tmp_path / "fleet.sqlite") == 400
    assert collector.get("counters")["duplicates"] == 3


@pytest.mark.parametrize(
    "point",
    [
        "before the commit",
        "between commit and acknowledgement",
        "between acknowledgement and mark",
    ],
)
def test_a_collector_killed_at_any_point_leaves_each_window_stored_once(
    point: str, start: Start, mosquitto: Any, bundle: Path, tmp_path: Path
) -> None:
    options = ("--broker", f"127.0.0.1:{mosquitto.port}", "--bundle", str(bundle))
    database = tmp_path / "fleet.sqlite"
    dying = start(*options, crash=point).wait_ready()
    dying.wait_until("health", lambda health: health["ok"])
    source = Source(bundle, seed=1)
    windows = source.windows(6)
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        device.send(*windows[:3])
        assert dying.wait() == -signal.SIGKILL
        assert bool(stored(database)) == (point != "before the commit")
        device.send(*windows[3:])  # the broker keeps them for our session

        collector = start(*options).wait_ready()
        collector.wait_until("health", lambda health: health["ok"])
        # The device sends again what it has not heard of.
        device.send(*windows)
        device.wait_stored(6)
        counters = collector.get("counters")
    assert stored(database) == [("cam", n) for n in range(1, 7)]
    assert rolled_up(database) == 240
    assert all(
        s["reason"] == "6 of 20 reference windows" for s in collector.get("drift")["streams"]
    )
    assert counters["accepted"] + counters["duplicates"] >= 6


def garbage(source: Source) -> dict[str, tuple[str, bytes]]:
    """Payloads that keep to no contract, by what is wrong with them: topic and bytes."""
    window = source.window()
    topic = "edgeml/v1/hall/cam/stats/tiny"
    fields = msgspec.structs.asdict(window)
    status = msgspec.json.decode(encode(source.status()))
    return {
        "noise": (topic, b"\x93\x01garbage"),
        "empty": (topic, b""),
        "JSON where MessagePack belongs": (topic, b'{"schema": 2}'),
        "another schema": (topic, msgspec.msgpack.encode(fields | {"schema": 1})),
        "oversized": (topic, b"\x00" * (Window.MAX_BYTES + 1)),
        "a negative count": (topic, msgspec.msgpack.encode(fields | {"rows": -1})),
        "a count that no device reaches": (topic, msgspec.msgpack.encode(fields | {"rows": 2**60})),
        "a model of another name": ("edgeml/v1/hall/cam/stats/other", encode(window)),
        "a status of another schema": (
            "edgeml/v1/hall/cam/status",
            msgspec.json.encode(status | {"schema": 9}),
        ),
        "a status that is text": ("edgeml/v1/hall/cam/status", b"up"),
        "an oversized status": ("edgeml/v1/hall/cam/status", b" " * (Status.MAX_BYTES + 1)),
    }


def test_what_keeps_to_no_contract_is_counted_and_dropped(
    start: Start, mosquitto: Any, bundle: Path
) -> None:
    collector = start("--broker", f"127.0.0.1:{mosquitto.port}", "--bundle", str(bundle))
    collector.wait_ready()
    collector.wait_until("health", lambda health: health["ok"])
    source = Source(bundle, seed=1)
    wrong = garbage(source)
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        for topic, payload in wrong.values():
            device.publish(topic, payload)
        source.sequence = 0
        device.send(source.window())
        device.wait_stored(1)
    counters = collector.get("counters")
    assert counters["refused"] == {
        "garbage": 5,
        "schema": 2,
        "oversized": 2,
        "value": 1,
        "name": 1,
    }
    assert counters["accepted"] == 1
    # They were acknowledged, so a new connection does not bring them again.
    assert collector.stop() == 0
    again = start("--broker", f"127.0.0.1:{mosquitto.port}").wait_ready()
    again.wait_until("health", lambda health: health["ok"])
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        device.send(source.window())
        device.wait_stored(2)
    assert again.get("counters")["refused"] == {}


def test_counts_on_another_baseline_are_refused_and_yet_settled(
    start: Start, mosquitto: Any, bundle: Path, tmp_path: Path
) -> None:
    collector = start("--broker", f"127.0.0.1:{mosquitto.port}", "--bundle", str(bundle))
    collector.wait_ready()
    collector.wait_until("health", lambda health: health["ok"])
    window = Source(bundle, seed=1).window()
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        device.send(msgspec.structs.replace(window, baseline="0" * 16))
        # The device may drop it: sending it for ever would help nobody.
        device.wait_stored(1)
    assert collector.get("counters")["refused"] == {"grid": 1}
    assert collector.get("drift")["streams"] == []
    # Refused by name: what it was counted on, and what it should have been.
    with sqlite3.connect(tmp_path / "fleet.sqlite") as connection:
        (refused,) = connection.execute("SELECT refused FROM windows").fetchone()
    assert f"the baseline {'0' * 12}" in refused
    assert f"the baseline {window.baseline[:12]} in the bundle" in refused


def test_windows_wait_for_their_bundle(start: Start, mosquitto: Any, bundle: Path) -> None:
    collector = start("--broker", f"127.0.0.1:{mosquitto.port}").wait_ready()
    collector.wait_until("health", lambda health: health["ok"])
    source = Source(bundle, seed=1)
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        device.send(*source.windows(26), *source.windows(8, broken=True))
        device.wait_stored(34)
    assert collector.get("drift")["streams"] == []
    (waiting,) = collector.get("bundles")["bundles"]
    assert (waiting["known"], waiting["waiting"], waiting["name"]) == (False, 34, "tiny")

    answer = httpx.post(f"{collector.page}/api/v1/bundles", content=bundle.read_bytes(), timeout=60)
    assert answer.status_code == 201
    assert answer.json()["streams"] == 17
    again = httpx.post(f"{collector.page}/api/v1/bundles", content=bundle.read_bytes(), timeout=60)
    assert again.status_code == 200

    collector.wait_until("bundles", lambda answer: answer["bundles"][0]["waiting"] == 0)
    alarms = collector.get("alarms")["alarms"]
    assert "input.image.luma_mean" in {alarm["stream"] for alarm in alarms}


def test_a_damaged_bundle_is_refused_in_words(start: Start, bundle: Path) -> None:
    collector = start("--embedded-broker").wait_ready()
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    answer = httpx.post(f"{collector.page}/api/v1/bundles", content=bytes(content), timeout=60)
    assert answer.status_code == 422
    assert answer.json()["error"]["expected"]
    assert collector.get("bundles")["bundles"] == []


def test_the_embedded_broker_will_do_for_a_try_out(start: Start, bundle: Path) -> None:
    collector = start("--embedded-broker", "--bundle", str(bundle)).wait_ready()
    source = Source(bundle, seed=1)
    with wire("demo", "cam", collector.host, collector.port) as device:
        device.send(source.status(), *source.windows(5))
        device.wait_stored(5)
        assert collector.get("fleet")["devices"][0]["online"]
        device.vanish()
        collector.wait_until("fleet", lambda fleet: not fleet["devices"][0]["online"])
    assert collector.get("health")["broker"]["protocol"] == "3.1.1"
    assert collector.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    number: signal.Signals, start: Start, mosquitto: Any, bundle: Path, tmp_path: Path
) -> None:
    collector = start("--broker", f"127.0.0.1:{mosquitto.port}").wait_ready()
    collector.wait_until("health", lambda health: health["ok"])
    source = Source(bundle, seed=1)
    with wire("hall", "cam", "127.0.0.1", mosquitto.port) as device:
        device.send(*source.windows(50))
        device.wait_stored(1)
        # In the middle of its work: what it took in is stored, the rest comes again.
        assert collector.stop(number) == 0
        again = start("--broker", f"127.0.0.1:{mosquitto.port}").wait_ready()
        device.wait_stored(50)
    assert stored(tmp_path / "fleet.sqlite") == [("cam", n) for n in range(1, 51)]
    assert again.stop() == 0


def test_a_second_collector_on_the_same_database_is_refused(start: Start) -> None:
    first = start("--embedded-broker").wait_ready()
    second = start("--embedded-broker")
    second.wait_for(f"another collector .process {first.pid}. uses the database")
    assert second.wait() == 1
    assert first.get("health")["ok"]


def test_a_database_of_a_newer_edgeml_is_left_alone(start: Start, tmp_path: Path) -> None:
    start("--embedded-broker").wait_ready().stop()
    with sqlite3.connect(tmp_path / "fleet.sqlite") as connection:
        connection.execute("UPDATE schema SET version = 99")
    later = start("--embedded-broker")
    later.wait_for("has schema 99")
    assert later.wait() == 1


def test_a_locked_database_holds_windows_back_until_it_is_free(
    start: Start, mosquitto: Any, bundle: Path, tmp_path: Path
) -> None:
    collector = start("--broker", f"127.0.0.1:{mosquitto.port}").wait_ready()
    collector.wait_until("health", lambda health: health["ok"])
    source = Source(bundle, seed=1)
    with (
        sqlite3.connect(tmp_path / "fleet.sqlite", isolation_level=None) as other,
        wire("hall", "cam", "127.0.0.1", mosquitto.port) as device,
    ):
        other.execute("BEGIN IMMEDIATE")
        device.send(*source.windows(3))
        collector.wait_for("the database does not take what comes in .database is locked")
        health = collector.wait_until("health", lambda health: not health["ok"])
        assert health["store"]["trouble"] == "database is locked"
        assert device.marks() == []
        # Who looks is told, and who wants a change does not wait for as long as it takes.
        at = ("--collector", collector.page)
        assert "in trouble: database: database is locked" in fleet("status", *at).stderr
        refused = fleet("rebaseline", "--all", *at)
        assert (refused.returncode, "database is locked" in refused.stderr) == (1, True)
        other.execute("ROLLBACK")
        device.wait_stored(3)
    collector.wait_until("health", lambda health: health["ok"])
    assert stored(tmp_path / "fleet.sqlite") == [("cam", 1), ("cam", 2), ("cam", 3)]
