"""The degradation ladder: down while the device cannot keep up, up again after a longer quiet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import Collector, StartAgent, frame
from support.bundles import sleeper_bundle, tiny_bundle
from support.services import Desk, knowing_the_sleeper, scores_of, serving
from support.weights import scores

from edgeml.bundle import open_bundle
from edgeml.device_agent.install.bringup import cheaper, variants
from edgeml.device_agent.limits.sensors import PRESSURE, ZONES, memory_pressure
from edgeml.device_agent.serving.ladder import Ladder, Move, Reading, Thresholds
from edgeml.device_agent.serving.policy import Sensors
from edgeml.device_agent.serving.profiles import Profiles
from edgeml.device_agent.serving.snapshot import Profile
from edgeml.telemetry import Event

AT = Thresholds(span_s=10, quiet_s=60, quiet_cap_s=200)
FINE = Reading(served=20, strained=0)


def run(ladder: Ladder, reading: Reading, *, since: float, until: float) -> tuple[Move, float]:
    """A reading a second, until a step is due; there is one up and one down."""
    now = since
    while now < until:
        now += 1
        move = ladder.update(reading, now=now, lower=True, upper=True)
        if move is not None:
            ladder.moved(move, now=now)
            return move, now
    raise AssertionError("no step was due")


def is_still(ladder: Ladder, reading: Reading, *, since: float, until: float) -> bool:
    return all(
        ladder.update(reading, now=now, lower=True, upper=False) is None
        for now in np.arange(since, until)
    )


def test_misses_that_last_lead_down():
    move, now = run(Ladder(AT, now=0), Reading(8, 2), since=0, until=100)
    assert (move.by, move.kind, now) == (1, "misses", 10)
    assert move.reason == "20% of the requests of 10 s were late or refused"


def test_a_single_hiccup_does_not():
    ladder = Ladder(AT, now=0)
    assert is_still(ladder, FINE, since=0, until=20)
    assert ladder.update(Reading(10, 10), now=20, lower=True, upper=False) is None
    assert is_still(ladder, FINE, since=21, until=40)


def test_a_share_of_few_requests_says_nothing():
    ladder = Ladder(AT, now=0)
    reading = Reading(0, 0)
    assert is_still(ladder, reading, since=0, until=20)
    assert ladder.update(Reading(0, 9), now=20, lower=True, upper=False) is None


def test_memory_pressure_and_heat_lead_down_when_they_last():
    move, now = run(Ladder(AT, now=0), FINE._replace(pressure=0.3), since=0, until=100)
    assert (move.by, move.kind, now) == (1, "memory", 11)
    move, now = run(Ladder(AT, now=0), FINE._replace(celsius=90), since=0, until=100)
    assert (move.by, move.kind, now) == (1, "heat", 11)


def test_between_the_thresholds_nothing_moves():
    ladder = Ladder(AT, now=0)
    for reading in (FINE._replace(pressure=0.1), FINE._replace(celsius=80), Reading(95, 5)):
        for now in range(1, 300):
            assert ladder.update(reading, now=now, lower=True, upper=True) is None
        ladder = Ladder(AT, now=0)


def test_quiet_leads_up_later_than_trouble_leads_down():
    move, now = run(Ladder(AT, now=0), FINE, since=0, until=100)
    assert (move.by, move.kind, now) == (-1, "quiet", 60)


def test_a_step_up_that_does_not_hold_doubles_the_quiet_before_the_next():
    ladder = Ladder(AT, now=0)
    now, waits = 0.0, []
    for _ in range(4):
        move, then = run(ladder, FINE, since=now, until=now + 500)
        assert move.by == -1
        waits.append(then - now)
        move, now = run(ladder, Reading(5, 5), since=then, until=then + 100)
        assert move.by == 1
    assert waits == [60, 120, 200, 200]  # up to a bound


def test_and_one_that_held_brings_it_back():
    ladder = Ladder(AT, now=0)
    _, now = run(ladder, FINE, since=0, until=100)
    _, now = run(ladder, Reading(5, 5), since=now, until=now + 100)
    _, now = run(ladder, FINE, since=now, until=now + 500)  # after 120 s
    assert is_still(ladder, FINE, since=now, until=now + 200)
    _, then = run(ladder, Reading(5, 5), since=now + 200, until=now + 300)
    _, now = run(ladder, FINE, since=then, until=then + 100)
    assert now - then == 60


READINGS = st.builds(
    Reading,
    st.integers(0, 50),
    st.integers(0, 50),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.floats(-10, 120)),
)


@given(st.lists(st.tuples(READINGS, st.floats(0.1, 30)), max_size=200), st.integers(1, 4))
def test_whatever_happens_steps_stay_on_the_ladder_and_a_span_apart(readings, rungs):
    ladder, now, step, moved = Ladder(AT, now=0), 0.0, 0, 0.0
    for reading, seconds in readings:
        now += seconds
        move = ladder.update(reading, now=now, lower=step + 1 < rungs, upper=step > 0)
        if move is not None:
            assert now - moved >= AT.span_s
            step, moved = step + move.by, now
            ladder.moved(move, now=now)
        assert 0 <= step < rungs


def profile(bundle: str, artifact: str, p50_ms: float) -> Profile:
    return Profile(
        bundle=bundle,
        artifact=artifact,
        runs=100,
        p50_ms=p50_ms,
        p99_ms=p50_ms,
        max_ms=p50_ms,
        load_ms=1,
        peak_mb=50,
    )


def test_the_rungs_are_what_costs_less_here(tmp_path: Path):
    bundle = open_bundle(sleeper_bundle(tmp_path, cheaper={}))
    profiles = Profiles(tmp_path / "profiles")

    def rungs() -> list[str]:
        with knowing_the_sleeper():
            found, _ = variants(
                bundle, wanted="", threads=1, limit_bytes=None, folder=tmp_path, profiles=profiles
            )
        return [variant.artifact.id for variant in cheaper(found)]

    assert rungs() == ["sleeper-fp32", "sleeper-int8"]  # by size, as nothing was measured
    for artifact, p50_ms in (("sleeper-fp32", 2.0), ("sleeper-int8", 1.95)):
        profiles.save(profile(bundle.sha256, artifact, p50_ms))
    assert rungs() == ["sleeper-fp32"]  # hardly cheaper here, whatever its size
    profiles.save(profile(bundle.sha256, "sleeper-int8", 1.0))
    assert rungs() == ["sleeper-fp32", "sleeper-int8"]


def test_a_rung_may_be_of_another_runtime(tmp_path: Path):
    """ONNX Runtime serves until it is hot, LiteRT then, as it costs less on this device."""
    path, weather = tiny_bundle(tmp_path, targets=("onnx", "tflite"), chosen="onnx"), Weather()
    profiles, sha256 = Profiles(tmp_path / "profiles"), open_bundle(path).sha256
    for artifact, p50_ms in (("onnx-fp32", 2.0), ("tflite-fp32", 1.0)):
        profiles.save(profile(sha256, artifact, p50_ms))
    with serving(
        path, tmp_path, machine=weather.sensors(), ladder_s=0.01, quiet_s=60, deadline_ms=60_000
    ) as desk:
        assert desk.service.state.artifact == "onnx-fp32"
        np.testing.assert_allclose(scores_of(desk.call()), scores(frame(0.5)), atol=1e-5)
        weather.celsius = 95
        assert desk.wait_for("degraded")["to"] == "tflite-fp32"
        np.testing.assert_allclose(scores_of(desk.call()), scores(frame(0.5)), atol=1e-5)
        windows = desk.close_windows()
    assert [(w.artifact, w.rows) for w in windows] == [("onnx-fp32", 1), ("tflite-fp32", 1)]


class Weather:
    """A device whose temperature a test sets."""

    celsius = 40.0

    def sensors(self) -> Sensors:
        return Sensors(pressure=lambda: None, celsius=lambda: self.celsius)


def test_heat_leads_to_the_cheaper_artifact_and_back(tmp_path: Path):
    bundle, weather = sleeper_bundle(tmp_path, cheaper={}), Weather()
    with serving(
        bundle, tmp_path, machine=weather.sensors(), ladder_s=0.01, quiet_s=0.01, deadline_ms=60_000
    ) as desk:
        assert desk.service.snapshot().variants == ("sleeper-fp32", "sleeper-int8")
        _serve(desk, 3)
        weather.celsius = 95
        details = desk.wait_for("degraded")
        assert (details["from"], details["to"]) == ("sleeper-fp32", "sleeper-int8")
        assert (details["step"], details["why"]) == (1, "heat")
        assert desk.service.state.artifact == "sleeper-int8"
        _serve(desk, 4)
        weather.celsius = 40
        assert desk.wait_for("restored")["to"] == "sleeper-fp32"
        assert desk.service.snapshot().step == 0
        _serve(desk, 5)
        windows = desk.close_windows()
    # Each window is of one artifact, so that the collector compares like with like.
    assert [(w.artifact, w.rows) for w in windows] == [
        ("sleeper-fp32", 3),
        ("sleeper-int8", 4),
        ("sleeper-fp32", 5),
    ]


def test_memory_pressure_leads_there_as_the_kernel_tells_of_it(tmp_path: Path):
    """Read from a file as Linux has it in /proc/pressure/memory."""
    bundle, file = sleeper_bundle(tmp_path, cheaper={}), tmp_path / "memory"

    def tell(some: float, full: float) -> None:
        rest = "avg60=0.00 avg300=0.00 total=1"
        draft = tmp_path / "draft"
        draft.write_text(f"some avg10={some:.2f} {rest}\nfull avg10={full:.2f} {rest}\n")
        draft.replace(file)

    tell(some=15, full=15)  # some of the time is not a fifth of it
    machine = Sensors(pressure=lambda: memory_pressure(file), celsius=lambda: None)
    with serving(
        bundle, tmp_path, machine=machine, ladder_s=0.01, quiet_s=0.01, deadline_ms=60_000
    ) as desk:
        _serve(desk, 3)
        tell(some=35.5, full=0)
        details = desk.wait_for("degraded")
        assert (details["to"], details["why"]) == ("sleeper-int8", "memory")
        assert desk.events[0][1].endswith(": memory was short for 0.01 s")
        _serve(desk, 4)
        tell(some=0.5, full=0.5)
        assert desk.wait_for("restored")["to"] == "sleeper-fp32"
        _serve(desk, 5)
        windows = desk.close_windows()
    assert [(w.artifact, w.rows) for w in windows] == [
        ("sleeper-fp32", 3),
        ("sleeper-int8", 4),
        ("sleeper-fp32", 5),
    ]


def in_place_of(own: Path, machine: Path) -> list[str]:
    """A command that runs another one, which finds ``own``, a file or a folder, at the path
    ``machine``."""
    apart = ["unshare", "--mount", *(() if os.getuid() == 0 else ("--user", "--map-root-user"))]
    shell = ["/bin/sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"']
    command = [*apart, *shell, str(own), str(machine)]
    tried = subprocess.run([*command, "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(tried.stderr)
    return command


def psi(some: float) -> bytes:
    """As the kernel writes it; of one length, so that it is replaced at once."""
    rest = "avg60=0.00 avg300=0.00 total=1"
    return f"some avg10={some:05.2f} {rest}\nfull avg10=00.00 {rest}\n".encode()


def thermal(celsius: float) -> bytes:
    """As a zone's file has it; of one length."""
    return f"{celsius * 1000:06.0f}\n".encode()


