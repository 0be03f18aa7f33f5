"""Programs see at the model's door that they would be refused: nobody has to be awake for that."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from support.agents import PATIENCE_S, AgentProcess, StartAgent, frame
from support.bundles import sleeper_bundle
from support.services import serving
from support.sleeper.sleeper_runtime import HANG

import edgeml
from edgeml.device_agent.local import socket_wire as wire
from edgeml.device_agent.local.call_error import CallError
from edgeml.device_agent.local.routes import Routes
from edgeml.device_agent.local.socket_address import connected
from edgeml.device_agent.local.socket_api import SocketApi
from edgeml.device_agent.local.socket_client import SocketWire
from edgeml.device_agent.serving.door import OPEN, WORD, Count, Door, Outside
from edgeml.device_agent.serving.doorkeeper import Doorkeeper

AT_THE_DOOR = "leaves no room for it"


def test_what_the_agent_says_programs_see():
    door = Door()
    assert door.handle is not None
    outside = Outside(door.handle, memoryview(bytearray(WORD)))
    assert outside.shut_until == OPEN
    door.shut(12.5)
    assert outside.shut_until == 12.5
    door.shut(OPEN)
    assert outside.shut_until == OPEN


def test_no_program_can_shut_it_for_others():
    door = Door()
    assert door.handle is not None
    with pytest.raises(PermissionError):
        mmap.mmap(door.handle, mmap.PAGESIZE)
    with pytest.raises(PermissionError):
        os.pwrite(door.handle, bytes(8), 0)
    with pytest.raises(PermissionError):
        os.ftruncate(door.handle, 0)
    again = os.open(f"/proc/self/fd/{door.handle}", os.O_RDWR)
    with pytest.raises(PermissionError):
        mmap.mmap(again, mmap.PAGESIZE)
    os.close(again)


def test_programs_count_themselves():
    door, words = Door(), [memoryview(bytearray(WORD)) for _ in range(2)]
    assert door.handle is not None
    counts = [Count(word) for word in words]
    programs = [Outside(door.handle, word) for word in words]
    for count in counts:
        door.counts(count)
    for program in (*programs, *programs, programs[0]):
        program.turn_back()
    assert door.turned_back() == 5
    assert door.turned_back() == 0
    programs[1].turn_back()
    assert door.forget(counts[1]) == 1
    programs[0].turn_back()
    assert door.turned_back() == 1


@pytest.mark.parametrize("written", [10**15, 2**64 - 1])
def test_what_a_program_makes_up_is_bounded_by_time(written: int):
    door, word = Door(), memoryview(bytearray(WORD))
    began = time.monotonic()
    door.counts(Count(word))
    word.cast("Q")[0] = written
    assert door.turned_back() <= (time.monotonic() - began) * 1e6


@pytest.fixture
def full(start_agent: StartAgent, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent whose only model is at work, its queue full, for longer than a test takes."""
    config = tmp_path / "agent.toml"
    bundle = sleeper_bundle(tmp_path)
    config.write_text(f'[[model]]\nbundle = "{bundle}"\ndeadline_ms = 600000\nqueue = 1\n')
    agent = start_agent("--config", config, sleeper=True).ready()
    with calling(agent, HANG):
        agent.wait_for_nap()
        with calling(agent, 0.5):
            with edgeml.Client(agent.socket) as client:
                while client.get("/edgeml/v1/status")["models"][0]["waiting"] < 1:
                    pass
            yield agent
            agent.process.kill()


def told(client: edgeml.Client, image: np.ndarray, *, stream: str = "") -> CallError:
    """What a program hears that is not served."""
    with pytest.raises(CallError) as caught:
        client.infer({"image": image}, stream=stream)
    return caught.value


@contextlib.contextmanager
def calling(agent: AgentProcess, command: float) -> Iterator[None]:
    """A program that waits for its answer, and gets none."""

    def call() -> None:
        with edgeml.Client(agent.socket, "sleeper", timeout_s=600) as client:
            told(client, frame(command))

    program = threading.Thread(target=call)
    program.start()
    yield
    program.join()


@contextlib.contextmanager
def asleep(agent: AgentProcess) -> Iterator[None]:
    """Nothing of the agent runs."""
    agent.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, agent.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        agent.process.send_signal(signal.SIGCONT)


def outcomes(agent: AgentProcess) -> dict[str, int]:
    with edgeml.Client(agent.socket) as client:
        return client.get("/edgeml/v1/status")["models"][0]["outcomes"]


def test_a_refusal_needs_nobody_awake_and_is_counted(full: AgentProcess):
    with edgeml.Client(full.socket, "sleeper") as client:
        place = client.places()["image"]
        with asleep(full):
            for _ in range(3):
                refusal = told(client, place)
                assert AT_THE_DOOR in str(refusal)
                assert refusal.status == 503
        assert outcomes(full)["shed"] == 3
        with edgeml.Client(full.socket, "sleeper") as other:
            told(other, frame(0.5))
        assert outcomes(full)["shed"] == 4  # whether it is still there or not
        told(client, place)
        assert outcomes(full)["shed"] == 5


@pytest.mark.parametrize("stream", ["", "north"], ids=["at the door", "by the agent"])
def test_a_refusal_leaves_the_program_no_garbage_to_collect(full: AgentProcess, stream: str):
    with edgeml.Client(full.socket, "sleeper") as client:
        place = client.places()["image"]
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                with contextlib.suppress(CallError):
                    client.infer({"image": place}, stream=stream)
            assert gc.collect() == 0
        finally:
            gc.enable()
    assert outcomes(full)["shed"] == 20


