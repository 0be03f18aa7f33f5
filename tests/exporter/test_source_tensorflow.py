"""What TensorFlow's models are normalised to holds all that they compute with."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from support.exports import SUPPORT
from support.opening import read, reference

from edgeml.exporter.child import Child
from edgeml.exporter.children import Children


def test_a_model_keeps_its_table(tensorflow_child: Child, tmp_path: Path):
    model = tmp_path / "table"
    subprocess.run([sys.executable, SUPPORT / "table_model.py", model], check=True)
    opened = read(tensorflow_child, str(model), tmp_path)
    # Another process has nothing but what was written.
    with Children(tmp_path / "log.txt").child() as other:
        (found,) = reference(other, opened, np.array([[2], [0], [1], [7]])).values()
    assert found.ravel().tolist() == [60, 20, 40, -2]
    assert not (tmp_path / "served").exists()  # it was loaded whole


def test_what_training_left_in_a_model_is_not_loaded(tensorflow_child: Child, tmp_path: Path):
    model, answers = tmp_path / "trained", tmp_path / "answers.npy"
    subprocess.run([sys.executable, SUPPORT / "trained_model.py", model, answers], check=True)
    opened = read(tensorflow_child, str(model), tmp_path)
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    (found,) = reference(tensorflow_child, opened, rows).values()
    np.testing.assert_allclose(found, np.load(answers), rtol=1e-5, atol=1e-6)
    whole, cut = (
        (folder / "saved_model.pb").stat().st_size for folder in (model, tmp_path / "served")
    )
    assert cut < whole / 2
