"""What the agent adds to a bare runtime call, and what the statistics cost.

    python benchmarks/agent_overhead.py [--calls N]

One model a size (``models/``: a mean over the image and one small product, so that the runtime
takes as little as it can, in ONNX Runtime, which runs it on the caller's own thread), the same
artifact and the same inputs on every path, the paths in turn within one run, so that a busy machine
slows all of them. Fifty calls at a time: one
by one, each would find the caches as the others left them.

* bare: the runtime in this process
* worker: over the doorbell and shared memory into a worker process and back
* service: the same with admission, the model's thread, statistics and outcomes: an in-process call
* http: the service by way of the local call (small input only; JSON is not for frames)

Prints the machine and Markdown tables for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle import (
    Artifact,
    Golden,
    Manifest,
    Parity,
    Provenance,
    Requirement,
    Tensor,
    Tolerance,
    describe,
    encode_golden,
    open_bundle,
    write_bundle,
)
from edgeml.device_agent import config as bounds
from edgeml.device_agent.config import ModelConfig
from edgeml.device_agent.limits.watch import Watch
from edgeml.device_agent.local.client import Client
from edgeml.device_agent.local.local_api import LocalApi
from edgeml.device_agent.serving.recorder import Recorder
from edgeml.device_agent.serving.room import Room
from edgeml.device_agent.serving.service import Details, Hooks, Service
from edgeml.device_agent.serving.windows import WindowClock
from edgeml.device_agent.worker.layout import Layout, TensorSpec
from edgeml.device_agent.worker.parent import Worker
from edgeml.device_agent.worker.wire import WorkerSpec
from edgeml.machine import isa, processor
from edgeml.statistics import fit_baseline
from edgeml.targets.runtime import NamedSession, open_session

MODELS = Path(__file__).with_name("models")
CLASSES = 10
SIZES: dict[str, tuple[int, ...]] = {"8x8": (1, 1, 8, 8), "224x224x3": (1, 3, 224, 224)}
FRAMES = 64
BLOCK = 50
WARM_UP = 200
AGENT = [sys.executable, "-m", "edgeml", "agent", "run", "--http", "127.0.0.1:0"]

Array = NDArray[Any]
Call = Callable[[Array], object]


def main() -> None:
    parser = argparse.ArgumentParser(description="What the agent adds to a bare runtime call.")
    parser.add_argument("--calls", type=int, default=3000, help="on each path")
    calls: int = parser.parse_args().calls
    sys.setswitchinterval(bounds.SWITCH_S)  # as the agent does
    print(f"{processor()}, {isa()}; Python {sys.version.split()[0]}, NumPy {np.__version__}\n")
    with tempfile.TemporaryDirectory() as folder:
        bundles = {name: make_bundle(Path(folder), name, shape) for name, shape in SIZES.items()}
        print("| input | path | p50 µs | p99 µs | added p50 µs | added p99 µs | p50 ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, path in bundles.items():
            compare(name, path, calls)
        print("\n| input | statistics | µs a frame | ns an input element |")
        print("| --- | --- | --- | --- |")
        for name, path in bundles.items():
            statistics(name, path)
        print("\n| process | resident MB |\n| --- | --- |")
        resident("agent, no model", [])
        resident("agent with a model (the worker apart)", ["--bundle", str(bundles["8x8"])])


def make_bundle(folder: Path, name: str, shape: tuple[int, ...]) -> Path:
    """A bundle of a model that costs nearly nothing to run."""
    entry = MODELS / f"cheap-{name}.onnx"
    frames = frames_of(shape)
    with NamedSession(
        open_session("onnx", entry), {"image": "image"}, {"scores": "scores"}
    ) as session:
        outputs = np.concatenate([session.run({"image": one[None]})["scores"] for one in frames])
    tensors = (
        Tensor(name="image", shape=shape, dtype="float32", meaning="image", layout="NCHW"),
        Tensor(name="scores", shape=(1, CLASSES), dtype="float32", meaning="scores"),
    )
    baseline = fit_baseline(
        {"image": frames},
        {"scores": outputs},
        input_tensors=tensors[:1],
        output_tensors=tensors[1:],
    )
    members = {f"a/{entry.name}": entry.read_bytes()}
    files = tuple(describe(member, content) for member, content in members.items())
    members["golden.npz"] = encode_golden(Golden({"image": frames[:4]}, {"scores": outputs[:4]}))
    members["baseline.json"] = baseline.encode()
    artifact = Artifact(
        id="onnx-fp32",
        target="onnx",
        precision="fp32",
        files=files,
        inputs={"image": "image"},
        outputs={"scores": "scores"},
        requires=Requirement(packages=("onnxruntime",)),
        parity=Parity(cosine=1, max_abs=0, samples=FRAMES, tolerance=Tolerance(cosine=0.99)),
        chosen=True,
    )
    manifest = Manifest(
        name=f"cheap-{name}",
        version="1",
        created="2026-01-01T00:00:00Z",
        inputs=tensors[:1],
        outputs=tensors[1:],
        artifacts=(artifact,),
        golden=describe("golden.npz", members["golden.npz"]),
        baseline=describe("baseline.json", members["baseline.json"]),
        provenance=Provenance(source_format="", source_name="", source_sha256="", tools={}),
    )
    path = folder / f"{name}.edgeml"
    write_bundle(path, manifest, members)
    return path


def frames_of(shape: tuple[int, ...]) -> Array:
    """Noise images in 0..1: [FRAMES, c, h, w]."""
    random = np.random.default_rng(6)
    base = random.uniform(0.2, 0.8, (FRAMES, 1, 1, 1))
    noise = random.normal(0, 0.1, (FRAMES, *shape[1:]))
    return np.clip(base + noise, 0, 1).astype(np.float32)


def compare(name: str, path: Path, calls: int) -> None:
    """One table row a path."""
    bundle = open_bundle(path)
    manifest = bundle.manifest
    (artifact,) = manifest.artifacts
    folder = path.parent / f"{name}-artifact"
    entry = bundle.extract(artifact, folder)
    session = NamedSession(open_session("onnx", entry), artifact.inputs, artifact.outputs)
    worker = Worker(
        WorkerSpec(
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
        ),
        log=path.parent / "worker.log",
    )
    worker.wait_ready(60)
    watch = Watch(0.02)
    watch.start()
    service = Service(
        ModelConfig(bundle=path, deadline_ms=60_000),
        boot="bench",
        artifacts=folder,
        logs_folder=path.parent,
        profiles=folder / "profiles",
        watch=watch,
        room=Room(None, used_bytes=watch.resident_bytes),
        hooks=Hooks(event=ignore_event, changed=lambda: None),
    )
    service.start()
    service.settled.wait()
    api = LocalApi("127.0.0.1", 0, lambda: {manifest.name: service})
    api.start()
    client = Client(api.url, manifest.name)
    paths: dict[str, Call] = {
        "bare": lambda one: session.run({"image": one}),
        "worker": lambda one: worker.run({"image": one}, timeout_s=60),
        "service": lambda one: service.submit({"image": one}).wait(),
    }
    if name == "8x8":
        paths["http"] = lambda one: client.infer({"image": one})
    times = measure(paths, frames_of(manifest.inputs[0].shape), calls)
    bare = times["bare"]
    for key, found in times.items():
        p50, p99 = np.quantile(found, [0.5, 0.99])
        more = "–", "–", "1"
        if key != "bare":
            base50, base99 = np.quantile(bare, [0.5, 0.99])
            more = f"{p50 - base50:.0f}", f"{p99 - base99:.0f}", f"{p50 / base50:.2f}"
        print(f"| {name} | {key} | {p50:.0f} | {p99:.0f} | {' | '.join(more)} |")
    client.close()
    api.stop()
    service.stop(0)
    watch.stop()
    worker.close()


def ignore_event(_kind: str, _message: str, _model: str, _details: Details) -> None:
    """Nobody listens."""


def measure(paths: dict[str, Call], frames: Array, calls: int) -> dict[str, list[float]]:
    """Microseconds of each call; the paths in turn, a block of calls each."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    for block in range((WARM_UP + calls) // BLOCK):
        for name, call in paths.items():
            for frame in frames[:BLOCK, None]:
                begin = time.perf_counter()
                call(frame)
                if block * BLOCK >= WARM_UP:
                    times[name].append((time.perf_counter() - begin) * 1e6)
    return times


