"""The agent beside MLServer and LitServe: one model, the same frames, one run.

    python benchmarks/serving.py [--model FILE] [--seconds S] [--environments FOLDER]

Makes an environment for each of the two from PyPI, in FOLDER. Every server runs the model in ONNX
Runtime on one thread, in one worker process, and answers over HTTP on loopback with connections
kept open; the agent over its socket as well. One program calls for the latencies, four for the
rate; the servers in turn, several times. The frame is 224x224x3 uint8: binary for the agent, base64
for the others. Memory is the proportional set of a server with all its processes, after the run.

Prints the machine and a Markdown table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Generator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
from agents import CAMERA, Array, agent, camera_frames, machine, make_bundle

from edgeml import Client

PEERS = Path(__file__).with_name("peers")
PACKAGES = {"mlserver": "mlserver==1.7.1", "litserve": "litserve==0.2.19"}
BESIDE = {"mlserver": ("uvloop==0.21.0",), "litserve": ()}
"""MLServer 1.7.1 does not start with the uvloop that pip takes for it today."""
RUNTIME = "onnxruntime==1.31.1"
PROGRAMS = 4
ROUNDS = 5
START_S = 120.0

Call = Callable[[Array], object]
Connect = Callable[[], Call]


def main() -> None:
    parser = argparse.ArgumentParser(description="The agent beside MLServer and LitServe.")
    parser.add_argument("--model", type=Path, default=CAMERA, help="image uint8 → scores, ONNX")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--environments", type=Path, help="kept for the next time")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        homes = make_environments(arguments.environments or folder)
        frames = camera_frames(16)
        bundle = make_bundle(folder, arguments.model, frames, layout="NHWC", name="camera")
        running = stack.enter_context(agent("--bundle", bundle))
        mlserver, mlserver_port = stack.enter_context(
            start_mlserver(homes["mlserver"], folder, arguments.model)
        )
        litserve, litserve_port = stack.enter_context(
            start_litserve(homes["litserve"], folder, arguments.model)
        )
        servers: dict[str, tuple[int, Connect]] = {
            "edgeml, socket": (running.pid, lambda: by_client(str(running.socket))),
            "edgeml, HTTP": (running.pid, lambda: by_client(running.url)),
            PACKAGES["mlserver"]: (mlserver, lambda: by_mlserver(mlserver_port)),
            PACKAGES["litserve"]: (litserve, lambda: by_litserve(litserve_port)),
        }
        check(servers, frames)
        latencies: dict[str, list[float]] = {name: [] for name in servers}
        rates: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(ROUNDS):
            for name, (_, connect) in servers.items():
                each = arguments.seconds / ROUNDS
                latencies[name] += load(connect, frames, programs=1, seconds=each)
                count = len(load(connect, frames, programs=PROGRAMS, seconds=each))
                rates[name].append(count / each)
        memory = {name: proportional_mb(pid) for name, (pid, _) in servers.items()}
    print(f"{machine()}; {arguments.model.name}\n")
    print(f"| server | requests/s, {PROGRAMS} programs | p50 ms | p99 ms | MB |")
    print("| --- | --- | --- | --- | --- |")
    for name in servers:
        p50, p99 = np.quantile(latencies[name], [0.5, 0.99]) * 1000
        rate, mb = np.median(rates[name]), memory[name]
        print(f"| {name} | {rate:.0f} | {p50:.2f} | {p99:.2f} | {mb:.0f} |")


def make_environments(folder: Path) -> dict[str, Path]:
    """A Python with each peer, by its name."""
    homes: dict[str, Path] = {}
    for name, package in PACKAGES.items():
        home = folder / name
        python = home / "bin" / "python"
        if not python.exists():
            venv.create(home, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", package, RUNTIME, *BESIDE[name]]
        subprocess.run(command, check=True)
        homes[name] = python.parent
    return homes


@contextlib.contextmanager
def start_mlserver(home: Path, folder: Path, model: Path) -> Generator[tuple[int, int]]:
    """MLServer with the model; its process and port."""
    work = folder / "mlserver-model"
    work.mkdir()
    shutil.copy(PEERS / "serve_mlserver.py", work)
    ports = [free_port() for _ in range(3)]
    names = ("http_port", "grpc_port", "metrics_port")
    settings = dict(zip(names, ports, strict=True)) | {"host": "127.0.0.1", "parallel_workers": 1}
    (work / "settings.json").write_text(json.dumps(settings))
    of_model = {
        "name": "camera",
        "implementation": "serve_mlserver.Runtime",
        "parameters": {"uri": str(model.absolute())},
    }
    (work / "model-settings.json").write_text(json.dumps(of_model))
    with server([home / "mlserver", "start", str(work)], work, ports[0]) as pid:
        wait_until_answers(lambda: by_mlserver(ports[0]))
        yield pid, ports[0]


@contextlib.contextmanager
def start_litserve(home: Path, folder: Path, model: Path) -> Generator[tuple[int, int]]:
    """LitServe with the model; its process and port."""
    work = folder / "litserve-model"
    work.mkdir()
    port = free_port()
    script = str(PEERS / "serve_litserve.py")
    command = [home / "python", script, str(model.absolute()), str(port)]
    with server(command, work, port) as pid:
        wait_until_answers(lambda: by_litserve(port))
        yield pid, port


@contextlib.contextmanager
def server(command: list[str | Path], work: Path, port: int) -> Generator[int]:
    """A process that listens on ``port``; ended with all that it started."""
    with (work / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=work, stdout=log, stderr=log, start_new_session=True
        )
    try:
        end = time.monotonic() + START_S
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} did not start:\n{(work / 'log').read_text()}")
            time.sleep(0.1)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_answers(connect: Connect) -> None:
    """A server may listen before its model is loaded."""
    end = time.monotonic() + START_S
    frame = camera_frames(1)
    while True:
        try:
            connect()(frame)
        except (RuntimeError, OSError, HTTPException):  # noqa: PERF203
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def by_client(address: str) -> Call:
    """The agent, over its socket or HTTP."""
    client = Client(address, "camera")
    return lambda frame: client.infer({"image": frame})["scores"][0]


def by_mlserver(port: int) -> Call:
    """The Open Inference Protocol with a tensor of BYTES."""

    def ask(frame: Array) -> object:
        tensor = {
            "name": "image",
            "shape": [1],
            "datatype": "BYTES",
            "data": [base64.b64encode(frame.tobytes()).decode()],
        }
        answer = post("/v2/models/camera/infer", {"inputs": [tensor]})
        return np.asarray(answer["outputs"][0]["data"])

    post = poster(port)
    return ask


def by_litserve(port: int) -> Call:
    """LitServe's own JSON."""
    post = poster(port)
    return lambda frame: np.asarray(
        post("/predict", {"image": base64.b64encode(frame.tobytes()).decode()})["scores"]
    )


