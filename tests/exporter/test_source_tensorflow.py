"""What TensorFlow's models are normalised to holds all that they compute with, and no code."""

import base64
import json
import marshal
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.exports import Models
from support.opening import read, reference

from edgeml.errors import SourceError
from edgeml.exporter.child import Child
from edgeml.exporter.children import Children


def test_a_model_keeps_its_table(models: Models, tensorflow_child: Child, tmp_path: Path):
    opened = read(tensorflow_child, str(models.keras / "table"), tmp_path)
    # Another process has nothing but what was written.
    with Children(tmp_path / "log.txt").child() as other:
        (found,) = reference(other, opened, np.array([[2], [0], [1], [7]])).values()
    assert found.ravel().tolist() == [60, 20, 40, -2]
    assert not (tmp_path / "served").exists()  # it was loaded whole


def test_what_training_left_in_a_model_is_not_loaded(
    models: Models, tensorflow_child: Child, tmp_path: Path
):
    model = models.keras / "fitted"
    opened = read(tensorflow_child, str(model), tmp_path)
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    (found,) = reference(tensorflow_child, opened, rows).values()
    answers = np.load(models.keras / "fitted.npy")
    np.testing.assert_allclose(found, answers, rtol=1e-5, atol=1e-6)
    whole, cut = (
        (folder / "saved_model.pb").stat().st_size for folder in (model, tmp_path / "served")
    )
    assert cut < whole / 2


def test_a_layer_of_a_keras_2_file_that_is_code(
    tensorflow_child: Child, models: Models, tmp_path: Path
):
    """Keras 3 refuses the file for another reason first, and tf-keras would run it."""
    mark = tmp_path / "it-ran"
    layer = eval(f"lambda x: (open({str(mark)!r}, 'w'), x)[1]")
    path = tmp_path / "old.h5"
    path.write_bytes((models.keras / "old.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layers = {each["config"]["name"]: each for each in config["config"]["layers"]}
        flatten = layers["flatten"]
        flatten["class_name"] = "Lambda"
        flatten["config"] = {
            "name": "flatten",
            "function": [base64.b64encode(marshal.dumps(layer.__code__)).decode(), None, None],
            "function_type": "lambda",
            "module": "__main__",
            "output_shape": None,
            "output_shape_type": "raw",
            "output_shape_module": None,
            "arguments": {},
        }
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(SourceError, match="holds a Lambda layer, which is code") as caught:
        read(tensorflow_child, str(path), tmp_path)
    assert "SavedModel" in caught.value.remedy
    assert not mark.exists()
