"""Live models in ``edgeml.export``: each framework in a program of its own, as a user's is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.exports import SUPPORT

from edgeml.toolchain import store
from edgeml.toolchain.spec import TOOLCHAINS

HEAD = """
import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"
sys.path.insert(0, {support!r})
import numpy as np

import edgeml
from edgeml.exporter.events import Stage

OUT = {out!r}
"""

KERAS = """
import keras
from export_keras import digits, network

images, labels = digits()
model = network(keras, images[:500], labels[:500])
images, labels = images[500:600], labels[500:600]
stages = []
for _ in range(2):
    result = edgeml.export(
        model, "tflite", evaluate={"image": images, "labels": labels}, precision="fp32",
        output=OUT, name="live",
        on_event=lambda event: stages.append(event.name) if isinstance(event, Stage) else None,
    )
assert stages.count("pack") == 1, stages  # the same model is the same file
(row,) = result.chosen
assert row.accuracy > .8
with edgeml.Session(result.bundle) as session:
    found = np.concatenate([session.run(image)["scores"] for image in images[:5]])
np.testing.assert_allclose(found, model.predict(images[:5], verbose=0), atol=1e-3)
"""

OWN_LAYER = """
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x

keras.utils.set_random_seed(0)
image = keras.Input((4,), name="x")
model = keras.Model(image, Doubled()(keras.layers.Dense(3)(image)))
rows = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
result = edgeml.export(model, "openvino", calibration=rows, precision="fp32", output=OUT)
with edgeml.Session(result.bundle) as session:
    (found,) = session.run(rows[0]).values()
np.testing.assert_allclose(found, model.predict(rows[:1], verbose=0), atol=1e-4)
"""

KERAS_2 = """
import tf_keras
from export_keras import digits, network

images, labels = digits()
model = network(tf_keras, images[:500], labels[:500])
result = edgeml.export(model, "onnx", calibration=images[500:550], precision="fp32", output=OUT)
assert any("tf-keras" in note.text for note in result.notes), result.notes
with edgeml.Session(result.bundle) as session:
    (found,) = session.run(images[500]).values()
np.testing.assert_allclose(found, model.predict(images[500:501], verbose=0), atol=1e-3)
"""

OF_ANOTHER_VERSION = """
import torch
from export_torch import Net, digits

from edgeml.toolchain import install, store

# As if the converters stood elsewhere, and this torch wrote what theirs does not read.
store.serves_in_place = lambda spec: False
torch.__version__ = "9.1.0"

def save(program, path):
    with open(path, "wb") as stream:
        stream.write(b"of a version to come")

torch.export.save = save
images, _ = digits()
result = edgeml.export(
    Net(), "onnx", calibration=images[:40], precision="fp32", output=OUT, name="later"
)
assert "the model went over as ONNX" in result.notes[0].text, result.notes
with edgeml.Session(result.bundle) as session:
    assert [each.name for each in session.inputs] == ["image"]
    found = session.run(images[0])["logits"]
with torch.no_grad():
    expected = Net()(torch.from_numpy(images[:1]))["logits"].numpy()
np.testing.assert_allclose(found, expected, atol=1e-4)
"""

UNREADABLE = (
    OF_ANOTHER_VERSION.split("result =", maxsplit=1)[0]
    + """
import importlib.util

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "onnx" else found(name, *rest)
try:
    edgeml.export(Net(), "onnx", calibration=images[:40], precision="fp32", output=OUT)
except edgeml.EdgemlError as error:
    assert "do not read each other's files" in error.found, error
    assert "pip install onnx onnxscript" in error.remedy, error
else:
    raise AssertionError("it was exported")
"""
)


def run(program: str, folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HEAD.format(support=str(SUPPORT), out=str(folder)) + program],
        env={**os.environ, "EDGEML_CACHE": str(folder / "cache"), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert not list(folder.glob("edgeml-*"))  # no temporary folder is left


def test_a_keras_model_and_one_with_a_layer_of_its_own_code(tmp_path: Path):
    run(KERAS + OWN_LAYER, tmp_path)


def test_a_model_of_keras_2(tmp_path: Path):
    run(KERAS_2, tmp_path)


@pytest.fixture
def elsewhere() -> None:
    """The toolchain ``export``, which these tests do not make: it takes minutes."""
    if store.find(TOOLCHAINS["export"]).state != "installed":
        message = "needs the toolchain export: `make test` installs it"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)


@pytest.mark.usefixtures("elsewhere")
def test_a_module_of_a_torch_whose_programs_are_not_read_here(tmp_path: Path):
    run(OF_ANOTHER_VERSION, tmp_path)


@pytest.mark.usefixtures("elsewhere")
def test_what_it_takes_to_go_over_as_onnx(tmp_path: Path):
    run(UNREADABLE, tmp_path)
