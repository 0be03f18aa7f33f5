"""Commands over MQTT: each permitted by configuration, done at most once, never too old."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import AgentProcess, Collector, StartAgent
from support.bundles import tiny_bundle
from support.weights import images

from edgeml.device_agent.commands.decision import SKEW_MS, refusal
from edgeml.device_agent.commands.executor import Answer, Commands
from edgeml.device_agent.commands.record import FILE, SET_ASIDE, CommandRecord, Earlier
from edgeml.errors import AgentError
from edgeml.telemetry import Command, CommandResult, decode, encode

KINDS = ("status", "logs", "restart", "profile", "capture")
NUMBERS = itertools.count()


def now_ms() -> int:
    return time.time_ns() // 10**6


def command(kind: str, **changes: Any) -> Command:
    fields = {"id": f"c{next(NUMBERS)}", "issued_ms": now_ms(), "lifetime_s": 600.0}
    return Command(kind=kind, **{**fields, **changes})


# Whether: pure.


def decide(asked: Command, **changes: Any) -> str:
    facts = {
        "kinds": KINDS,
        "allowed": KINDS,
        "retained": False,
        "wall_ms": asked.issued_ms,
        "waited_s": 0.0,
    }
    return refusal(asked, **{**facts, **changes})


ASKED = Command(id="c", kind="logs", issued_ms=10**12, lifetime_s=30)


def test_a_fresh_command_that_is_permitted():
    assert decide(ASKED, allowed=("logs",)) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"allowed": ()}, "does not permit 'logs', only: none"),
        ({"allowed": ("status",)}, "does not permit 'logs', only: status"),
        ({"kinds": ("status",)}, "There is no command 'logs'. Expected one of status"),
        ({"retained": True}, "was retained"),
        ({"wall_ms": 10**12 + 30_001}, "30 s old by this device's clock. Expected at most 30 s"),
        ({"wall_ms": 10**12 - SKEW_MS - 1}, "60 s in the future of this device's clock"),
        ({"waited_s": 30.1}, "waited here for 30 s. Expected at most 30 s"),
    ],
)
def test_what_is_refused_and_why(changes: dict[str, Any], reason: str):
    assert reason in decide(ASKED, **changes)


DAYS = st.integers(-30 * 86_400_000, 30 * 86_400_000)


@given(true_age_ms=st.integers(0, 10**9), wrong_ms=DAYS, waited_s=st.floats(0, 4000))
def test_no_clock_however_wrong_lets_a_command_through_that_the_other_knows_is_old(
    true_age_ms: int, wrong_ms: int, waited_s: float
):
    wall = ASKED.issued_ms + true_age_ms + wrong_ms
    if not decide(ASKED, wall_ms=wall, waited_s=waited_s):
        assert waited_s <= ASKED.lifetime_s
        assert -SKEW_MS <= true_age_ms + wrong_ms <= ASKED.lifetime_s * 1000


# Once: on the disk.


def remember(folder: Path, **changes: Any) -> CommandRecord:
    return CommandRecord(folder, **{"kept": 100, "wall_ms": 1000, **changes})


def test_what_was_begun_is_not_begun_again(tmp_path: Path):
    with remember(tmp_path) as record:
        assert record.begin("a", issued_ms=1500, wall_ms=2000) == ""
        assert record.begin("a", issued_ms=1500, wall_ms=3000) == Earlier(2000, None)
        record.finish("a", b"the answer")
    with remember(tmp_path, wall_ms=9000) as record:  # another run
        assert record.begin("a", issued_ms=1500, wall_ms=9000) == Earlier(2000, b"the answer")
        assert record.begin("b", issued_ms=1500, wall_ms=9000) == ""


def test_what_a_lost_record_may_have_held_is_refused(tmp_path: Path):
    with remember(tmp_path) as record:
        record.begin("a", issued_ms=1500, wall_ms=2000)
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with remember(tmp_path, wall_ms=5000) as record:
        assert "before this device began to remember" in str(
            record.begin("a", issued_ms=1500, wall_ms=5000)
        )
        assert record.begin("b", issued_ms=5001, wall_ms=5002) == ""
    assert (tmp_path / SET_ASIDE).exists()


def test_a_clock_that_was_days_ahead_does_not_refuse_for_days(tmp_path: Path):
    with remember(tmp_path, wall_ms=10**9) as record:
        assert record.begin("a", issued_ms=1999, wall_ms=2000) != ""
        assert record.begin("b", issued_ms=2000, wall_ms=2001) == ""


def test_the_record_does_not_grow_for_ever(tmp_path: Path):
    with remember(tmp_path, kept=10) as record:
        for number in range(100):
            assert record.begin(f"c{number}", issued_ms=1500, wall_ms=2000) == ""
        assert isinstance(record.begin("c95", issued_ms=1500, wall_ms=2000), Earlier)
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT count(*) FROM commands").fetchone() == (10,)
    database.close()


class Played:
    """Commands with one action, whose answers are kept."""

    def __init__(self, folder: Path, action: Callable[[Command, Answer], None]) -> None:
        self._said = threading.Condition()
        self.answers: list[CommandResult] = []
        self.record = remember(folder, wall_ms=0)
        self.commands = Commands(
            {"logs": action},
            allowed=("logs",),
            record=self.record,
            boot="boot",
            publish=self._publish,
            waiting=16,
        )
        self.commands.start()

    def ask(self, asked: Command, *, retained: bool = False) -> CommandResult:
        with self._said:
            before = len(self.answers)
            self.commands.offer(encode(asked), retained)
            assert self._said.wait_for(lambda: len(self.answers) > before, 60)
            return self.answers[before]

    def _publish(self, payload: bytes) -> None:
        with self._said:
            self.answers.append(decode(payload, CommandResult))
            self._said.notify_all()

    def end(self) -> None:
        self.commands.stop(60)
        self.record.close()


def test_the_same_command_over_and_over_is_done_once(tmp_path: Path):
    done: list[str] = []

    def action(asked: Command, answer: Answer) -> None:
        done.append(asked.id)
        answer.done({"times": len(done)})

    asked = command("logs")
    for _ in range(2):  # runs of the agent
        played = Played(tmp_path, action)
        outcomes = [played.ask(asked) for _ in range(3)]
        played.end()
    assert done == [asked.id]
    assert {outcome.outcome for outcome in outcomes} == {"repeated"}
    assert outcomes[-1].document == {"times": 1}  # who lost the answer has it now


def test_a_fault_in_an_action_is_answered_and_the_next_one_served(tmp_path: Path):
    def action(asked: Command, answer: Answer) -> None:
        if asked.count:
            raise ZeroDivisionError("oh")
        answer.done({"x": "y" * (2**21 if asked.model else 1)})

    played = Played(tmp_path, action)
    assert "A fault of the agent: oh" in played.ask(command("logs", count=1)).message
    too_long = played.ask(command("logs", model="m"))
    assert too_long.outcome == "failed"
    assert "too long" in too_long.message
    played.commands.offer(b"no command", False)
    assert played.ask(command("logs")).outcome == "done"
    played.end()


def test_a_record_that_cannot_be_written_refuses(tmp_path: Path):
    played = Played(tmp_path, lambda asked, answer: pytest.fail("it was done"))
    played.record.close()
    answer = played.ask(command("logs"))
    assert answer.outcome == "refused"
    assert "cannot be noted" in answer.message
    played.commands.stop(60)
    with pytest.raises(AgentError, match="cannot be noted"):
        CommandRecord(tmp_path / "missing", kept=1, wall_ms=0)


# For real: an agent, a broker, and whoever asks.


class Operator:
    """Asks a device, and hears what it answers."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._topic = collector.topics.leaf("cmd")
        self._answers = collector.topics.leaf("cmd/result")

    def ask(self, kind: str, **changes: Any) -> CommandResult:
        return self.send(command(kind, **changes))[0]

    def send(self, asked: Command, *, answers: int = 1) -> list[CommandResult]:
        """The next answers to it."""
        before = len(self.heard(asked))
        self._collector.publish(self._topic, encode(asked))
        self._collector.wait_for(
            lambda _: len(self.heard(asked)) >= before + answers, f"answer to {asked}"
        )
        return self.heard(asked)[before:]

    def heard(self, asked: Command) -> list[CommandResult]:
        found = [
            decode(payload, CommandResult)
            for topic, payload in self._collector.other
            if topic == self._answers
        ]
        return [answer for answer in found if answer.id == asked.id]


