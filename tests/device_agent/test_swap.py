"""One change puts any worker in the place of another, between two requests: versions, standbys,
workers that creep. None of it drops a request, and windows keep the variants apart."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.agents import frame, is_gone
from support.bundles import Budgets, sleeper_bundle, tiny_bundle
from support.processes import children
from support.services import Desk, scores_of, serving
from support.sleeper.sleeper_runtime import CRASH, HANG, LEAK
from support.weights import images, scores

from edgeml.bundle import open_bundle
from edgeml.device_agent.serving.creep import LEAST_BYTES, Creep
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.errors import AgentError


class Hammer:
    """Callers that never pause, and what became of each call."""

    def __init__(self, desk: Desk, callers: int = 3) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong = 0
        self._desk = desk
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        sample = images(1, seed=3)
        expected = scores(sample)
        while not self._stop.is_set():
            ticket = self._desk.service.submit({"image": sample})
            outcome = ticket.wait()
            self.outcomes[f"{outcome}: {ticket.message}" if ticket.message else outcome] += 1
            if outcome == "served" and not np.allclose(ticket.outputs["scores"], expected, 1e-3):
                self.wrong += 1


def worker_of(desk: Desk) -> int:
    runner = desk.service._intake.runner
    assert runner is not None
    return runner.worker.pid


def test_a_swap_under_load_drops_no_request(tmp_path: Path):
    first = tiny_bundle(tmp_path, targets=("onnx",))
    second = tiny_bundle(tmp_path, targets=("tflite",), version="2.0")
    with serving(first, tmp_path, deadline_ms=60_000) as desk:
        before = worker_of(desk)
        with Hammer(desk) as hammer:
            adopted = desk.adopt(second)
            back = desk.adopt(first)
        assert (adopted.version, adopted.artifact, adopted.beside) == ("2.0", "tflite-fp32", True)
        assert (back.version, back.artifact) == ("1.0", "onnx-fp32")
        assert list(hammer.outcomes) == ["served"]
        assert not hammer.wrong
        assert is_gone(before)
        windows = desk.close_windows()
        total = sum(hammer.outcomes.values())
    assert [(w.version, w.artifact) for w in windows] == [
        ("1.0", "onnx-fp32"),
        ("2.0", "tflite-fp32"),
        ("1.0", "onnx-fp32"),
    ]
    assert sum(w.rows for w in windows) == sum(w.outcomes["served"] for w in windows) == total


def test_where_both_do_not_fit_the_old_version_is_unloaded_first(tmp_path: Path):
    first, second = (sleeper_bundle(tmp_path, version=v) for v in ("1.0", "2.0"))
    with serving(first, tmp_path, room_mb=60, deadline_ms=60_000) as desk:
        with Hammer(desk) as hammer:
            adopted = desk.adopt(second)
        assert (adopted.version, adopted.beside) == ("2.0", False)
        assert list(hammer.outcomes) == ["served"]  # who could wait did


@pytest.mark.parametrize(("room_mb", "beside"), [(None, True), (60, False)])
def test_old_and_new_are_there_at_once_only_where_both_fit(
    tmp_path: Path, room_mb: float | None, beside: bool
):
    """Seen by the processes that there are while the new version loads."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    first = sleeper_bundle(tmp_path)
    second = sleeper_bundle(tmp_path, version="2.0", options={"gate": str(gate)})
    others = set(children(os.getpid()))
    with serving(first, tmp_path, room_mb=room_mb, deadline_ms=60_000) as desk:
        old = worker_of(desk)
        change = threading.Thread(target=desk.adopt, args=(second,))
        change.start()
        opened = gate.open("wb")  # waits for the new version, which loads until it is closed
        there = {pid for pid in set(children(os.getpid())) - others if not is_gone(pid)}
        assert (old in there) == beside
        assert len(there) == 1 + beside
        opened.close()
        change.join()
        assert desk.service.state.version == "2.0"
        assert is_gone(old)


