"""As many programs as there is room for are on their way to the agent; a pass is never lost."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import PATIENCE_S, AgentProcess, StartAgent, frame
from support.bundles import sleeper_bundle

import edgeml
from edgeml.device_agent.local.call_error import CallError
from edgeml.device_agent.serving.admission import Admission, Request
from edgeml.device_agent.serving.door import OPEN, WORD, Count, Door, Outside
from edgeml.device_agent.serving.latency import Latency
from edgeml.device_agent.serving.turnstile import LOST_S, Passes, Turnstile


def taken(passes: Passes) -> int:
    """All that there are."""
    count = 0
    while passes.take():
        count += 1
    return count


def test_a_pass_is_for_one_program():
    turnstile = Turnstile()
    one, other = (Passes(turnstile.handle()) for _ in range(2))
    turnstile.let_in(1, now=0.0)
    assert one.take()
    assert not other.take()
    turnstile.let_in(1, now=0.0)
    assert not other.take()
    turnstile.arrived()
    turnstile.let_in(1, now=0.0)
    assert other.take()


def test_where_there_is_less_room_passes_are_taken_back():
    turnstile = Turnstile()
    program = Passes(turnstile.handle())
    turnstile.let_in(5, now=0.0)
    assert program.take()
    turnstile.let_in(3, now=0.0)
    assert taken(program) == 2
    turnstile.let_in(1, now=0.0)  # all three are on the way: none can be
    for _ in range(3):
        turnstile.arrived()
        turnstile.let_in(1, now=0.0)
    assert taken(program) == 1


def test_no_program_can_make_others_wait_or_put_passes_in_with_what_it_was_given():
    turnstile = Turnstile()
    handle = turnstile.handle()
    os.set_blocking(handle, True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(handle, b"pass")
    assert not Passes(turnstile.handle()).take()
    turnstile.let_in(2, now=0.0)
    turnstile.let_in(1, now=0.0)
    os.close(handle)


def test_what_a_program_of_the_agents_own_user_puts_in_is_taken_out_at_the_next_look():
    """It may open the pipe anew, as it may do anything to the agent."""
    turnstile = Turnstile()
    program = Passes(turnstile.handle())
    turnstile.let_in(2, now=0.0)
    filling = os.open(f"/proc/self/fd/{turnstile.handle()}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):  # it is full
        while True:
            os.write(filling, bytes(1 << 16))
    os.close(filling)
    turnstile.let_in(2, now=LOST_S)
    assert taken(program) == 2


@pytest.mark.parametrize("gone", [False, True], ids=["stopped", "gone"])
def test_a_lost_pass_comes_back(gone: bool):
    turnstile = Turnstile()
    lost, program = (Passes(turnstile.handle()) for _ in range(2))
    turnstile.let_in(1, now=0.0)
    assert lost.take()
    assert turnstile.let_in(1, now=10.0) == 10.0 + LOST_S
    assert not program.take()
    if gone:
        turnstile.suspect()
    # Nobody extends the time by being let in or refused meanwhile.
    until = turnstile.let_in(1, now=10.0 + LOST_S * 0.9)
    assert until == (10.0 + LOST_S * 1.9 if gone else 10.0 + LOST_S)
    assert program.take() == gone
    if not gone:
        turnstile.let_in(1, now=10.0 + LOST_S)
        assert program.take()


def test_who_comes_after_it_was_written_off_leaves_no_pass_too_many():
    turnstile = Turnstile()
    late, program = (Passes(turnstile.handle()) for _ in range(2))
    turnstile.let_in(1, now=0.0)
    assert late.take()
    turnstile.suspect()
    turnstile.let_in(1, now=0.0)
    turnstile.arrived()
    turnstile.let_in(1, now=0.0)
    turnstile.let_in(1, now=LOST_S)
    assert taken(program) == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.just(0.0)),
        st.tuples(st.sampled_from(["arrive", "lose"]), st.integers(0, 9)),
        st.tuples(st.just("show"), st.integers(1, 6)),
        st.tuples(st.just("wait"), st.floats(0.0, LOST_S)),
    ),
    max_size=80,
)


@given(STEPS)
def test_never_more_are_on_their_way_than_there_is_room_for(steps):
    """But for those whom the agent may take for lost: somebody was on the way all the time."""
    turnstile = Turnstile()
    program = Passes(turnstile.handle())
    now, room, way, lost, until = 0.0, 1, 0, 0, 0.0
    since, trusted = 0.0, True  # from when on somebody has been on the way
    for what, number in (*steps, ("lose", 0), ("end", 0)):
        if what == "take" and program.take():
            since = since if way + lost else now
            way += 1
        elif what == "arrive" and way:
            way -= 1
            turnstile.arrived()
        elif what == "lose" and way:
            way, lost = way - 1, lost + 1
        elif what == "wait":
            now += number
        elif what == "show":
            room = number
        trusted &= not (way + lost and now >= since + LOST_S)
        if what in {"arrive", "show"}:
            most = max(room, way + lost)
            until = turnstile.let_in(room, now=now)
            assert until <= now + LOST_S
            there = taken(program)
            if trusted:
                assert there + way + lost == most
            for _ in range(there):  # they go in and are told to turn back
                turnstile.arrived()
            assert turnstile.let_in(room, now=now) == until
    # Whatever was lost, all the room there is is there in the end.
    for _ in range(3):
        now += LOST_S
        turnstile.let_in(room, now=now)
    assert taken(program) == room


STATES = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.floats(0.0, 0.2)),
        st.tuples(st.sampled_from(["take", "finish", "close", "open"]), st.just(0.0)),
        st.tuples(st.just("wait"), st.floats(0.0, 0.1)),
    ),
    max_size=40,
)


@given(STATES, st.integers(0, 4), st.floats(0.001, 0.1), st.floats(0.01, 0.4), st.floats(0.0, 9.0))
def test_there_is_room_for_as_many_as_are_taken_in(steps, capacity, service_s, allowed_s, later):
    """Now; of an idle model, whenever they come."""
    latency = Latency()
    latency.add(service_s)
    queue = Admission(capacity=capacity, latency=latency, probe_s=1.0)
    now = 0.0
    for key, (what, number) in enumerate(steps):
        if what == "offer":
            queue.offer(Request(key, now + min(number, allowed_s), ""), now=now)
        elif what == "take" and not queue.running:
            queue.take(now=now)
        elif what == "finish" and queue.running:
            queue.finish("served", took_s=service_s * (1 + key % 3 / 3))
        elif what == "close":
            queue.close("test")
        elif what == "open":
            queue.open()
        elif what == "wait":
            now += number
    room = queue.room(allowed_s, now=now, most=20)
    if room == 20:  # it is closed
        return

    def taken_in(moment: float, spare_s: float = 0.0) -> int:
        """Of twenty who come at once."""
        tried, count = copy.deepcopy(queue), 0
        for key in range(1000, 1020):
            each = Request(key, moment + allowed_s + spare_s, "")
            count += tried.start(each, now=moment) or not tried.offer(each, now=moment)
        return count

    rounding_s = 1e-9
    assert max(1, taken_in(now, -rounding_s)) <= room <= max(1, taken_in(now, rounding_s))
    if queue.idle:
        assert taken_in(now + later, -rounding_s) <= room  # time alone makes no room there


def test_a_pass_is_wanted_where_more_programs_look_than_there_is_room_for():
    door, words = Door(), [memoryview(bytearray(WORD)) for _ in range(2)]
    assert door.handle is not None
    program = Outside(door.handle, words[0], Passes(door._turnstile.handle()))
    for word in words:
        door.counts(Count(word))
    door.show(OPEN, 2, now=0.0)
    assert program.passes_until == OPEN
    assert not program.take_pass()
    door.show(OPEN, 1, now=0.0)
    assert program.passes_until == LOST_S
    assert program.take_pass()
    without = Outside(door.handle, words[1])
    assert without.passes_until == OPEN  # it was given none, and asks
    assert not without.take_pass()


@pytest.fixture
def narrow(start_agent: StartAgent, tmp_path: Path) -> AgentProcess:
    """An agent that has room for one at a time."""
    config = tmp_path / "agent.toml"
    bundle = sleeper_bundle(tmp_path)
    config.write_text(f'[[model]]\nbundle = "{bundle}"\ndeadline_ms = 60000\nqueue = 0\n')
    return start_agent("--config", config, sleeper=True).ready()


ON_ITS_WAY = """
import sys; sys.path = sys.argv[2:]
from edgeml.device_agent.local.call_error import CallError
from edgeml.device_agent.local.socket_client import SocketWire
from edgeml.device_agent.serving.door import OPEN
from pathlib import Path
from support.agents import frame