@pytest.fixture
def operator(collector: Collector) -> Operator:
    return Operator(collector)


def config(folder: Path, *allowed: str, window_s: float = 60.0) -> Path:
    path = folder / "agent.toml"
    allow = msgspec.json.encode(allowed).decode()
    path.write_text(
        f"[commands]\nallow = {allow}\n"
        f'[[model]]\nbundle = "{tiny_bundle(folder)}"\nwindow_s = {window_s}\n'
    )
    return path


def start(
    start_agent: StartAgent, config: Path, collector: Collector, at_plant: list[str]
) -> AgentProcess:
    agent = start_agent("--config", config, *at_plant).ready()
    collector.wait_for(lambda c: c.phase == "active", "active model")
    return agent


def test_nothing_is_permitted_unless_it_is_configured(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    at_plant: list[str],
    operator: Operator,
):
    start(start_agent, config(tmp_path, "logs"), collector, at_plant)
    for kind in ("status", "restart", "profile", "capture"):
        answer = operator.ask(kind, model="tiny")
        assert answer.outcome == "refused"
        assert f"does not permit '{kind}', only: logs" in answer.message
    assert operator.ask("logs").outcome == "done"
    assert "There is no command 'reboot'" in operator.ask("reboot").message
    old = operator.ask("logs", issued_ms=now_ms() - 10_000, lifetime_s=5)
    assert old.outcome == "refused"
    assert "old by this device's clock" in old.message