def test_who_comes_with_a_pass_too_late_leaves_it_for_another(full: AgentProcess):
    program = SocketWire(full.socket, timeout_s=60)
    program.places("sleeper")["image"][...] = frame(0.5)
    opened = program._open("sleeper")
    assert opened.door is not None
    for _ in range(3):
        assert opened.door.take_pass()
        assert not opened.door.take_pass()
        with pytest.raises(CallError, match="leave no room for it"):
            program._ask(opened.run("", passed=True), wire.Done)
    assert outcomes(full)["shed"] == 3
    program.close()


def test_of_a_camera_the_newest_frame_takes_the_place_of_another_so_it_asks(full: AgentProcess):
    with edgeml.Client(full.socket, "sleeper") as client:
        assert "1 requests wait already" in str(told(client, frame(0.5), stream="north"))


def test_input_that_does_not_fit_is_told_so_at_a_shut_door(full: AgentProcess):
    with edgeml.Client(full.socket, "sleeper") as client:
        refusal = told(client, frame(0.5)[..., :4])
    assert "has shape" in str(refusal)
    assert refusal.status == 400


def test_a_killed_agent_is_told_from_one_that_refuses(full: AgentProcess):
    with edgeml.Client(full.socket, "sleeper") as client:
        place = client.places()["image"]
        assert AT_THE_DOOR in str(told(client, place))
        full.process.kill()
        full.end()
        patience = time.monotonic() + PATIENCE_S
        while told(client, place).status == 503:  # it has just seen that the agent was there
            assert time.monotonic() < patience
        assert "did not answer" in str(told(client, place))


def test_a_program_whose_clock_is_another_asks(full: AgentProcess):
    """In a time namespace of its own: by its clock the door would be shut for a thousand seconds
    more than it is."""
    code = (
        "import sys; sys.path = sys.argv[2:]; import edgeml\n"
        "from support.agents import frame\n"
        "with edgeml.Client(sys.argv[1], 'sleeper') as client:\n"
        "    try: client.infer({'image': frame(0.5)})\n"
        "    except edgeml.EdgemlError as error: print(error)\n"
    )
    apart = ["unshare", "--user", "--time", "--monotonic", "-1000", "--fork"]
    command = [sys.executable, "-c", code, str(full.socket), *sys.path]
    done = subprocess.run([*apart, *command], check=False, capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert "requests wait already" in done.stdout, done.stderr
    here = subprocess.run(command, check=True, capture_output=True, text=True)
    assert AT_THE_DOOR in here.stdout


def test_the_door_opens_when_what_ran_is_over(start_agent: StartAgent, tmp_path: Path):
    config = tmp_path / "agent.toml"
    bundle = sleeper_bundle(tmp_path)
    config.write_text(f'[[model]]\nbundle = "{bundle}"\ndeadline_ms = 2000\nqueue = 0\n')
    agent = start_agent("--config", config, sleeper=True).ready()
    with edgeml.Client(agent.socket, "sleeper") as client, calling(agent, HANG):
        place = client.places()["image"]
        place[...] = frame(0.5)
        agent.wait_for_nap()
        assert AT_THE_DOOR in str(told(client, place))
        # Late at its deadline, then its worker is replaced.
        agent.wait_for(" replaced ")
        assert client.infer({"image": place}).keys() == {"scores"}


def test_a_program_of_before_there_were_doors(full: AgentProcess):
    """It takes one descriptor, and asks; the agent looks at the door before it looks at more."""
    before = outcomes(full)["shed"]
    with connected(full.socket, 30) as link:
        link.send(wire.encode(wire.Open("sleeper")))
        message, handles, _, _ = socket.recv_fds(link, wire.MAX_MESSAGE, 1)
        opened = wire.decode_answer(message)
        assert isinstance(opened, wire.Opened)
        assert opened.now <= time.monotonic()
        link.send(wire.encode(wire.Run("sleeper")))
        answer = wire.decode_answer(link.recv(wire.MAX_MESSAGE))
        assert isinstance(answer, wire.Refused)
        assert answer.status == 503
        assert "requests wait already that leave no room for it, for up to" in answer.message
        for handle in handles:
            os.close(handle)
    assert outcomes(full)["shed"] == before + 1


def test_the_agents_end_waits_for_what_a_program_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The last window is closed after that."""
    leaving, may_leave = threading.Event(), threading.Event()
    order: list[str] = []

    def leaves(*_: object) -> None:
        leaving.set()
        may_leave.wait()
        order.append("counted")

    monkeypatch.setattr(Doorkeeper, "leaves", leaves)
    with serving(sleeper_bundle(tmp_path), tmp_path) as desk:
        routes = Routes(lambda: {"sleeper": desk.service}, Mock(), Mock())
        api = SocketApi(tmp_path / "agent.sock", routes)
        api.start()

        def stop() -> None:
            api.stop()
            order.append("ended")

        with edgeml.Client(api.path, "sleeper") as client:
            client.places()
            ender = threading.Thread(target=stop)
            ender.start()
            assert leaving.wait(PATIENCE_S)
            ender.join(0.3)  # it would have ended by now
            may_leave.set()
            ender.join()
    assert order == ["counted", "ended"]


def test_who_turned_back_from_a_version_is_in_its_windows(tmp_path: Path):
    one, two = (sleeper_bundle(tmp_path, version=version) for version in ("1.0", "2.0"))
    with serving(one, tmp_path) as desk:
        word = memoryview(bytearray(WORD))
        door = desk.service.door
        door.counts(Count(word))
        assert door.handle is not None
        program = Outside(door.handle, word)
        for _ in range(2):
            program.turn_back()
        desk.adopt(two)
        program.turn_back()
        windows = desk.close_windows()
    assert [(w.version, w.outcomes["shed"]) for w in windows] == [("1.0", 2), ("2.0", 1)]