@pytest.mark.parametrize("why", ["memory", "heat"])
def test_a_whole_agent_goes_by_the_machines_own_account(
    start_agent: StartAgent, collector: Collector, at_plant: list[str], tmp_path: Path, why: str
):
    """It finds a file of ours at ``/proc/pressure/memory``, or a folder at ``/sys/class/thermal``,
    in a mount namespace of its own."""
    if why == "memory":
        account = tmp_path / "memory"
        account.touch()
        under, tell, told = in_place_of(account, PRESSURE), psi, "memory_pressure"
        levels, unit = (41.0, 0.0), 0.01
    else:
        account = tmp_path / "thermal" / "thermal_zone0" / "temp"
        account.parent.mkdir(parents=True)
        under, tell, told = in_place_of(tmp_path / "thermal", ZONES), thermal, "temperature_c"
        levels, unit = (92.5, 61.0), 1.0
    account.write_bytes(tell(levels[1]))
    config = tmp_path / "agent.toml"
    bundle = sleeper_bundle(tmp_path, cheaper={})
    config.write_text(f'[[model]]\nbundle = "{bundle}"\nladder_s = 0.5\nquiet_s = 0.5\n')
    agent = start_agent("--config", config, *at_plant, sleeper=True, under=under).ready()
    served = 0
    with agent.client("sleeper") as client:
        for level, kind in zip(levels, ("degraded", "restored"), strict=True):
            client.infer({"image": frame(0.5)})
            served += 1
            with account.open("r+b", buffering=0) as file:
                file.write(tell(level))
            agent.wait_for(f" {kind} ")
            assert client.get("/edgeml/v1/status")[told] == pytest.approx(level * unit)
        client.infer({"image": frame(0.5)})
    assert agent.terminate() == 0

    def moves() -> list[Event]:
        return [event for event in collector.events if event.kind in {"degraded", "restored"}]

    collector.wait_for(lambda c: c.rows == served + 1 and len(moves()) == 2, "rows and moves")
    assert [event.details["why"] for event in moves()] == [why, "quiet"]
    assert [event.details["to"] for event in moves()] == ["sleeper-int8", "sleeper-fp32"]
    found = sorted(collector.windows.values(), key=lambda window: window.sequence)
    assert [window.artifact for window in found] == ["sleeper-fp32", "sleeper-int8", "sleeper-fp32"]