def test_status_logs_and_profile(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    at_plant: list[str],
    operator: Operator,
):
    agent = start(start_agent, config(tmp_path, "status", "logs", "profile"), collector, at_plant)
    status = operator.ask("status").document
    assert status["device"] == collector.topics.device
    assert status["models"][0]["artifact"] == "onnx-fp32"
    lines = operator.ask("logs", count=3).document["lines"]
    assert len(lines) == 3
    assert all(line in agent.lines for line in lines)
    (worker,) = agent.workers()
    profile = operator.ask("profile", model="tiny").document
    assert profile["artifact"] == "onnx-fp32"
    assert profile["runs"] > 10
    assert 0 < profile["p50_ms"] <= profile["p99_ms"] <= profile["max_ms"]
    assert agent.workers() != [worker]  # measured in a fresh one
    wrong = operator.ask("profile", model="huge")
    assert (wrong.outcome, wrong.message) == (
        "failed",
        "There is no model 'huge'. Expected one of tiny.",
    )


def test_the_next_windows_are_captured(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    at_plant: list[str],
    operator: Operator,
):
    agent = start(start_agent, config(tmp_path, "capture", window_s=0.2), collector, at_plant)
    asked = command("capture", model="tiny", count=2)
    collector.publish(collector.topics.leaf("cmd"), encode(asked))
    with agent.client() as client:
        while len(operator.heard(asked)) < 2:
            client.infer({"image": images(1)})
    answers = operator.heard(asked)
    assert [(a.outcome, a.part, a.parts) for a in answers] == [("done", 1, 2), ("done", 2, 2)]
    for answer in answers:
        assert answer.document["model"] == "tiny"
        assert answer.document["rows"] == answer.document["outcomes"]["served"] > 0
        assert answer.document["statistics"]
    unfinished = command("capture", count=1000)
    collector.publish(collector.topics.leaf("cmd"), encode(unfinished))
    operator.send(command("status"))  # refused; by then the capture waits
    assert agent.terminate() == 0
    collector.wait_for(
        lambda _: any("The agent ended" in a.message for a in operator.heard(unfinished)), "end"
    )


def test_restart_of_a_model_and_of_the_agent_each_happens_once(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    at_plant: list[str],
    operator: Operator,
):
    agent = start(start_agent, config(tmp_path, "restart"), collector, at_plant)
    (worker,) = agent.workers()
    of_model = command("restart", model="tiny")
    assert operator.send(of_model)[0].document["artifact"] == "onnx-fp32"
    (fresh,) = agent.workers()
    assert fresh != worker
    assert operator.send(of_model)[0].outcome == "repeated"
    assert agent.workers() == [fresh]

    of_agent = command("restart")
    boot = collector.statuses[-1][0].boot
    assert operator.send(of_agent)[0].outcome == "done"
    collector.wait_for(
        lambda c: c.statuses[-1][0].online and c.statuses[-1][0].boot != boot, "boot"
    )
    agent.wait_for(" ready ", count=2)
    assert agent.process.poll() is None  # the same process, for whoever looks after it
    boot = collector.statuses[-1][0].boot
    assert operator.send(of_agent)[0].outcome == "repeated"
    assert collector.statuses[-1][0].boot == boot
    assert agent.terminate() == 0
