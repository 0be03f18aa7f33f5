"""What is converted twice is the same twice, byte for byte: every kind of source, every target and
precision, in two processes that share neither a folder nor the order of their sets or tasks.

What stands around the artifacts (golden vectors, statistics, the lock) is made again where whole
exports are tested: of PyTorch and Keras in test_export_roads, of ONNX in test_export_again,
of scikit-learn in test_source_classical.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.convert_cells import CELLS
from support.exports import SUPPORT, Models

from edgeml.exporter.child import ENVIRONMENT

Told = Mapping[str, Any]


NAMES = ["-".join(cell) for cell in CELLS]


def convert_all(folder: Path, models: Models, seed: str, cells: list[str]) -> Told:
    """Of each cell what came out, in a process of its own."""
    for name in ("tmp", "cwd", "work"):
        (folder / name).mkdir(parents=True)
    ended = subprocess.run(
        [
            *(sys.executable, "-P", str(SUPPORT / "convert_cells.py")),
            *map(str, (models.torch, models.keras, folder / "work")),
            *cells,
        ],
        cwd=folder / "cwd",
        env={
            **os.environ,
            **ENVIRONMENT,
            "PYTHONHASHSEED": seed,
            "TMPDIR": str(folder / "tmp"),
            "EXPORT_TEST_FOLDER": str(models.torch),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout.decode()[-3000:]
    return json.loads((folder / "work" / "told.json").read_text())


@pytest.fixture(scope="module")
def twice(
    models: Models, onnx2tf_wanted: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Told, Told]:
    """One after the other: each holds all frameworks at once. What a conversion gives must not
    follow from those before it either, so the second goes through the table from its end."""
    folder = tmp_path_factory.mktemp("cells")
    return (
        convert_all(folder / "once", models, "0", NAMES),
        convert_all(folder / "in a longer folder" / "again", models, "12345", NAMES[::-1]),
    )


@pytest.mark.parametrize("cell", NAMES)
def test_a_conversion_gives_the_same_bytes_twice(cell: str, twice: tuple[Told, Told]):
    once, again = twice
    assert "error" not in once[cell]
    assert once[cell]["files"]
    assert again[cell] == once[cell]


def test_the_cells_are_all_that_the_issue_names():
    """A table that lost its rows would pass every test above."""
    kinds, targets, precisions = (set(each) for each in zip(*CELLS, strict=True))
    assert kinds == {"torch", "keras", "onnx", "sklearn"}
    assert {"onnx", "openvino", "tflite", "executorch", "coreml", "onnx-cuda"} == targets
    assert {"fp32", "fp16", "int8", "int8-weights", "int16x8", "mixed"} < precisions
    assert ("onnx", "tflite", "int16x8") in CELLS
    assert ("keras", "openvino", "mixed") in CELLS
