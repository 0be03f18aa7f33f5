"""What TensorFlow's models are normalised to holds all that they compute with."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from support.exports import SUPPORT
from support.opening import read, reference

from edgeml.exporter.child import Child, Children


def test_a_model_keeps_its_table(tensorflow_child: Child, tmp_path: Path):
    model = tmp_path / "table"
    subprocess.run([sys.executable, SUPPORT / "table_model.py", model], check=True)
    opened = read(tensorflow_child, str(model), tmp_path)
    # Another process has nothing but what was written.
    with Children(tmp_path / "log.txt").child() as other:
        (found,) = reference(other, opened, np.array([[2], [0], [1], [7]])).values()
    assert found.ravel().tolist() == [60, 20, 40, -2]
