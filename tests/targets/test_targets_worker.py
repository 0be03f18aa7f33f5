"""ExecuTorch in a device agent's worker: another process, shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from support.conversions import Make, Source

from edgeml.device_agent.worker.layout import Layout, TensorSpec
from edgeml.device_agent.worker.parent import Worker
from edgeml.device_agent.worker.wire import WorkerSpec


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
