"""The agent as a service: what it tells systemd, and the unit of ``edgeml agent install``."""

from __future__ import annotations

import configparser
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agents import PATIENCE_S, StartAgent
from support.bundles import sleeper_bundle, tiny_bundle

from edgeml.device_agent.notify import Notifier
from edgeml.device_agent.unit import render_unit

Fields = dict[str, str]


class Systemd:
    """The service manager's end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE_S)
        self.told: list[Fields] = []

    def wait_for(self, what: Callable[[Fields], bool]) -> Fields:
        while True:
            text = self._socket.recv(4096).decode()
            self.told.append(dict(line.split("=", 1) for line in text.splitlines()))
            if what(self.told[-1]):
                return self.told[-1]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    manager = Systemd(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    yield manager
    manager.close()


def test_ready_alive_and_stopping(
    start_agent: StartAgent, tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    config = tmp_path / "agent.toml"
    config.write_text(f'drain_s = 10\n[[model]]\nbundle = "{tiny_bundle(tmp_path)}"\n')
    agent = start_agent("--config", config)
    ready = systemd.wait_for(lambda fields: "READY" in fields)
    assert ready == {"READY": "1", "STATUS": "serving tiny 1.0 (onnx-fp32)"}
    before = systemd.told[:-1]
    assert before
    assert all(f == {"WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "30000000"} for f in before)
    agent.ready()
    for _ in range(3):  # with nothing else to do
        systemd.wait_for(lambda fields: fields == {"WATCHDOG": "1"})
    (worker,) = agent.workers()
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{worker}/environ").read_bytes()
    assert b"WATCHDOG_USEC" not in Path(f"/proc/{worker}/environ").read_bytes()
    assert agent.terminate() == 0
    ending = systemd.wait_for(lambda fields: "STOPPING" in fields)
    # Its unit may be older than its configuration.
    assert ending == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "50000000"}


def test_an_agent_is_not_ready_before_its_model(
    start_agent: StartAgent, tmp_path: Path, systemd: Systemd
):
    bundle = sleeper_bundle(tmp_path, options={"load": "hang"})
    agent = start_agent("--bundle", bundle, sleeper=True)
    agent.wait_for_nap()
    assert agent.terminate() == 0
    systemd.wait_for(lambda fields: "STOPPING" in fields)
    assert not [fields for fields in systemd.told if "READY" in fields]


def test_signs_of_life_come_three_times_in_the_watchdogs_interval(systemd: Systemd):
    environment = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "30000000", "HOME": "/"}
    notifier = Notifier(environment)
    assert environment == {"HOME": "/"}
    given = [now for now in range(60) if _gives(notifier, systemd, float(now))]
    assert given == [0, 10, 20, 30, 40, 50]


def _gives(notifier: Notifier, systemd: Systemd, now: float) -> bool:
    due = notifier.due
    notifier.alive(now)
    if now < due:
        return False
    return systemd.wait_for(lambda _: True) == {"WATCHDOG": "1"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "@edgeml-nobody-listens", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"},
    ],
)
def test_nobody_who_listens_is_no_trouble(environment: Fields):
    notifier = Notifier(environment)
    notifier.ready("serving")
    notifier.alive(0.0)
    notifier.alive(0.0, starting=True)
    notifier.stopping(30)
    assert not environment


def install(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeml", "agent", "install", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )


def read_unit(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    return unit


def test_the_unit_it_writes(tmp_path: Path):
    config = tmp_path / "agent.toml"
    config.write_text(f'[[model]]\nbundle = "{tiny_bundle(tmp_path)}"\n')
    target = tmp_path / "edgeml-agent.service"
    done = install("--config", config, "--unit", target, "--user", "daemon")
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout
    unit = read_unit(target.read_text())
    assert dict(unit["Service"]) == {
        "Type": "notify",
        "ExecStart": f"{sys.executable} -m edgeml agent run --config {config} "
        "--state /var/lib/edgeml --socket /run/edgeml/agent.sock",
        "Restart": "always",
        "RestartSec": "2",
        "WatchdogSec": "30",
        "TimeoutStopSec": "30",
        "KillMode": "mixed",
        "Delegate": "yes",
        "OOMPolicy": "continue",
        "User": "daemon",
        "StateDirectory": "edgeml",
        "RuntimeDirectory": "edgeml",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "full",
        "UMask": "0027",
    }
    verify(target)


def test_the_unit_gives_the_end_the_time_that_it_may_take(tmp_path: Path):
    config = tmp_path / "agent.toml"
    config.write_text("drain_s = 20.2\n")
    unit = read_unit(install("--config", config, "--show").stdout)
    assert unit["Service"]["TimeoutStopSec"] == "91"


@pytest.mark.parametrize(
    ("wish", "user", "lets"),
    [("awake_ms = 20", "daemon", True), ("awake_ms = 20", "", False), ("", "daemon", False)],
)
def test_another_user_than_root_is_let_keep_cores_awake_where_it_is_to(
    tmp_path: Path, wish: str, user: str, lets: bool
):
    config = tmp_path / "agent.toml"
    config.write_text(f"{wish}\n")
    whom = ("--user", user) if user else ()
    text = install("--config", config, *whom, "--show").stdout
    before = read_unit(text)["Service"].get("ExecStartPre", "")
    assert before == ("+-/bin/chown daemon /dev/cpu_dma_latency" if lets else "")
    target = tmp_path / "edgeml-agent.service"
    target.write_text(text)
    verify(target)


def test_a_configuration_that_names_its_places_keeps_them(tmp_path: Path):
    config = tmp_path / "100% of $HOME.toml"
    config.write_text('state = "/srv/state"\nsocket = "/srv/agent.sock"\n')
    done = install("--config", config, "--show")
    assert done.returncode == 0, done.stderr
    command = read_unit(done.stdout)["Service"]["ExecStart"]
    assert command.endswith(f'--config "{tmp_path}/100%% of $$HOME.toml"')
    target = tmp_path / "edgeml-agent.service"
    target.write_text(done.stdout)
    verify(target)


def verify(unit: Path) -> None:
    """systemd's own opinion, where it is installed."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return
    done = subprocess.run(
        [program, "verify", "--man=no", str(unit)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    about = [line for line in done.stderr.splitlines() if unit.name in line]
    assert not about


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--user", "nobody-of-this-name"), "There is no user 'nobody-of-this-name'"),
        (("--unit", "/nowhere/edgeml.service"), "cannot be written"),
    ],
)
def test_what_cannot_be_installed(tmp_path: Path, arguments: tuple[str, str], message: str):
    config = tmp_path / "agent.toml"
    config.write_text("")
    done = install("--config", config, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_wrong_configuration_shows_now(tmp_path: Path):
    config = tmp_path / "agent.toml"
    config.write_text("memory = 5\n")
    done = install("--config", config, "--show")
    assert done.returncode == 2
    assert "unknown key 'memory'" in done.stderr


def test_words_of_a_command_reach_it_whole():
    text = render_unit(["/usr/bin/x", 'a "b"', "c\\d", "", "it's", ";"], stop_s=30)
    assert 'ExecStart=/usr/bin/x "a \\"b\\"" "c\\\\d" "" "it\'s" ";"\n' in text
    assert "User=" not in text