wire = SocketWire(Path(sys.argv[1]), timeout_s=60)
wire.places("sleeper")["image"][...] = frame(0.5)
model = wire._open("sleeper")
assert model.door.passes_until != OPEN
while not model.door.take_pass():
    pass
print("has a pass", flush=True)
sys.stdin.readline()
try:
    wire._ask(model.run("", passed=True), object)
    print("was served", flush=True)
except CallError as error:
    print(error, flush=True)
"""


@contextlib.contextmanager
def on_its_way(agent: AgentProcess) -> Generator[subprocess.Popen[str]]:
    """A program that has a pass and comes when it is given a line."""
    command = [sys.executable, "-c", ON_ITS_WAY, str(agent.socket), *sys.path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "has a pass\n"
            yield program
        finally:
            program.kill()


def told(client: edgeml.Client) -> str:
    """Why it was not served; empty where it was."""
    place = client.places()["image"]
    place[...] = frame(0.5)
    try:
        client.infer({"image": place})
    except CallError as error:
        return str(error)
    return ""


def served_at_last(client: edgeml.Client) -> int:
    """How often it was turned back before."""
    patience, refused = time.monotonic() + PATIENCE_S, 0
    while refusal := told(client):
        assert "shed: " in refusal
        assert time.monotonic() < patience
        refused += 1
    return refused


def assert_counted(agent: AgentProcess, *, served: int, shed: int) -> None:
    """An answer goes out before it is counted."""
    wanted, found = Counter(served=served, shed=shed), Counter[str]()
    patience = time.monotonic() + PATIENCE_S
    with edgeml.Client(agent.socket) as client:
        while found != wanted and time.monotonic() < patience:
            found = Counter(client.get("/edgeml/v1/status")["models"][0]["outcomes"])
    assert found == wanted


def test_a_program_that_is_killed_on_its_way_keeps_nobody_out(narrow: AgentProcess):
    with edgeml.Client(narrow.socket, "sleeper") as client:
        client.places()
        refused = 0
        for _ in range(3):
            with on_its_way(narrow) as program:
                program.kill()
                program.wait()
                refused += served_at_last(client)
    assert_counted(narrow, served=3, shed=refused)


def test_a_program_that_stops_on_its_way_keeps_nobody_out_and_may_come_late(narrow: AgentProcess):
    with edgeml.Client(narrow.socket, "sleeper") as client:
        client.places()
        with on_its_way(narrow) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            refused = served_at_last(client)
            program.stdin.write("\n")
            program.stdin.flush()
            answer = program.stdout.readline()
            # What was served before may not have been seen to yet.
            served = answer == "was served\n"
            assert served or "shed: " in answer
        refused += served_at_last(client)
    assert_counted(narrow, served=2 + served, shed=refused + (not served))


def test_each_request_of_programs_that_push_is_counted_once(narrow: AgentProcess):
    answers: list[str] = []

    def push() -> None:
        with edgeml.Client(narrow.socket, "sleeper") as client:
            answers.extend(told(client) for _ in range(100))

    programs = [threading.Thread(target=push) for _ in range(8)]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    assert len(answers) == 800
    shed = [answer for answer in answers if answer]
    assert all("shed: " in answer for answer in shed)
    assert_counted(narrow, served=800 - len(shed), shed=len(shed))