def test_a_version_that_does_not_prove_itself_leaves_the_old_one_serving(tmp_path: Path):
    good = sleeper_bundle(tmp_path)
    bad = sleeper_bundle(tmp_path, version="2.0", wrong_golden=True)
    with serving(good, tmp_path, deadline_ms=60_000) as desk:
        before = worker_of(desk)
        with Hammer(desk) as hammer, pytest.raises(AgentError, match="golden vectors"):
            desk.adopt(bad)
        assert list(hammer.outcomes) == ["served"]
        assert worker_of(desk) == before
        assert desk.service.state.version == "1.0"


def test_and_it_is_loaded_again_where_it_had_to_go(tmp_path: Path):
    good = sleeper_bundle(tmp_path)
    bad = sleeper_bundle(tmp_path, version="2.0", options={"load": "crash"})
    with serving(good, tmp_path, room_mb=60, deadline_ms=60_000) as desk:
        with Hammer(desk) as hammer, pytest.raises(AgentError, match="SIGSEGV"):
            desk.adopt(bad)
        assert list(hammer.outcomes) == ["served"]
        assert desk.service.state.version == "1.0"
        scores_of(desk.call())


def test_a_version_that_is_too_slow_for_its_deadline_is_refused(tmp_path: Path):
    first = sleeper_bundle(tmp_path)
    slow = sleeper_bundle(
        tmp_path, version="2.0", options={"slow_s": "0.3"}, budgets=Budgets(deadline_ms=200)
    )
    with serving(first, tmp_path) as desk:
        with pytest.raises(AgentError, match="99th percentile on this device is .* is 200 ms"):
            desk.adopt(slow)
        assert desk.service.state.version == "1.0"


def test_another_model_cannot_take_over(tmp_path: Path):
    other = sleeper_bundle(tmp_path, name="other")
    with (
        serving(sleeper_bundle(tmp_path), tmp_path) as desk,
        pytest.raises(AgentError, match="holds the model 'other'. Expected 'sleeper'"),
    ):
        desk.adopt(other)


def test_a_worker_killed_for_its_deadline_is_not_taken_for_one_that_died(tmp_path: Path):
    """The keeper looks just after the kill, before who ran the request has told of it."""
    with serving(sleeper_bundle(tmp_path), tmp_path, deadline_ms=200, grace_ms=0) as desk:
        keeper, intake = desk.service._keeper, desk.service._intake
        runner = intake.runner
        assert runner is not None
        settle = runner.worker.settle

        def settle_and_have_the_keeper_look(grace_s: float) -> bool:
            ended = settle(grace_s)
            desk.wait_until(lambda: runner.watched.dead, "end of the worker")
            for _ in range(2):  # the second begins when the first has ended
                keeper.wake()
                desk.wait_until(lambda: not keeper._bell.is_set() or intake.runner is None, "look")
            return ended

        runner.worker.settle = settle_and_have_the_keeper_look
        assert desk.call(HANG).outcome == "late"
        desk.wait_for("replaced")
        assert [kind for kind, _, _ in desk.events] == ["deadline-missed", "replaced"]


def test_a_guest_that_is_killed_for_its_deadline_is_told_as_late(tmp_path: Path):
    """Although the watch may see that it has ended before whoever broke it off has told."""
    one, two = (sleeper_bundle(tmp_path, version=version) for version in ("1.0", "2.0"))
    reasons: list[str] = []
    with serving(one, tmp_path, deadline_ms=200, grace_ms=0) as desk:
        desk.service.changes.accompany(open_bundle(two), mode="split", share=1, lost=reasons.append)
        guests = desk.service._guests
        assert guests._guest is not None
        runner = guests._guest.runner
        settle = runner.worker.settle

        def settle_and_have_the_watch_tell(grace_s: float) -> bool:
            ended = settle(grace_s)
            desk.wait_until(lambda: runner.watched.dead, "end of the worker")
            guests.look()
            return ended

        runner.worker.settle = settle_and_have_the_watch_tell
        assert desk.call(HANG).outcome == "late"
        desk.wait_until(lambda: reasons, "word of it")
        assert reasons[0].startswith("No answer within")
        desk.service.changes.dismiss()
        scores_of(desk.call())