def test_misses_lead_there_too(tmp_path: Path):
    bundle = sleeper_bundle(tmp_path, options={"slow_s": "0.15"}, cheaper={})
    with serving(bundle, tmp_path, deadline_ms=100, ladder_s=0.5, grace_ms=1000) as desk:
        desk.wait_until(
            lambda: desk.call().outcome == "served",
            "request served",
        )
        assert desk.wait_for("degraded")["why"] == "misses"
        scores_of(desk.call())


def test_an_artifact_that_does_not_prove_itself_is_no_rung(tmp_path: Path):
    bundle, weather = sleeper_bundle(tmp_path, cheaper={"load": "crash"}), Weather()
    with serving(bundle, tmp_path, machine=weather.sensors(), ladder_s=0.01, quiet_s=60) as desk:
        weather.celsius = 95
        desk.wait_until(lambda: len(desk.service.snapshot().variants) == 1, "one rung")
        np.testing.assert_allclose(scores_of(desk.call()), scores(frame(0.5)), atol=1e-5)
        assert not desk.events


def test_a_named_artifact_is_the_only_one(tmp_path: Path):
    bundle, weather = sleeper_bundle(tmp_path, cheaper={}), Weather()
    weather.celsius = 95
    with serving(
        bundle, tmp_path, machine=weather.sensors(), target="sleeper-fp32", ladder_s=0.01
    ) as desk:
        looks = desk.service._keeper._look_again
        desk.wait_until(lambda: desk.service._keeper._look_again != looks, "a look")
        assert desk.service.snapshot().variants == ("sleeper-fp32",)
        assert not desk.events


def _serve(desk: Desk, count: int) -> None:
    for _ in range(count):
        scores_of(desk.call())
