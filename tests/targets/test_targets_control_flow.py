"""Branches and loops: each target runs them as the source does, or refuses and names them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.branches import EXPECTED, save

from edgeml.errors import RefusedError
from edgeml.targets.compiling import CompileJob, compile_here
from edgeml.targets.registry import TARGETS, can_make
from edgeml.targets.runtime import NamedSession, open_session

REFUSED = {
    ("torch", "branch", "tflite"): "LiteRT has no operator for cond",
    ("torch", "branch", "coreml"): "Core ML has no operator for cond",
    ("torch", "turns", "openvino"): "OpenVINO has no operator for while_loop",
} | {
    ("torch", name, target): f"{title} has no operator for while_loop"
    for name in ("turns", "until")
    for target, title in (
        ("tflite", "LiteRT"),
        ("executorch", "ExecuTorch"),
        ("coreml", "Core ML"),
    )
}
CELLS = [
    pytest.param(kind, name, row.name, id=f"{kind}-{name}-{row.name}")
    for kind in ("torch", "savedmodel", "onnx")
    for name in EXPECTED
    for row in TARGETS.values()
    if can_make(row, kind) is None and not row.needs_nvidia
]


@pytest.mark.parametrize(("kind", "name", "target"), CELLS)
def test_control_flow_works_or_is_named(
    kind: str, name: str, target: str, tmp_path: Path, request: pytest.FixtureRequest
):
    source = save(kind, name, tmp_path)
    job: CompileJob = source.job("fp32", tmp_path / "work", None)
    if toolchain := TARGETS[target].bridges.get(source.kind):
        job = msgspec.structs.replace(job, bridge=request.getfixturevalue(toolchain))
    refusal = REFUSED.get((kind, name, target))
    if refusal is not None:
        with pytest.raises(RefusedError, match=refusal) as caught:
            compile_here(target, job)
        assert "choose with where" in caught.value.remedy
        return
    made = compile_here(target, job)
    if TARGETS[target].runs_on:
        return
    session = open_session(target, made.files[0], options=made.options)
    with NamedSession(session, made.inputs, made.outputs) as named:
        for row, expected in zip(source.feeds["x"], source.expected["y"], strict=True):
            found = named.run({"x": row[np.newaxis]})["y"]
            np.testing.assert_allclose(found, expected[np.newaxis], rtol=1e-5)
