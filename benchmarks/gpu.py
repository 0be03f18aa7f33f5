"""What an ``onnx-cuda`` artifact takes on an NVIDIA GPU, and what edgeml's settings change of it.

    python benchmarks/gpu.py BUNDLE...

On a machine with a GPU and onnxruntime-gpu (``scripts/gpu.sh`` makes an environment). Prints a
table: as edgeml runs an artifact, with its kernels launched one by one, with TF32 as well, which is
how ONNX Runtime runs it by itself, and the same file on one core. The four take turns, a block of
calls each; *cosine* is that of all outputs with the bundle's golden ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgeml.bundle import Artifact, Bundle, open_bundle
from edgeml.targets.runtime import NamedSession, open_session

ROUNDS, CALLS = 10, 50
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "as edgeml runs it": ("onnx-cuda", {}),
    "kernels one by one": ("onnx-cuda", {"cuda_enable_cuda_graph": "0"}),
    "one by one, TF32": ("onnx-cuda", {"cuda_enable_cuda_graph": "0", "cuda_use_tf32": "1"}),
    "on one core": ("onnx", {}),
}


def main(paths: list[str]) -> None:
    """Every ``onnx-cuda`` artifact of some bundles."""
    print("| model | precision | how | p50 ms | p99 ms | cosine | ready after s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for path in paths:
        bundle = open_bundle(Path(path))
        for artifact in bundle.manifest.artifacts:
            if artifact.target == "onnx-cuda":
                with TemporaryDirectory() as folder:
                    _compare(bundle, artifact, bundle.extract(artifact, Path(folder)))


def _compare(bundle: Bundle, artifact: Artifact, entry: Path) -> None:
    golden = bundle.golden()
    first = {name: values[:1] for name, values in golden.inputs.items()}
    sessions: dict[str, NamedSession] = {}
    ready: dict[str, float] = {}
    for way, (target, changes) in WAYS.items():
        options = artifact.requires.options | changes if target == "onnx-cuda" else {}
        began = time.perf_counter()
        opened = open_session(target, entry, options=options)
        sessions[way] = NamedSession(opened, artifact.inputs, artifact.outputs)
        sessions[way].run(first)
        ready[way] = time.perf_counter() - began
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, session in sessions.items():
            session.run(first)
            taken[way] += [
                _seconds(lambda session=session: session.run(first)) for _ in range(CALLS)
            ]
    for way, session in sessions.items():
        p50, p99 = np.quantile(taken[way], [0.5, 0.99]) * 1000
        print(
            f"| {bundle.manifest.name} | {artifact.precision} | {way} | {p50:.3f} | {p99:.3f} "
            f"| {_cosine(session, golden.inputs, golden.outputs):.6f} | {ready[way]:.2f} |",
            flush=True,
        )


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _cosine(
    session: NamedSession, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]
) -> float:
    count = len(next(iter(inputs.values())))
    found = [session.run({n: v[i : i + 1] for n, v in inputs.items()}) for i in range(count)]
    ours = np.concatenate([one[name].ravel() for name in outputs for one in found])
    theirs = np.concatenate([values.ravel() for values in outputs.values()])
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


if __name__ == "__main__":
    main(sys.argv[1:])
