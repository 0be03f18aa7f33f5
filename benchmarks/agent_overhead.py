"""What the agent adds to a bare runtime call, and what the statistics cost.

    python benchmarks/agent_overhead.py [--calls N] [--mobilenet FILE] [--awake MS]

The same artifact and the same inputs on every path, the paths in turn within one run, so that a
busy machine slows all of them. Fifty calls at a time: one by one, each would find the caches as the
others left them. The first calls of a block do, and find the other process asleep, so without a
pause they are made and not counted, on every path: one in fifty would be what the 99th percentile
shows, and what a call costs after a rest is what the rows with a pause are for. The models
(``models/``) cost as little as they can, in ONNX Runtime, which runs them on the caller's own
thread.

* bare: the runtime in this process
* worker: over the doorbell and shared memory into a worker process and back
* socket: this process as a program on the device, ``edgeml.Client`` over the Unix socket and shared
  memory, to an agent with admission, queue, deadline and statistics; the program copies its frame
  to the shared memory
* in place: likewise, with the frame there already, as a camera's driver can write it
* http: the same by way of HTTP, with binary tensors

With ``--awake`` the agents have that ``awake_ms``, and cores are kept from sleeping for as long as
this runs, on every path: under the bare call as well.

With ``--mobilenet`` (``make_models.py`` writes it) also: throughput of one model under constant
demand against the bare loop, of several agents, and what the statistics took of a core meanwhile,
where they may take 2 % (:mod:`demand`).

Prints the machine and Markdown tables for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from agents import (
    CAMERA,
    FRAMES,
    MODELS,
    Array,
    agent,
    bare_session,
    camera_frames,
    machine,
    make_bundle,
    resident_mb,
    small_frames,
)
from demand import demand

from edgeml import Client
from edgeml.bundle import open_bundle
from edgeml.device_agent import config as bounds
from edgeml.device_agent.awake import Awake
from edgeml.device_agent.heap import settle
from edgeml.device_agent.serving.recorder import Recorder
from edgeml.device_agent.serving.windows import WindowClock
from edgeml.device_agent.worker.layout import Layout, TensorSpec
from edgeml.device_agent.worker.parent import Worker
from edgeml.device_agent.worker.wire import WorkerSpec

PAUSES_S = (0.0, 0.002)
"""Between a program's calls. Without one, the next call waits for the statistics of the one before;
with one, the processor has gone to sleep, for the bare call as well."""

BLOCK = 50
FIRST = 5
"""Calls of a block that are not counted where there is no pause; the fifth takes what the fiftieth
does."""
WARM_UP = 200

Call = Callable[[Array], object]


def main() -> None:
    parser = argparse.ArgumentParser(description="What the agent adds to a bare runtime call.")
    parser.add_argument("--calls", type=int, default=3000, help="on each path")
    parser.add_argument("--awake", type=float, default=0.0, help="the agents' awake_ms")
    parser.add_argument("--mobilenet", type=Path, help="MobileNetV2 as make_models.py writes it")
    parser.add_argument("--agents", type=int, default=12, help="under constant demand")
    arguments = parser.parse_args()
    for name in bounds.HEAP_ENVIRONMENT.keys() - os.environ.keys():
        print(f"With {name}, as the agent has it.", file=sys.stderr)
        os.execve(
            sys.executable,
            [sys.executable, *sys.argv],
            {**os.environ, **bounds.HEAP_ENVIRONMENT},
        )
    sys.setswitchinterval(bounds.SWITCH_S)  # likewise
    awake = Awake(3600.0 if arguments.awake else 0.0)
    awake.stir(time.monotonic())
    if problem := awake.state.problem:
        parser.error(f"cores cannot be kept awake: {problem}")
    print(f"{machine()}; cores {'kept awake' if awake.state.held else 'may sleep'}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "awake.toml"
        config.write_text(f"awake_ms = {arguments.awake}\n")
        subjects = {
            "8x8 float32": (MODELS / "cheap-8x8.onnx", small_frames(), "NCHW"),
            "224x224x3 uint8": (CAMERA, camera_frames(), "NHWC"),
        }
        print("| input | pause | path | p50 µs | p99 µs | added p50 µs | added p99 µs |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for subject, (entry, frames, layout) in subjects.items():
            bundle = make_bundle(folder, entry, frames, layout=layout, name=entry.stem)
            compare(subject, bundle, entry, frames, arguments.calls, config)
        print("\n| input | statistics | µs a frame | ns an input element |")
        print("| --- | --- | --- | --- |")
        for subject, (entry, frames, _) in subjects.items():
            cost_us, streams = statistics(folder / f"{entry.stem}.edgeml", frames)
            each = cost_us * 1000 / frames[0].size
            print(f"| {subject} | {streams} | {cost_us:.0f} | {each:.1f} |")
        print("\n| process | resident MB |\n| --- | --- |")
        for broker, flags in {"no": (), "an absent": ("--broker", "127.0.0.1:1")}.items():
            with agent(*flags) as running:
                memory_mb = resident_mb(running.pid)
            print(f"| agent, no model, {broker} broker | {memory_mb:.1f} |")
        with agent("--bundle", folder / "cheap-8x8.edgeml") as running:
            print(f"| agent with a model (the worker apart) | {resident_mb(running.pid):.1f} |")
        if arguments.mobilenet is not None:
            demand(folder, arguments.mobilenet, config, agents=arguments.agents)


def compare(
    subject: str, bundle: Path, entry: Path, frames: Array, calls: int, config: Path
) -> None:
    """One table row a path."""
    with ExitStack() as stack:
        session = stack.enter_context(bare_session(entry))
        worker = Worker(worker_spec(bundle, entry), log=bundle.parent / "worker.log")
        stack.callback(worker.close)
        worker.wait_ready(60)
        running = stack.enter_context(agent("--config", config, "--bundle", bundle))
        by_socket, by_http = Client(running.socket, entry.stem), Client(running.url, entry.stem)
        place = by_socket.places()["image"]

        def socket(frame: Array) -> object:
            place[...] = frame
            return by_socket.infer({"image": place})

        paths: dict[str, Call] = {
            "bare": lambda frame: session.run({"image": frame}),
            "worker": lambda frame: worker.run({"image": frame}, timeout_s=60),
            "socket": socket,
            "in place": lambda _: by_socket.infer({"image": place}),
            "http": lambda frame: by_http.infer({"image": frame}),
        }
        settle()  # the path "worker" is the agent's side in this process
        for pause_s in PAUSES_S:
            tabulate(subject, pause_s, measure(paths, frames, calls, pause_s=pause_s))


def tabulate(subject: str, pause_s: float, times: dict[str, list[float]]) -> None:
    """A row for each path."""
    base50, base99 = np.quantile(times["bare"], [0.5, 0.99])
    between = f"{pause_s * 1000:.0f} ms" if pause_s else "none"
    for path, found in times.items():
        p50, p99 = np.quantile(found, [0.5, 0.99])
        more = f"{p50 - base50:.0f} | {p99 - base99:.0f}" if path != "bare" else "– | –"
        print(f"| {subject} | {between} | {path} | {p50:.0f} | {p99:.0f} | {more} |")


def worker_spec(bundle: Path, entry: Path) -> WorkerSpec:
    """A worker of the bundle's only artifact."""
    manifest = open_bundle(bundle).manifest
    (artifact,) = manifest.artifacts
    return WorkerSpec(
        target=artifact.target,
        entry=str(entry),
        threads=1,
        options=artifact.requires.options,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        layout=Layout(
            tuple(TensorSpec(t.name, t.shape, t.dtype) for t in manifest.inputs),
            tuple(TensorSpec(t.name, t.shape, t.dtype) for t in manifest.outputs),
        ),
    )


