"""What an export imports before anything of its request is looked over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.exporter.children import Children
from edgeml.exporter.foresight import foresee, guess
from edgeml.exporter.origin import possible
from edgeml.exporter.request import ExportRequest

pytestmark = pytest.mark.skipif(not possible(), reason="frameworks survive a fork on Linux alone")


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    made = Children(tmp_path / "log.txt")
    yield made
    made.close()


def request(folder: Path, code: str, *targets: str) -> ExportRequest:
    (folder / "model.py").write_text(code)
    return ExportRequest(model=f"{folder / 'model.py'}:trained", targets=targets)


def test_torch_is_imported_once_where_reader_and_converter_begin_with_it(
    tmp_path: Path, children: Children
):
    foresee(request(tmp_path, "import torch", "tflite", "openvino"), children)
    assert children.foreseen


@pytest.mark.parametrize(("target", "foreseen"), [("tflite", True), ("openvino", False)])
def test_tensorflow_is_imported_once_where_reader_and_converter_begin_with_it(
    tmp_path: Path, children: Children, target: str, foreseen: bool
):
    (tmp_path / "saved_model.pb").touch()
    foresee(ExportRequest(model=str(tmp_path), targets=(target,)), children)
    assert children.foreseen is foreseen


@pytest.mark.parametrize(
    ("code", "targets"),
    [
        ("import keras", ("openvino",)),  # the reader has no use for torch
        ("import torch", ("onnx-cuda",)),  # nothing is known of what the converter begins with
        ("import torch", ("no-such-target",)),
    ],
)
def test_nothing_is_imported_for_one_of_them_alone(
    tmp_path: Path, children: Children, code: str, targets: tuple[str, ...]
):
    foresee(request(tmp_path, code, *targets), children)
    assert not children.foreseen


def test_a_wrong_request_is_told_of_later(tmp_path: Path, children: Children):
    foresee(ExportRequest(model=str(tmp_path / "lost.pt2"), targets=("onnx",)), children)
    assert not children.foreseen


@pytest.mark.parametrize(
    ("line", "foreseen"),
    [
        ("{model} -t tflite openvino --calibration {data}", True),
        ("--calibration {data} -t openvino,tflite {model}", True),
        ("-t openvino {model} --json", True),
        ("{data} -t openvino --calibration {model}", False),
        ("-t {model}", False),
        ("{model}", False),
        ("", False),
    ],
)
def test_a_command_line_that_nobody_has_read_tells_as_much(
    tmp_path: Path, children: Children, line: str, foreseen: bool
) -> None:
    model = request(tmp_path, "import torch", "openvino").model
    guess(line.format(model=model, data=tmp_path / "data.npz").split(), children)
    assert children.foreseen is foreseen
