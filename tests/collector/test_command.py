"""The commands: what the collector can be told, and what it can be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support.collectors import Start, fleet
from support.devices import Source, wire
from support.fleets import FleetStore

from edgeml.collector.config import CollectorConfig, load_config, override
from edgeml.errors import UsageError


def edgeml(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeml", *arguments], capture_output=True, text=True, check=False
    )


def test_a_file_says_what_options_say(tmp_path: Path) -> None:
    path = tmp_path / "collector.toml"
    path.write_text(
        'database = "fleet.sqlite"\nbundles = ["digits.edgeml"]\n'
        '[broker]\nhost = "broker.local"\nport = 1884\n'
        "[alarms]\nfalse_alarms = 2\nper_days = 30\n"
    )
    config = load_config(path)
    assert (config.broker.host, config.broker.port) == ("broker.local", 1884)
    assert config.bundles == ("digits.edgeml",)
    assert config.alarms.budget.describe() == (
        "at most 2 expected false alarms in 30 days for the whole fleet"
    )
    assert override(config, {"broker.port": 1999}).broker.port == 1999


def test_loopback_is_the_default() -> None:
    assert CollectorConfig().http.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("retries = 3", "retries"),
        ("[broker]\nhots = 'b'", "hots"),
        ("[alarms]\nfalse_alarms = 0", "false_alarms"),
        ("[http]\nport = 70000", "port"),
        ("this is no toml", "line 1"),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_name(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "collector.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=found) as error:
        load_config(path)
    assert "collector.toml" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "status", "found"),
    [
        (("--config", "missing.toml"), 2, "missing.toml cannot be read"),
        (("--broker", "a:b"), 2, "--broker a:b"),
        (("--min-effect", "7"), 2, "edgeml: alarms.min_effect: expected `float` <= 1.0. "),
        (("--database", "/proc/none/fleet.sqlite"), 1, "mkdir -p /proc/none."),
        (("--database", "/proc/fleet.sqlite"), 1, "/proc/fleet.sqlite.lock cannot be written"),
        (("--database", "postgresql+nosuch://me:secret@host/x"), 1, "driver"),
        (("--bundle", "missing.edgeml", "--http", "127.0.0.1:0"), 1, "missing.edgeml cannot be"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], status: int, found: str
) -> None:
    if "--database" not in arguments:
        arguments += ("--database", str(tmp_path / "fleet.sqlite"))
    done = edgeml("collector", "run", *arguments)
    assert done.returncode == status
    assert found in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_mistyped_folder_is_told_and_not_made(tmp_path: Path) -> None:
    mistyped = tmp_path / "flet" / "fleet.sqlite"
    for database in (str(mistyped), f"sqlite:///{mistyped}"):
        done = edgeml("collector", "run", "--database", database)
        assert done.returncode == 1
        assert f"there is no folder {mistyped.parent} for the database" in done.stderr
    assert not mistyped.parent.exists()


def test_a_taken_port_is_named(start: Start) -> None:
    first = start("--embedded-broker").wait_ready()
    port = first.page.rsplit(":", 1)[1]
    second = start("--embedded-broker", "--http", f"127.0.0.1:{port}", database="other.sqlite")
    second.wait_for(f"cannot be served on 127.0.0.1:{port}: Address already in use")
    assert second.wait() == 1


def test_the_fleet_answers_for_people_and_for_programs(start: Start, bundle: Path) -> None:
    collector = start("--embedded-broker").wait_ready()
    at = ("--collector", collector.page)
    added = fleet("add", str(bundle), *at)
    assert added.returncode == 0
    assert "is known now: 17 statistics" in added.stdout
    assert "was known already" in fleet("add", str(bundle), *at).stdout

    source = Source(bundle, seed=1)
    with wire("hall", "cam", collector.host, collector.port) as device:
        device.send(source.status(), *source.windows(28), *source.windows(9, broken=True))
        device.wait_stored(37)

    status = json.loads(fleet("status", "--json", *at).stdout)
    assert status["devices"][0]["device"] == "cam"
    assert status["devices"][0]["models"][0]["version"] == "1.0"
    assert "hall/cam" in fleet("status", *at).stdout

    drift = json.loads(fleet("drift", "--device", "cam", "--json", *at).stdout)
    luma = next(s for s in drift["streams"] if s["stream"] == "input.image.luma_mean")
    assert luma["phase"] == "alarm"
    assert luma["last"]["w1"] > 0.5
    assert luma["last"]["p"] < 1e-6
    assert {"chi2", "dof", "n", "m", "effect", "detectable", "psi", "ks"} <= set(luma["last"])
    assert 0.05 < luma["last"]["excess_js"] < luma["last"]["js"]
    assert json.loads(fleet("drift", "--device", "no", "--json", *at).stdout) == {"streams": []}
    assert fleet("drift", "--device", "no", *at).stdout == "No statistic of no is known.\n"
    shown = fleet("drift", *at).stdout
    assert "excess JS (bits)" in shown
    assert f"{luma['last']['excess_js']:.3f}" in shown
    assert f"{luma['evidence']:,.0f}" in shown
    assert f"{luma['threshold']:,.0f}" in shown
    # What is most urgent comes first: open alarms, then by evidence.
    streams = {stream["stream"]: stream for stream in drift["streams"]}
    listed = [streams[line.split()[1]] for line in shown.splitlines() if "hall/cam" in line]
    assert len(listed) == len(streams)
    ranks = [(s["phase"] == "alarm", s["evidence"] / s["threshold"]) for s in listed]
    assert ranks == sorted(ranks, reverse=True)
    assert {alarmed for alarmed, _ in ranks} == {True, False}
    assert "input.image.luma_mean" in fleet("alarms", "--open", *at).stdout


def test_incidents_retraction_and_feedback_at_the_command_line(
    start: Start, bundle: Path, tmp_path: Path
) -> None:
    store = FleetStore(tmp_path / "fleet.sqlite", bundle)
    source = Source(bundle, seed=1)
    sent = [*source.windows(28), *source.windows(9, broken=True)]
    store.send(*(("hall/cam", window) for window in sent))
    store.engine.dispose()
    collector = start("--embedded-broker").wait_ready()
    at = ("--collector", collector.page)
    said = fleet("incidents", *at).stdout
    assert "open    cam (hall) changed: " in said
    assert "it has no peers on its site" in said
    assert "alarms raised, at most" in said

    since = str(sent[28].start_ms)
    done = fleet("retract", "--device", "cam", "--from", since, "--why", "fog", *at)
    assert "9 windows of 1 device (360 rows) retracted." in done.stdout
    assert "No incidents." in fleet("incidents", *at).stdout
    listed = fleet("retractions", *at).stdout
    assert "fog" in listed
    assert "stands" in listed
    (row,) = json.loads(fleet("retractions", "--json", *at).stdout)["retractions"]
    number = str(row["id"])
    assert "put back" in fleet("retract", "--undo", number, *at).stdout
    assert "open    cam" in fleet("incidents", *at).stdout
    again = fleet("retract", "--undo", number, *at)
    assert (again.returncode, "is undone" in again.stderr) == (1, True)
    refused = fleet("retract", *at)
    assert (refused.returncode, "neither a device" in refused.stderr) == (1, True)
    anew = fleet("rebaseline", "--device", "cam", *at).stdout
    assert "streams start anew, " in anew

    file = tmp_path / "labels.csv"
    file.write_text(
        "device,model,time,prediction,label,confidence,group\n"
        + "cam,tiny,2027-01-15T08:00:05,3,3,0.9,day\n" * 30
        + "cam,tiny,2027-01-15T08:00:05,3,4,0.9,night\n" * 10
    )
    assert "40 labels added." in fleet("feedback", str(file), *at).stdout
    assert "nothing changed" in fleet("feedback", str(file), *at).stdout
    table = fleet("accuracy", "--by", "device", *at).stdout
    for shown in ("tiny 1.0", "hall/cam", "40", "0.750", "day is 1.000 above night"):
        assert shown in table
    assert "by 'colour'" in fleet("accuracy", "--by", "colour", *at).stderr
    # A label that did not come back is no wrong one, and a spreadsheet's semicolons are read.
    file.write_text("device;model;time;prediction;label\ncam;tiny;2027-01-15T08:00:05;3;\n")
    lacking = fleet("feedback", str(file), *at)
    assert (lacking.returncode, "row 1 of" in lacking.stderr) == (2, True)
    assert "has no label" in lacking.stderr
    file.write_text("device,model,time,prediction,label\ncam,tiny,yesterday,3,3\n")
    assert "labels.csv: the time 'yesterday'" in fleet("feedback", str(file), *at).stderr
    file.write_text("device,model\ncam,tiny\n")
    lacking = fleet("feedback", str(file), *at)
    assert (lacking.returncode, "lacks time, prediction, label" in lacking.stderr) == (2, True)


def test_what_was_refused_is_listed_with_the_reason(
    start: Start, bundle: Path, tmp_path: Path
) -> None:
    store = FleetStore(tmp_path / "fleet.sqlite", bundle)
    source = Source(bundle, seed=1)
    foreign = [msgspec.structs.replace(w, baseline="f" * 64) for w in source.windows(3)]
    store.send(*(("hall/cam", window) for window in foreign), ("hall/gate", source.window()))
    store.engine.dispose()
    at = ("--collector", start("--embedded-broker").wait_ready().page)
    (fault,) = json.loads(fleet("faults", "--json", *at).stdout)["faults"]
    assert (fault["device"], fault["kind"], fault["windows"]) == ("cam", "refused", 3)
    listed = fleet("faults", "--site", "hall", *at).stdout
    assert "17 statistics of the baseline ffff" in " ".join(listed.split())
    assert "cam" not in fleet("faults", "--device", "gate", *at).stdout
    assert "refused: 17 statistics of the baseline" in fleet("status", *at).stdout
    shown = " ".join(fleet("kept", *at).stdout.split())
    assert "windows 14 days 2027-01-15 08:00:02" in shown
    assert "The database has 0." in shown


def test_a_collector_that_is_not_there_is_no_riddle(unused_port: int) -> None:
    done = edgeml("fleet", "status", "--collector", f"http://127.0.0.1:{unused_port}")
    assert done.returncode == 1
    assert f"no collector answers at http://127.0.0.1:{unused_port}" in done.stderr
    assert "--collector URL" in done.stderr


def test_a_damaged_bundle_is_refused_at_the_command_line(start: Start, tmp_path: Path) -> None:
    collector = start("--embedded-broker").wait_ready()
    damaged = tmp_path / "damaged.edgeml"
    damaged.write_bytes(b"PK\x03\x04 and then nothing")
    done = fleet("add", str(damaged), "--collector", collector.page)
    assert done.returncode == 1
    assert "is damaged, or no bundle" in done.stderr
