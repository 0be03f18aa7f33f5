"""What the benchmarks of the agent share: bundles of one ONNX artifact, agents, memory."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle import (
    Artifact,
    Budgets,
    Golden,
    Manifest,
    Parity,
    Provenance,
    Requirement,
    Tensor,
    Tolerance,
    describe,
    encode_golden,
    write_bundle,
)
from edgeml.machine import isa, processor
from edgeml.statistics import fit_baseline
from edgeml.targets.runtime import NamedSession, open_session

MODELS = Path(__file__).with_name("models")
CAMERA = MODELS / "cheap-224x224x3-uint8.onnx"
FRAMES = 64

Array = NDArray[Any]


def machine() -> str:
    """What the figures were measured on."""
    return f"{processor()}, {isa()}; Python {sys.version.split()[0]}, NumPy {np.__version__}"


def camera_frames(count: int = FRAMES) -> Array:
    """Noise images as a camera gives them: uint8 [count, 224, 224, 3]."""
    random = np.random.default_rng(6)
    base = random.uniform(50, 200, (count, 1, 1, 1))
    return np.clip(base + random.normal(0, 25, (count, 224, 224, 3)), 0, 255).astype(np.uint8)


def small_frames(count: int = FRAMES) -> Array:
    """Noise images of 8x8: float32 [count, 1, 8, 8]."""
    random = np.random.default_rng(6)
    base = random.uniform(0.2, 0.8, (count, 1, 1, 1))
    return np.clip(base + random.normal(0, 0.1, (count, 1, 8, 8)), 0, 1).astype(np.float32)


def make_bundle(folder: Path, entry: Path, frames: Array, *, layout: str, name: str) -> Path:
    """A bundle of an ONNX model ``image`` → ``scores``, with golden vectors and statistics.

    Args:
        folder: to write ``NAME.edgeml`` to.
        entry: the model.
        frames: [n, …]; the baseline is fitted on them.
        layout: of a frame, ``NCHW`` or ``NHWC``.
        name: of the model.
    """
    with bare_session(entry) as session:
        outputs = np.concatenate([session.run({"image": one[None]})["scores"] for one in frames])
    tensors = (
        Tensor(
            name="image", shape=(1, *frames.shape[1:]), dtype=str(frames.dtype), meaning="image",
            layout=layout,
        ),
        Tensor(name="scores", shape=(1, outputs.shape[1]), dtype="float32", meaning="scores"),
    )  # fmt: skip
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
        name=name,
        version="1",
        created="2026-01-01T00:00:00Z",
        inputs=tensors[:1],
        outputs=tensors[1:],
        artifacts=(artifact,),
        budgets=Budgets(deadline_ms=60_000),
        golden=describe("golden.npz", members["golden.npz"]),
        baseline=describe("baseline.json", members["baseline.json"]),
        provenance=Provenance(source_format="", source_name="", source_sha256="", tools={}),
    )
    path = folder / f"{name}.edgeml"
    write_bundle(path, manifest, members)
    return path


def bare_session(entry: Path) -> NamedSession:
    """The runtime in this process, one thread, as a worker has it."""
    return NamedSession(open_session("onnx", entry), {"image": "image"}, {"scores": "scores"})


class Running(NamedTuple):
    """An agent that serves."""

    pid: int
    url: str
    socket: Path


@contextlib.contextmanager
def agent(*flags: object, state: Path | None = None) -> Generator[Running]:
    """``edgeml agent run`` with these flags, once it is ready; ended with the block."""
    with tempfile.TemporaryDirectory() as folder:
        state = state or Path(folder)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "edgeml", "agent", "run", "--http", "127.0.0.1:0"),
                *("--state", str(state), *map(str, flags)),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            said: list[str] = []
            for line in process.stderr:
                said.append(line)
                if " ready " in line:
                    break
            else:
                raise RuntimeError("the agent did not come up:\n" + "".join(said))
            values = dict(re.findall(r"(\w+)=(\S+)", said[-1]))
            yield Running(process.pid, values["http"], Path(values["socket"]))
        finally:
            process.terminate()
            process.communicate()


def children(pid: int) -> list[int]:
    """Processes that this one started."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it ended
            found += map(int, (thread / "children").read_text().split())
    return found


def resident_mb(pid: int, *, below: bool = False) -> float:
    """Resident set of a process, 10^6 bytes; with those that it started, where asked."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    own = int(match[1]) * 1024 / 1e6 if match else 0.0
    return own + sum(resident_mb(child, below=True) for child in children(pid) if below)
