"""A float ``.tflite`` as a source."""

from pathlib import Path

import numpy as np
import pytest
from support.exports import Export, Models
from support.opening import read, reference

from edgeml.errors import SourceError
from edgeml.exporter.child import Child
from edgeml.exporter.children import Children


def test_a_float_file_is_taken_as_it_is_with_a_batch_of_one(
    tmp_path: Path, models: Models, tmp_path_factory: pytest.TempPathFactory
):
    with Children(tmp_path_factory.mktemp("log") / "log.txt").child() as child:
        opened = read(child, str(models.keras / "net.tflite"), tmp_path)
        assert opened.kind == "tflite"
        assert [(each.name, each.shape) for each in opened.inputs] == [("image", (1, 8, 8, 1))]
        assert [(each.name, each.shape) for each in opened.outputs] == [("output_0", (1, 10))]
        with np.load(models.keras / "evaluation.npz") as data:
            found = reference(child, opened, data["image"])["output_0"]
            assert (found.argmax(axis=1) == data["labels"]).mean() > 0.9


def test_a_quantized_file_is_refused(tmp_path: Path, models: Models, tensorflow_child: Child):
    with pytest.raises(SourceError, match=r"int8\.tflite is quantized already: .* is int8") as e:
        read(tensorflow_child, str(models.keras / "int8.tflite"), tmp_path)
    assert "Give the float .tflite" in e.value.remedy


def test_a_file_that_was_cut_short(tmp_path: Path, models: Models, tensorflow_child: Child):
    content = (models.keras / "net.tflite").read_bytes()
    (tmp_path / "net.tflite").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="is cut short, damaged"):
        read(tensorflow_child, str(tmp_path / "net.tflite"), tmp_path)


def test_a_float_file_becomes_a_bundle(models: Models, export: Export, tmp_path: Path):
    outcome = export(
        model=str(models.keras / "net.tflite"),
        targets=["tflite", "onnx"],
        evaluation=str(models.keras / "evaluation.npz"),
        precision="fp32",
        output=str(tmp_path),
    )
    assert outcome.status == 0
    assert {artifact.id for artifact in outcome.bundle().manifest.artifacts} == {
        "tflite-fp32",
        "onnx-fp32",
    }
    assert outcome.bundle().manifest.provenance.source_format == "LiteRT model"