def test_a_guest_that_dies_with_its_answer_given_is_seen_off(tmp_path: Path):
    """The watch looked while the answer was on its way, and looks no more."""
    one, two = (sleeper_bundle(tmp_path, version=version) for version in ("1.0", "2.0"))
    reasons: list[str] = []
    with serving(one, tmp_path) as desk:
        desk.service.changes.accompany(open_bundle(two), mode="split", share=1, lost=reasons.append)
        guest = desk.service._guests._guest
        assert guest is not None

        def die(ticket: Ticket) -> None:
            os.kill(guest.runner.worker.pid, signal.SIGKILL)
            desk.wait_until(lambda: guest.runner.watched.dead, "end of the worker")
            desk.service._gone()

        scores_of(desk.call(done=die))
        desk.wait_until(lambda: reasons, "word of it")
        assert "died" in reasons[0]
        scores_of(desk.call())  # by the active version


def test_a_version_takes_the_place_of_one_that_was_given_up(tmp_path: Path):
    first, second = (sleeper_bundle(tmp_path, version=v) for v in ("1.0", "2.0"))
    with serving(first, tmp_path, restarts=0) as desk:
        desk.call(CRASH)
        desk.wait_for("given-up")
        assert desk.call().outcome == "shed"
        desk.adopt(second)
        assert desk.service.state.phase == "active"
        np.testing.assert_allclose(scores_of(desk.call()), scores(frame(0.5)), atol=1e-5)


@pytest.mark.parametrize("room_mb", [None, 60])
def test_a_version_takes_over_while_a_worker_is_being_replaced(
    tmp_path: Path, room_mb: float | None
):
    first, second = (sleeper_bundle(tmp_path, version=v) for v in ("1.0", "2.0"))
    others = set(children(os.getpid()))
    with serving(first, tmp_path, room_mb=room_mb, deadline_ms=60_000) as desk:
        desk.call(CRASH)
        adopted = desk.adopt(second)
        assert (adopted.version, desk.service.state.version) == ("2.0", "2.0")
        scores_of(desk.call())
        (worker,) = set(children(os.getpid())) - others  # nothing of the first is left
        assert worker == worker_of(desk)


def test_a_warm_standby_takes_over(tmp_path: Path):
    with serving(
        sleeper_bundle(tmp_path), tmp_path, standby=True, deadline_ms=300, grace_ms=10
    ) as desk:
        desk.wait_until(lambda: desk.service.snapshot().standby, "a standby")
        warm = desk.service._keeper.standby.runner
        assert warm is not None
        assert desk.call(HANG).outcome == "late"
        details = desk.wait_for("replaced")
        assert details["standby"] == 1
        assert details["start_ms"]  # what it took when it was started, beforehand
        assert worker_of(desk) == warm.worker.pid
        scores_of(desk.call())


def test_there_is_no_standby_where_there_is_no_room(tmp_path: Path):
    bundle = sleeper_bundle(tmp_path, options={"megabytes": "50"})
    with serving(bundle, tmp_path, standby=True, room_mb=120) as desk:
        desk.wait_until(lambda: desk.service._keeper.standby.next_try, "try")
        desk.call(CRASH)
        assert desk.wait_for("replaced")["standby"] == 0
        assert not desk.service.snapshot().standby


def test_a_standby_that_dies_is_not_what_takes_over(tmp_path: Path):
    with serving(sleeper_bundle(tmp_path), tmp_path, standby=True) as desk:
        desk.wait_until(lambda: desk.service.snapshot().standby, "a standby")
        warm = desk.service._keeper.standby.runner
        assert warm is not None
        os.kill(warm.worker.pid, signal.SIGKILL)
        desk.wait_until(lambda: not desk.service.snapshot().standby, "its end")
        desk.call(CRASH)
        assert desk.wait_for("replaced")["standby"] == 0
        scores_of(desk.call())


