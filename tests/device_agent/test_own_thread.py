"""A request with nothing before it is served on its caller's thread, and answered before anything
is counted; what a program does to its memory meanwhile is not what is counted."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from support.agents import PATIENCE_S, StartAgent, frame
from support.bundles import sleeper_bundle, tiny_bundle
from support.services import Desk, scores_of, serving
from support.sleeper.sleeper_runtime import NAP
from support.weights import images, scores

import edgeml
from edgeml.bundle import open_bundle
from edgeml.device_agent.local import socket_wire as wire
from edgeml.device_agent.local.socket_address import connected
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker import ear
from edgeml.device_agent.worker.ear import IN_VAIN, LINK, Bell, Ear
from edgeml.statistics import Baseline, unpack


def test_a_callers_own_thread_serves_it(tmp_path: Path):
    with serving(tiny_bundle(tmp_path), tmp_path) as desk:
        answered: list[int] = []

        def done(_: Ticket) -> None:
            answered.append(threading.get_ident())
            assert not desk.service.snapshot().outcomes["served"]

        one = images(1)
        ticket = desk.service.call({"image": one}, done=done)
        np.testing.assert_allclose(scores_of(ticket), scores(one), atol=1e-5)
        assert answered == [threading.get_ident()]
        assert desk.service.snapshot().outcomes["served"] == 1


def test_one_that_comes_meanwhile_waits_for_the_models_thread(tmp_path: Path):
    with serving(sleeper_bundle(tmp_path), tmp_path) as desk:
        first = threading.Thread(target=desk.service.call, args=({"image": frame(NAP)},))
        first.start()
        desk.wait_until(lambda: desk.service.snapshot().running, "request at work")
        threads: list[int] = []
        second = desk.service.call(
            {"image": frame(0.5)}, done=lambda _: threads.append(threading.get_ident())
        )
        assert second.wait() == "served"
        assert threads
        assert threads != [threading.get_ident()]
        first.join()


def test_while_requests_wait_the_next_has_begun_before_an_answer_goes_out(tmp_path: Path):
    with serving(sleeper_bundle(tmp_path), tmp_path) as desk:
        first = threading.Thread(target=desk.service.call, args=({"image": frame(NAP)},))
        first.start()
        desk.wait_until(lambda: desk.service.snapshot().running, "request at work")
        seen: list[tuple[bool, int, int]] = []

        def done(_: Ticket) -> None:
            now = desk.service.snapshot()
            seen.append((now.running, now.waiting, now.outcomes["served"]))

        waiting = [desk.service.submit({"image": frame(0.5)}, done=done) for _ in range(3)]
        assert [ticket.wait() for ticket in waiting] == ["served"] * 3
        first.join()
        # The last of them has nobody behind it, and runs itself until it is counted.
        assert seen == [(True, 1, 1), (True, 0, 2), (True, 0, 3)]


def test_an_answer_that_its_caller_cannot_take_ends_nobody_else(tmp_path: Path):
    with serving(sleeper_bundle(tmp_path), tmp_path) as desk:
        first = threading.Thread(target=desk.service.call, args=({"image": frame(NAP)},))
        first.start()
        desk.wait_until(lambda: desk.service.snapshot().running, "request at work")

        def done(_: Ticket) -> None:
            raise ZeroDivisionError

        waiting = [desk.service.submit({"image": frame(0.5)}, done=done) for _ in range(3)]
        assert [ticket.wait() for ticket in waiting] == ["served"] * 3
        first.join()
        assert desk.service.submit({"image": frame(0.5)}).wait() == "served"


def test_what_is_counted_is_what_ran(tmp_path: Path):
    """A program fills its memory with the next frame as soon as it has its answer."""
    bundle = tiny_bundle(tmp_path)
    baseline = open_bundle(bundle).baseline()
    assert baseline is not None
    with serving(bundle, tmp_path) as desk:
        memory = np.zeros((1, 1, 8, 8), np.float32)
        for brightness in (0.25, 0.75):
            memory[...] = brightness
            desk.service.call({"image": memory}, borrowed=True, done=lambda _: memory.fill(np.nan))
        assert _broken(desk, baseline) == 0


def _broken(desk: Desk, baseline: Baseline) -> int:
    """Inputs that were counted as no numbers."""
    (window,) = desk.close_windows()
    place = list(baseline.streams).index("input.image.luma_mean")
    grid = baseline.streams["input.image.luma_mean"].grid
    cells = unpack(window.statistics[place], grid).cells
    assert cells.sum() == 2
    return int(cells[grid.nan] + cells[grid.missing])


def test_a_program_that_reads_no_answers_holds_nobody_up(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    with connected(agent.socket, PATIENCE_S) as deaf, edgeml.Client(agent.socket, "tiny") as client:
        deaf.send(wire.encode(wire.Open("tiny")))
        deaf.recv(wire.MAX_MESSAGE)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # it was hung up on
            _ask_without_end(deaf)
        assert client.infer({"image": images(1)}).keys() == {"scores"}


def _ask_without_end(link: socket.socket) -> None:
    while True:
        link.send(wire.encode(wire.Run("tiny")))


@pytest.mark.parametrize("cores", [1, 2])
def test_an_ear_hears_what_comes_awake_or_asleep(monkeypatch: pytest.MonkeyPatch, cores: int):
    monkeypatch.setattr(ear, "CORES", cores)
    bell = Bell()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.closing(bell), here, there:
        heard = Ear(bell.handle, here, awake_s=0.001)
        deaf = Ear(bell.handle, here, messages=False, awake_s=0.001)
        assert heard.hears(0.0) is None
        assert heard.hears(0.01) is None
        assert heard.hears(-1.0) is None  # a deadline that has passed already
        bell.ring(7)
        assert heard.hears(0.0) == 7
        assert heard.hears(0.0) is None, "it is heard once"
        there.send(b"x")
        assert heard.hears(None) == LINK
        assert deaf.hears(0.01) is None, "messages are somebody else's"
        here.recv(1)
        bell.ring(8)
        there.close()
        assert heard.hears(None) == 8, "what was rung before the end"
        assert heard.hears(None) == LINK, "the end is heard, too"
        assert deaf.hears(None) == LINK
    with pytest.raises(OSError, match="Bad file descriptor"):
        bell.ring(9)


def test_an_ear_that_stays_awake_in_vain_sleeps_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ear, "CORES", 2)
    bell, looks = Bell(), [0]

    def count() -> None:
        looks[0] += 1

    def look(timeout_s: float) -> int:
        """How often it looked again before it slept."""
        looks[0] = 0
        heard.hears(timeout_s)
        return looks[0]

    monkeypatch.setattr(ear.os, "sched_yield", count)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.closing(bell), here, there:
        heard = Ear(bell.handle, here, awake_s=0.001)
        assert all(look(0.02) for _ in range(IN_VAIN))
        assert look(0.02) == 0
        bell.ring(7)
        assert look(0.02) == 0  # heard at once, so
        assert look(0.02) > 0
