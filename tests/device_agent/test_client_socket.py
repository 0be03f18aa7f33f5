"""``edgeml.Client``: over the Unix socket with shared memory, and the same over HTTP."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from support.agents import PATIENCE_S, AgentProcess, StartAgent, frame
from support.bundles import sleeper_bundle, tiny_bundle
from support.sleeper.sleeper_runtime import HANG, RAISE
from support.weights import images, scores

import edgeml
from edgeml.bundle import open_bundle
from edgeml.device_agent.config import MAX_CALLERS
from edgeml.device_agent.local import socket_wire as wire
from edgeml.device_agent.local.call_error import CallError
from edgeml.device_agent.local.routes import RefusedCall
from edgeml.device_agent.local.socket_address import connected
from edgeml.device_agent.local.socket_api import _Region, _Room

IMAGE = images(1)[:1]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder = tmp_path_factory.mktemp("socket")
    agent = AgentProcess(
        "--bundle",
        tiny_bundle(folder),
        "--bundle",
        tiny_bundle(folder, name="other"),
        state=folder / "state",
    ).ready()
    yield agent
    assert agent.terminate() == 0


@pytest.fixture(params=["socket", "http"])
def client(agent: AgentProcess, request: pytest.FixtureRequest) -> Iterator[edgeml.Client]:
    address = {"socket": agent.socket, "http": agent.url}[request.param]
    with edgeml.Client(address, "tiny") as client:
        yield client


def test_both_wires_give_what_the_model_computes(client: edgeml.Client):
    frames = images(5, seed=7)
    found = [client.infer({"image": one[np.newaxis]})["scores"] for one in frames]
    np.testing.assert_allclose(np.concatenate(found), scores(frames), atol=1e-5)
    other = client.infer({"image": IMAGE[0]}, model="other")  # without the batch axis
    np.testing.assert_allclose(other["scores"], scores(IMAGE), atol=1e-5)
    assert client.ready()
    assert client.metadata()["inputs"][0]["shape"] == [1, 1, 8, 8]


def test_places_are_filled_and_given_back(client: edgeml.Client):
    places = client.places()
    for one in images(3, seed=5):
        places["image"][...] = one
        found = client.infer(places)["scores"]
        np.testing.assert_allclose(found, scores(one[np.newaxis]), atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "status"),
    [
        ({"picture": IMAGE}, 400),
        ({"image": IMAGE[..., :4]}, 400),
        ({"image": (IMAGE * 255).astype(np.uint8)}, 400),
        ({"image": IMAGE.astype(np.float64)}, 200),
    ],
)
def test_what_fits_one_wire_fits_the_other(
    client: edgeml.Client, inputs: dict[str, np.ndarray], status: int
):
    if status == 200:
        assert client.infer(inputs).keys() == {"scores"}
        return
    with pytest.raises(CallError) as caught:
        client.infer(inputs)
    assert caught.value.status == status
    assert client.infer({"image": IMAGE}).keys() == {"scores"}


def test_a_model_that_is_not_there(client: edgeml.Client):
    with pytest.raises(CallError, match="no model 'huge'. Expected one of: tiny, other") as caught:
        client.infer({"image": IMAGE}, model="huge")
    assert caught.value.status == 404


def test_results_are_the_programs_own_unless_it_wants_the_shared_ones(agent: AgentProcess):
    first, second = images(2, seed=4)[:, np.newaxis]
    with edgeml.Client(agent.socket, "tiny") as client:
        kept = client.infer({"image": first})["scores"]
        shared = client.infer({"image": first}, copy=False)["scores"]
        client.infer({"image": second})
        np.testing.assert_allclose(kept, scores(first), atol=1e-5)
        np.testing.assert_allclose(shared, scores(second), atol=1e-5)


def test_the_socket_tells_late_and_failed(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent(
        "--bundle", sleeper_bundle(tmp_path), "--deadline", 300, sleeper=True
    ).ready()
    with edgeml.Client(agent.socket, "sleeper") as client:
        assert client.infer({"image": frame(0.5)}).keys() == {"scores"}
        for command, status in ((RAISE, 500), (HANG, 504)):
            with pytest.raises(CallError) as caught:
                client.infer({"image": frame(command)})
            assert caught.value.status == status
        agent.wait_for(" replaced ")
        assert client.infer({"image": frame(0.5)}).keys() == {"scores"}


def test_only_its_owner_may_use_the_socket(agent: AgentProcess):
    status = agent.socket.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.getuid()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_is_turned_away(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    for folder in [agent.socket.parent, *agent.socket.parent.parents]:
        if folder.stat().st_uid == os.getuid() and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o011)
    code = (
        "import os, sys; sys.path = sys.argv[2:]; import edgeml\n"
        "client = edgeml.Client(sys.argv[1], 'tiny'); client.ready()\n"
        "os.setuid(65534)\n"
        "try: edgeml.Client(sys.argv[1], 'tiny').metadata()\n"
        "except edgeml.EdgemlError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(agent.socket), *sys.path],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Permission denied" in done.stdout


def test_the_configuration_says_who_may(start_agent: StartAgent, tmp_path: Path):
    config = tmp_path / "agent.toml"
    config.write_text('socket = "run/here.sock"\nsocket_mode = "0660"\n')
    (tmp_path / "run").mkdir()
    start_agent("--config", config).ready()
    assert stat.S_IMODE((tmp_path / "run/here.sock").stat().st_mode) == 0o660


def test_a_socket_that_a_killed_agent_left_is_taken_over(start_agent: StartAgent, tmp_path: Path):
    first = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    with edgeml.Client(first.socket, "tiny") as client:
        client.infer({"image": IMAGE})
        first.process.kill()
        first.end()
        assert first.socket.is_socket()
        with pytest.raises(CallError, match="did not answer") as caught:
            client.infer({"image": IMAGE})
        assert caught.value.status == 0
        start_agent("--bundle", tiny_bundle(tmp_path)).ready()
        assert client.infer({"image": IMAGE}).keys() == {"scores"}  # connects, and opens, again


def test_an_agents_socket_is_not_taken_from_it(start_agent: StartAgent, tmp_path: Path):
    first = start_agent(state=tmp_path / "one").ready()
    second = start_agent("--socket", first.socket, state=tmp_path / "two")
    assert second.end() == 1
    assert "another process listens there" in second.lines[-1]
    assert not edgeml.Client(first.socket).ready()  # it answers: it has no model


def test_a_program_that_names_no_socket_finds_the_one_there_is(
    start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(CallError, match="No agent's socket was found"):
        edgeml.Client()
    home = tmp_path / "edgeml" / "agent"
    start_agent("--bundle", tiny_bundle(tmp_path), state=home / "a").ready()
    assert edgeml.Client(model="tiny").infer({"image": IMAGE}).keys() == {"scores"}
    other = start_agent(state=home / "b").ready()
    with pytest.raises(CallError, match="There are 2 agents"):
        edgeml.Client()
    monkeypatch.setenv("EDGEML_SOCKET", str(other.socket))
    assert edgeml.Client().get("/v2/health/live") == {"live": True}


def test_a_path_longer_than_a_sockets_address(start_agent: StartAgent, tmp_path: Path):
    state = tmp_path / ("long" * 30)
    agent = start_agent("--bundle", tiny_bundle(tmp_path), state=state).ready()
    assert len(os.fsencode(agent.socket)) > 107
    with edgeml.Client(agent.socket, "tiny") as client:
        assert client.infer({"image": IMAGE}).keys() == {"scores"}


# What a program may do that no client of ours does.


@pytest.fixture
def link(agent: AgentProcess) -> Iterator[socket.socket]:
    with connected(agent.socket, 30) as link:
        yield link
    with edgeml.Client(agent.socket, "tiny") as client:  # no harm was done
        assert client.infer({"image": IMAGE}).keys() == {"scores"}


def ask(link: socket.socket, message: bytes) -> wire.Answer:
    link.send(message)
    return wire.decode_answer(link.recv(wire.MAX_MESSAGE))


def test_memory_cannot_be_cut_short(link: socket.socket):
    link.send(wire.encode(wire.Open("tiny")))
    message, (handle,), _, _ = socket.recv_fds(link, wire.MAX_MESSAGE, 1)
    opened = wire.decode_answer(message)
    assert isinstance(opened, wire.Opened)
    for change in (lambda: os.ftruncate(handle, 0), lambda: os.ftruncate(handle, 2**20)):
        with pytest.raises(PermissionError):
            change()
    with mmap.mmap(handle, opened.layout.nbytes) as memory:
        memory[:256] = IMAGE.tobytes()
        assert ask(link, wire.encode(wire.Run("tiny"))) == wire.Done()
        (offset,) = opened.layout.offsets()[1:]
        found = np.frombuffer(memory[offset : offset + 16], np.float32)
        np.testing.assert_allclose(found, scores(IMAGE)[0], atol=1e-5)
    os.close(handle)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"\xc1 garbage", 400),
        (wire.encode(wire.Done()), 400),
        (wire.encode(wire.Run("tiny")), 409),
        (wire.encode(wire.Run("huge")), 404),
        (wire.encode(wire.Get("/nowhere")), 404),
        (wire.encode(wire.Post("/v2/models/tiny/infer", b"x")), 400),
    ],
)
def test_a_message_that_cannot_be_served(link: socket.socket, message: bytes, status: int):
    answer = ask(link, message)
    assert isinstance(answer, wire.Refused)
    assert answer.status == status


def test_programs_that_vanish_give_their_memory_back(agent: AgentProcess):
    """More of them than there is room for connections, one after another."""
    for _ in range(40):
        with connected(agent.socket, 30) as link:
            assert isinstance(ask(link, wire.encode(wire.Open("other"))), wire.Opened)
            link.send(wire.encode(wire.Run("other")))
    with edgeml.Client(agent.socket, "tiny") as client:  # whose queue they did not fill
        assert client.infer({"image": IMAGE}).keys() == {"scores"}


def descriptors(pid: int) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}


def test_an_agent_that_was_out_of_descriptors_takes_programs_again(
    start_agent: StartAgent, tmp_path: Path
):
    agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    limits = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    with (
        edgeml.Client(agent.socket, "tiny") as first,  # its descriptor was there already
        edgeml.Client(agent.socket, "tiny", timeout_s=0.5) as second,
    ):
        with pytest.raises(CallError, match="no shared memory"):
            first.infer({"image": IMAGE})
        with pytest.raises(CallError, match="did not answer"):
            second.infer({"image": IMAGE})
    agent.wait_for("no program taken")
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, limits)
    with edgeml.Client(agent.socket, "tiny") as client:
        found = client.infer({"image": IMAGE})["scores"]
    np.testing.assert_allclose(found, scores(IMAGE), atol=1e-5)


def test_memory_of_programs_that_there_was_no_descriptor_for_is_not_lost(tmp_path: Path):
    """All of them together are given so much, and no more."""
    manifest = open_bundle(tiny_bundle(tmp_path)).manifest
    room, service = _Room(10_000), SimpleNamespace(doorkeeper=Mock())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        for _ in range(10):
            with pytest.raises(RefusedCall, match="no shared memory"):
                _Region(manifest, room, service)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert room.take(10_000)


def test_a_program_that_is_out_of_descriptors_is_told_so(agent: AgentProcess):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    refusals: list[str] = []
    for free in range(8):
        with edgeml.Client(agent.socket, "tiny") as client:
            assert client.ready()  # it is connected
            highest = sorted(set(range(1000)) - descriptors(os.getpid()))[free]
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, limits[1]))
            try:
                client.places()
            except CallError as error:
                refusals.append(str(error))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert client.infer({"image": IMAGE})
    assert 0 < len(refusals) < 8
    assert all("shares with the agent" in refusal for refusal in refusals)


FORKING = """
import os, sys
import edgeml