def statistics(name: str, path: Path) -> None:
    """What counting costs, without any inference."""
    bundle = open_bundle(path)
    baseline = bundle.baseline()
    assert baseline is not None
    frames = frames_of(bundle.manifest.inputs[0].shape)
    outputs = np.full((FRAMES, CLASSES), 1 / CLASSES, dtype=np.float32)
    recorder = Recorder(
        baseline=baseline,
        clock=WindowClock(3600.0, now=0.0, wall_ms=0),
        boot="bench",
        model="cheap",
        version="1",
        bundle=bundle.sha256,
        artifact="onnx-fp32",
    )
    rounds = 50
    begin = time.perf_counter()
    for _ in range(rounds):
        for index in range(FRAMES):
            recorder.served(
                {"image": frames[index : index + 1]}, {"scores": outputs[index : index + 1]}
            )
        recorder.close(now=0.0, wall_ms=0)
    seconds = (time.perf_counter() - begin) / (rounds * FRAMES)
    elements = frames[0].size
    print(
        f"| {name} | {len(baseline.streams)} | {seconds * 1e6:.0f} | "
        f"{seconds * 1e9 / elements:.1f} |"
    )


def resident(what: str, flags: list[str]) -> None:
    """Resident set of a real agent, once it is ready."""
    with tempfile.TemporaryDirectory() as state:
        agent = subprocess.Popen(
            [*AGENT, "--state", state, *flags],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert agent.stderr is not None
        for line in agent.stderr:
            if " ready " in line:
                break
        status = Path(f"/proc/{agent.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match
        print(f"| {what} | {int(match[1]) * 1024 / 1e6:.1f} |")
        agent.terminate()
        agent.communicate()


if __name__ == "__main__":
    main()