def measure(
    paths: dict[str, Call], frames: Array, calls: int, *, pause_s: float
) -> dict[str, list[float]]:
    """Microseconds of each call; the paths in turn, a block of calls each."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    first = 0 if pause_s else FIRST
    for block in range((WARM_UP + calls) // BLOCK):
        for name, call in paths.items():
            for index, frame in enumerate(frames[: first + BLOCK, None]):
                if pause_s:
                    time.sleep(pause_s)
                begin = time.perf_counter()
                call(frame)
                took_us = (time.perf_counter() - begin) * 1e6
                if index >= first and block * BLOCK >= WARM_UP:
                    times[name].append(took_us)
    return times


def statistics(bundle_path: Path, frames: Array) -> tuple[float, int]:
    """What counting costs, without any inference: µs a frame, and the number of statistics."""
    bundle = open_bundle(bundle_path)
    baseline = bundle.baseline()
    assert baseline is not None
    classes = bundle.manifest.outputs[0].shape[1]
    outputs = np.full((FRAMES, classes), 1 / classes, dtype=np.float32)
    recorder = Recorder(
        baseline=baseline,
        clock=WindowClock(3600.0, now=0.0, wall_ms=0),
        share=1.0,
        boot="bench",
        model="cheap",
        version="1",
        bundle=bundle.sha256,
        artifact="onnx-fp32",
    )
    rounds: list[float] = []
    for _ in range(50):
        begin = time.process_time()  # they are computed on another thread
        for index in range(FRAMES):
            one = slice(index, index + 1)
            recorder.served({"image": frames[one]}, {"scores": outputs[one]})
        recorder.close(now=0.0, wall_ms=0)
        rounds.append((time.process_time() - begin) / FRAMES * 1e6)
    return float(np.median(rounds)), len(baseline.streams)


if __name__ == "__main__":
    main()
