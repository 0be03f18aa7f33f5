"""Every cell that the table refuses is refused by looking the request over: nothing is read, and
nothing heavy imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeml.exporter.plan import plan
from edgeml.exporter.request import ExportRequest
from edgeml.targets.registry import SOURCE_KINDS, TARGETS

FILES = {
    "net.pt2": b"PK\x05\x06" + bytes(18),
    "net.h5": b"\x89HDF\r\n",
    "net.onnx": b"\x08\x0a",
    "net.tflite": b"\x1c\0\0\0TFL3",
    "trees.json": b'{"learner":',
}
"""The first bytes are all that is looked at; a file a kind of source."""

PROGRAM = """
import sys
from typing import get_args

from edgeml.bundle.manifest import Precision
from edgeml.errors import EdgemlError
from edgeml.exporter.plan import plan
from edgeml.exporter.request import ExportRequest
from edgeml.targets.registry import TARGETS, can_make

kinds = set()
for file in sys.argv[1:]:
    for target in TARGETS:
        for precision in get_args(Precision):
            request = ExportRequest(
                model=file, targets=(target,), precision=precision, calibration="data.npy"
            )
            found = plan(request)
            refusal = can_make(target, found.model.kind, precision)
            kinds.add(found.model.kind)
            if refusal is None:
                assert found.candidates and not found.refused, (file, target, precision)
            else:
                assert not found.candidates, (file, target, precision)
                assert found.refused == {target: refusal}
                assert refusal.reason and refusal.remedy
heavy = {"torch", "tensorflow", "onnx", "onnxruntime", "openvino", "sklearn", "ai_edge_litert"}
print(sorted(kinds), sorted(heavy & set(sys.modules)))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "data.npy", np.zeros(2))
    return tmp_path


def test_what_the_table_refuses_is_refused_before_anything_is_read(folder: Path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *FILES],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{sorted(SOURCE_KINDS)} []"


def test_raw_input_is_refused_where_the_target_cannot_take_it(folder: Path):
    (folder / "p.toml").write_text(
        '[image]\nkind = "image"\nshape = [8, 8, 3]\norder = "rgb"\n'
        'steps = [{ step = "layout", to = "NHWC" }]\n'
    )
    request = ExportRequest(
        model=str(folder / "net.h5"),
        targets=tuple(TARGETS),
        calibration=str(folder / "data.npy"),
        preprocessing=str(folder / "p.toml"),
    )
    found = plan(request)
    assert set(found.refused) == {"coreml", "executorch"}  # the latter takes no Keras model
    assert "uint8 or int16" in found.refused["coreml"].reason
    assert {each.target for each in found.candidates} == set(TARGETS) - set(found.refused)
