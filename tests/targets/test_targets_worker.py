"""ExecuTorch in a device agent's worker, another process with shared memory, and behind a whole
agent."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from support.conversions import Make, Source

import edgeml
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
    write_bundle,
)
from edgeml.device_agent.worker.layout import Layout, TensorSpec
from edgeml.device_agent.worker.parent import Worker
from edgeml.device_agent.worker.wire import WorkerSpec
from edgeml.targets.compiling import CompileResult


def layout(source: Source) -> Layout:
    def of(arrays: Mapping[str, np.ndarray]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name, (1, *array.shape[1:]), str(array.dtype))
            for name, array in arrays.items()
        )

    return Layout(of(source.feeds), of(source.expected))


def test_a_worker_computes_what_the_source_does(
    make: Make, sources: Mapping[str, Source], tmp_path: Path
):
    artifact = make("classifier", "executorch", "fp32")
    source = sources["classifier"]
    spec = WorkerSpec(
        target="executorch",
        entry=str(artifact.files[0]),
        threads=1,
        options=artifact.options,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        layout=layout(source),
    )
    worker = Worker(spec, log=tmp_path / "log")
    worker.wait_ready(120)
    for row in range(4):
        feeds = {key: array[row : row + 1] for key, array in source.feeds.items()}
        found = worker.run(feeds, timeout_s=60)
        for key, expected in source.expected.items():
            np.testing.assert_allclose(found[key], expected[row : row + 1], atol=1e-4)
    worker.close()


def bundle_of(made: CompileResult, source: Source, folder: Path) -> Path:
    """A bundle of one artifact."""
    files = {f"a/{file.name}": file.read_bytes() for file in made.files}
    golden = Golden(
        {name: array[:4] for name, array in source.feeds.items()},
        {name: array[:4] for name, array in source.expected.items()},
    )
    members = {**files, "golden.npz": encode_golden(golden)}

    def tensors(arrays: Mapping[str, np.ndarray], meaning: str) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(name=n, shape=(1, *a.shape[1:]), dtype=str(a.dtype), meaning=meaning)
            for n, a in arrays.items()
        )

    manifest = Manifest(
        name="classifier",
        version="1",
        created="2026-01-01T00:00:00Z",
        inputs=tensors(source.feeds, "image"),
        outputs=tensors(source.expected, "scores"),
        artifacts=(
            Artifact(
                id="executorch-fp32",
                target="executorch",
                precision="fp32",
                files=tuple(describe(name, content) for name, content in files.items()),
                inputs=made.inputs,
                outputs=made.outputs,
                requires=Requirement(packages=("executorch",), options=made.options),
                parity=Parity(cosine=1, max_abs=0, samples=4, tolerance=Tolerance(cosine=0.999)),
                not_measured="made by hand for tests",
                chosen=True,
            ),
        ),
        golden=describe("golden.npz", members["golden.npz"]),
        provenance=Provenance(source_format="", source_name="", source_sha256="", tools={}),
    )
    path = folder / "classifier-1.edgeml"
    write_bundle(path, manifest, members)
    return path


@contextlib.contextmanager
def agent_of(bundle: Path, state: Path) -> Iterator[Path]:
    """The socket of an agent that serves it; ended with the block, in order."""
    command = [sys.executable, "-m", "edgeml", "agent", "run", "--http", "", "--state", str(state)]
    agent = subprocess.Popen([*command, "--bundle", str(bundle)], stderr=subprocess.PIPE, text=True)
    assert agent.stderr is not None
    try:
        said = []
        for line in agent.stderr:
            said.append(line)
            if found := re.search(r" ready .*socket=(\S+)", line):
                yield Path(found[1])
                break
        else:
            raise AssertionError("the agent did not come up:\n" + "".join(said))
    finally:
        agent.terminate()
        agent.communicate(timeout=60)
    assert agent.returncode == 0


def test_a_whole_agent_proves_measures_and_serves_it(
    make: Make, sources: Mapping[str, Source], tmp_path: Path
):
    source = sources["classifier"]
    bundle = bundle_of(make("classifier", "executorch", "fp32"), source, tmp_path)
    with agent_of(bundle, tmp_path / "state") as socket, edgeml.Client(socket) as client:
        for row in range(8):
            feeds = {key: array[row : row + 1] for key, array in source.feeds.items()}
            found = client.infer(feeds, model="classifier")
            for key, expected in source.expected.items():
                np.testing.assert_allclose(found[key], expected[row : row + 1], atol=1e-4)
        (model,) = client.get("/edgeml/v1/status")["models"]
    assert (model["artifact"], model["phase"]) == ("executorch-fp32", "active")
    assert model["outcomes"] == {"served": 8, "late": 0, "shed": 0, "failed": 0}
    assert model["profile"]["p99_ms"] > 0