client = edgeml.Client(sys.argv[1], "tiny")
assert client.places() and client.ready()
print("connected", flush=True)
sys.stdin.readline()
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert client.ready()
print("connected", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("wire", ["socket", "http"])
def test_a_process_that_is_forked_has_a_connection_of_its_own(agent: AgentProcess, wire: str):
    """Over one, each would be given the other's answers."""
    address = {"socket": agent.socket, "http": agent.url}[wire]
    with subprocess.Popen(
        [sys.executable, "-c", FORKING, str(address)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        found = []
        for _ in range(2):
            assert program.stdout.readline() == "connected\n"
            found.append(len(descriptors(agent.pid)))
            program.stdin.write("\n")
            program.stdin.flush()
        assert program.wait(PATIENCE_S) == 0
    assert found[1] == found[0] + 1


def test_a_program_too_many_is_told_so(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CALLERS):
            assert stack.enter_context(edgeml.Client(agent.socket, "tiny")).ready()
        with (
            edgeml.Client(agent.socket, "tiny") as client,
            pytest.raises(CallError, match=f"{MAX_CALLERS} programs are connected") as refused,
        ):
            client.infer({"image": IMAGE})
        assert refused.value.status == 503
    with edgeml.Client(agent.socket, "tiny") as client:
        assert client.infer({"image": IMAGE})