def test_the_start_of_a_replacement_is_measured(tmp_path: Path):
    with serving(sleeper_bundle(tmp_path), tmp_path) as desk:
        first = desk.service.snapshot().last_start_ms
        desk.call(CRASH)
        details = desk.wait_for("replaced")
        snapshot = desk.service.snapshot()
        assert snapshot.restarts == 1
        assert snapshot.last_start_ms == pytest.approx(details["start_ms"], abs=0.1)
        assert snapshot.last_start_ms != first


@pytest.mark.parametrize(
    ("standby", "room_mb"),
    [(False, None), (True, None), (False, 180)],
    ids=["beside it", "by a standby", "in its place"],
)
def test_a_worker_that_creeps_is_replaced_before_its_limit(
    tmp_path: Path, standby: bool, room_mb: float | None
):
    """With requests that always wait, so that there is no pause for it."""
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(memory_mb=200))
    with serving(bundle, tmp_path, deadline_ms=60_000, standby=standby, room_mb=room_mb) as desk:
        desk.service._keeper._creep = Creep(200 * 10**6, 50 * 10**6, now=0, rest_s=0)
        if standby:
            desk.wait_until(lambda: desk.service.snapshot().standby, "a standby")
        leaks, before = 0, worker_of(desk)
        runner = desk.service._intake.runner
        while runner.worker.resident_bytes() < 130 * 10**6:  # what is never due yet
            assert desk.call(LEAK).outcome == "served"
            leaks += 1
        with Hammer(desk) as hammer:
            while not any(kind == "memory-creep" for kind, *_ in desk.events):
                assert desk.call(LEAK).outcome == "served"
                # A leak a look: the test is of what is done, not of how fast.
                looked = desk.service._keeper._look_again
                desk.wait_until(
                    lambda seen=looked: desk.service._keeper._look_again != seen, "another look"
                )
                leaks += 1
                assert leaks < 200
            details = desk.wait_for("memory-creep")
            scores_of(desk.call())
        assert 150 <= float(details["resident_mb"]) < 200
        assert worker_of(desk) != before
        assert {kind for kind, *_ in desk.events} == {"memory-creep"}  # nothing was killed
        assert list(hammer.outcomes) == ["served"]
        assert not hammer.wrong
        found = {name: n for name, n in desk.service.snapshot().outcomes.items() if n}
        assert found == {"served": hammer.outcomes.total() + leaks + 1}


def test_a_worker_that_is_near_its_limit_from_the_start_does_not_creep():
    creep = Creep(100_000_000, 95_000_000, now=0, rest_s=10)
    assert not creep.is_due(98_000_000, now=20)
    assert creep.is_due(95_000_000 + LEAST_BYTES, now=20)


def test_one_that_creeps_on_cannot_wait_for_a_pause():
    creep = Creep(100_000_000, 20_000_000, now=0, rest_s=10)
    assert creep.is_due(76_000_000, now=20)
    assert not creep.is_pressing(87_000_000)
    assert creep.is_pressing(88_000_000)


def test_what_grows_too_fast_to_be_replaced_is_for_the_limit():
    creep = Creep(100_000_000, 50_000_000, now=0, rest_s=10)
    assert not creep.is_due(99_000_000, now=9)
    assert creep.is_due(85_000_000, now=11)
    assert not Creep(None, 50_000_000, now=0, rest_s=0).is_due(10**12, now=1)


def test_a_worker_that_crashes_at_its_thousandth_call_costs_one_request(tmp_path: Path):
    bundle = sleeper_bundle(tmp_path, options={"crash_at": "1000"})
    with serving(bundle, tmp_path, deadline_ms=60_000) as desk:
        outcomes = Counter(desk.call().outcome for _ in range(1000))
        assert outcomes == {"served": 999, "failed": 1}
        assert desk.wait_for("worker-died")["recent"] == 1