def poster(port: int) -> Callable[[str, object], dict[str, list[dict[str, list[float]]]]]:
    """Posts JSON over one connection that stays open."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(path: str, body: object) -> dict[str, list[dict[str, list[float]]]]:
        header = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), header)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {content[:500]!r}")
        return json.loads(content)

    return post


def check(servers: dict[str, tuple[int, Connect]], frames: Array) -> None:
    """All give the same answers, and are warm."""
    expected: list[object] = []
    for name, (_, connect) in servers.items():
        call = connect()
        found = [call(frame[None]) for frame in frames]
        expected = expected or found
        np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-5, err_msg=name)  # type: ignore[arg-type]


def load(connect: Connect, frames: Array, *, programs: int, seconds: float) -> list[float]:
    """Programs that call one after another for some time; what each call took, in seconds."""
    times: list[float] = []
    ready = threading.Barrier(programs)

    def calls() -> None:
        call, own = connect(), list[float]()
        ready.wait()
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            call(frames[len(own) % len(frames)][None])
            own.append(time.perf_counter() - begin)
        times.extend(own)

    threads = [threading.Thread(target=calls) for _ in range(programs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def proportional_mb(pid: int) -> float:
    """Memory of a process and of all below it, shared pages by their share; 10^6 bytes."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        tasks = list(Path(f"/proc/{pid}/task").glob("*/children"))
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return 0.0
    match = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    own = int(match[1]) * 1024 / 1e6 if match else 0.0
    return own + sum(proportional_mb(child) for child in children)


if __name__ == "__main__":
    sys.exit(main())
