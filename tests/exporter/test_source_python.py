"""``--python``: a factory that runs in an interpreter which has no edgeml."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support.exports import SUPPORT, Export, Models
from support.opening import read, reference

from edgeml.bundle import Tensor
from edgeml.data import parse_source
from edgeml.errors import SourceError, ToolchainError
from edgeml.exporter.child import Child
from edgeml.exporter.preprocessing import load, put_in_front
from edgeml.exporter.samples import calibrate
from edgeml.exporter.sources.forms import ArrayShape

FILE = SUPPORT / "export_abroad.py"
IMAGES = np.random.default_rng(0).normal(0, 1, (6, 1, 8, 8)).astype("float32")
GAINS = np.random.default_rng(1).normal(1, 1, (6, 3)).astype("float32")


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with the frameworks of this one, and without edgeml."""
    folder = tmp_path_factory.mktemp("abroad")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder that is named so has its own .pth files left alone, edgeml's among them.
    (site / "frameworks.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return str(folder / "bin" / "python")


@pytest.fixture
def child(torch_child: Child) -> Child:
    """What stays on this side needs torch, too."""
    return torch_child


def test_a_torch_factory_hands_over_a_program(child: Child, abroad: str, tmp_path: Path):
    opened = read(child, f"{FILE}:net", tmp_path, python=abroad)
    assert (opened.kind, len(opened.sha256)) == ("torch", 64)
    assert opened.title.startswith("PyTorch 2.")
    assert opened.title.endswith("module, in a Python of its own")
    assert [tensor.name for tensor in opened.inputs] == ["image", "gain"]
    assert [tensor.name for tensor in opened.outputs] == ["scores"]
    theirs = reference(child, opened, IMAGES, GAINS)["scores"]
    assert theirs.shape == (6, 3)
    # What was handed over answers as theirs does.
    import torch

    ours = torch.export.load(opened.path).module()
    found = ours(torch.from_numpy(IMAGES[:1]), gain=torch.from_numpy(GAINS[:1]))["scores"]
    np.testing.assert_allclose(found.detach().numpy(), theirs[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("factory", "opset"), [("of_another_version", "opset 18"), ("of_torch_1_12", "opset 16")]
)
def test_a_torch_of_another_version_hands_over_onnx(
    child: Child, abroad: str, tmp_path: Path, factory: str, opset: str
):
    opened = read(child, f"{FILE}:{factory}", tmp_path, python=abroad)
    assert opened.kind == "onnx"
    assert opset in opened.title
    assert "do not read each other's files" in opened.notes[0]
    assert [tensor.name for tensor in opened.inputs] == ["image", "gain"]
    theirs = reference(child, opened, IMAGES, GAINS)["scores"]
    session = onnxruntime.InferenceSession(opened.path)
    (found,) = session.run(["scores"], {"image": IMAGES[:1], "gain": GAINS[:1]})
    np.testing.assert_allclose(found, theirs[:1], atol=1e-5)


def test_an_estimator_is_converted_by_their_skl2onnx(child: Child, abroad: str, tmp_path: Path):
    opened = read(child, f"{FILE}:logistic", tmp_path, python=abroad)
    assert opened.kind == "classical"
    assert opened.outputs[1].feature_names == ("setosa", "versicolor", "virginica")
    rows = np.random.default_rng(0).uniform(0, 8, (9, 4)).astype("float32")
    theirs = reference(child, opened, rows)
    session = onnxruntime.InferenceSession(opened.path)
    for row in range(len(rows)):
        label, probabilities = session.run(["label", "probabilities"], {"X": rows[row : row + 1]})
        assert label == theirs["label"][row : row + 1]
        np.testing.assert_allclose(probabilities[0], theirs["probabilities"][row], atol=1e-5)


def test_a_keras_model_hands_over_a_saved_model(
    tensorflow_child: Child, abroad: str, tmp_path: Path
):
    opened = read(tensorflow_child, f"{FILE}:keras_model", tmp_path, python=abroad)
    assert opened.kind == "savedmodel"
    images = IMAGES.transpose(0, 2, 3, 1)
    (found,) = reference(tensorflow_child, opened, images).values()
    assert found.shape == (6, 3)


@pytest.mark.parametrize(
    ("factory", "found", "remedy"),
    [
        ("raises", "ValueError: the weights are gone", "The log has the whole trace"),
        ("lacks", "No module named 'a_package_of_theirs'", "-m pip install a_package_of_theirs"),
        ("number", "export_abroad.py:number returns int", "Have the function build"),
        ("nett", "has no 'nett'", "Check the name"),
    ],
)
def test_errors_of_theirs_are_told(
    child: Child, abroad: str, tmp_path: Path, factory: str, found: str, remedy: str
):
    with pytest.raises(SourceError) as caught:
        read(child, f"{FILE}:{factory}", tmp_path, python=abroad)
    assert found in caught.value.found
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)
    if factory in {"raises", "lacks"}:
        assert caught.value.found.startswith(f"{FILE}:")


def test_an_interpreter_that_dies_is_told(child: Child, abroad: str, tmp_path: Path):
    with pytest.raises(ToolchainError, match="ended while it ran export_abroad.py:leaves"):
        read(child, f"{FILE}:leaves", tmp_path, python=abroad)


def test_shapes_come_from_the_data(child: Child, abroad: str, tmp_path: Path):
    user = tmp_path / "user.py"
    user.write_text("import torch\ndef linear():\n    return torch.nn.Linear(4, 2)\n")
    shape = ArrayShape("", (4,), "float64")
    assert read(child, f"{user}:linear", tmp_path, shape, python=abroad).inputs[0].shape == (1, 4)


@pytest.mark.parametrize(
    ("python", "found"),
    [("folder", "is a folder"), ("data", "cannot be run"), ("/bin/echo", "is no Python")],
)
def test_what_is_no_interpreter(child: Child, tmp_path: Path, python: str, found: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "data").touch()
    path = python if python.startswith("/") else str(tmp_path / python)
    with pytest.raises(SourceError, match=found) as caught:
        read(child, f"{FILE}:net", tmp_path, python=path)
    assert "Python" in caught.value.expected


def test_a_whole_export_with_their_interpreter(export: Export, abroad: str, tmp_path: Path):
    np.savez(tmp_path / "data.npz", image=IMAGES, gain=GAINS)
    outcome = export(
        model=f"{FILE}:net",
        python=abroad,
        targets=["onnx"],
        precision="fp32",
        evaluation=str(tmp_path / "data.npz"),
        output=str(tmp_path),
    )
    assert outcome.status == 0
    bundle = outcome.bundle()
    assert "in a Python of its own" in bundle.manifest.provenance.source_format
    assert json.loads(bundle.read("edgeml.lock"))["theirs"]["torch"]


IMAGE = Tensor(name="image", shape=(1, 1, 8, 8), dtype="float32")
GAIN = Tensor(name="gain", shape=(1, 3), dtype="float32")


def test_code_that_gives_samples_runs_in_their_interpreter(
    child: Child, abroad: str, tmp_path: Path
):
    source = parse_source(f"{FILE}:samples")
    found = calibrate.read(source, [IMAGE], child, tmp_path, python=abroad)
    expected = np.random.default_rng(0).normal(0, 1, (40, 1, 8, 8)).astype("float32")
    np.testing.assert_array_equal(found.inputs["image"], expected)
    assert found.labels is not None
    assert found.labels.tolist() == [index % 3 for index in range(40)]


def test_batches_by_name_come_over_in_their_order(child: Child, abroad: str, tmp_path: Path):
    source = parse_source(f"{FILE}:batches")
    found = calibrate.read(source, [GAIN, IMAGE], child, tmp_path, python=abroad)
    assert found.inputs["image"][::20, 0, 0, 0].tolist() == [0, 20, 40]
    assert found.inputs["gain"].shape == (60, 3)
    assert found.labels is not None
    assert found.labels.tolist() == list(range(60))


def test_samples_come_over_some_at_a_time(child: Child, abroad: str, tmp_path: Path):
    tensor = Tensor(name="image", shape=(1, 1, 384, 384), dtype="float32")
    source = parse_source(f"{FILE}:large")
    found = calibrate.read(source, [tensor], child, tmp_path, python=abroad)
    assert found.inputs["image"][:, 0, 5, 5].tolist() == list(range(200))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("broken", "ValueError: the second file is gone"),
        ("words", "export_abroad.py:words gives str"),
        ("sample", "has no 'sample'"),
    ],
)
def test_code_of_samples_that_fails_there_is_told(
    child: Child, abroad: str, tmp_path: Path, name: str, found: str
):
    source = parse_source(f"{FILE}:{name}")
    with pytest.raises(SourceError) as caught:
        calibrate.read(source, [IMAGE], child, tmp_path, python=abroad)
    assert found in caught.value.found
    assert str(FILE) in caught.value.found


def test_an_export_whose_shapes_only_the_code_of_its_samples_shows(
    export: Export, abroad: str, tmp_path: Path
):
    outcome = export(
        model=f"{FILE}:bare",
        python=abroad,
        targets=["onnx"],
        precision="fp32",
        calibration=f"{FILE}:samples",
        evaluation=f"{FILE}:samples",
        output=str(tmp_path),
    )
    assert outcome.status == 0
    manifest = outcome.bundle().manifest
    assert manifest.inputs[0].shape == (1, 1, 8, 8)
    assert manifest.provenance.evaluation is not None
    assert manifest.provenance.evaluation.count == 40


def test_a_model_that_is_a_file_with_samples_of_their_code(
    export: Export, models: Models, abroad: str, tmp_path: Path
):
    outcome = export(
        model=str(models.torch / "net.onnx"),
        python=abroad,
        targets=["onnx"],
        precision="fp32",
        calibration=f"{FILE}:samples",
        output=str(tmp_path),
    )
    assert outcome.status == 0
    assert outcome.bundle().manifest.provenance.calibration is not None


CAMERA = """
[image]
kind = "image"
shape = [8, 8, 1]
order = "grey"
steps = [{ step = "normalize", mean = [100], std = [50] }, { step = "layout", to = "NCHW" }]
"""


def test_preprocessing_stands_in_front_of_what_was_handed_over(
    child: Child, abroad: str, tmp_path: Path
):
    opened = read(child, f"{FILE}:net", tmp_path, python=abroad)
    (tmp_path / "camera.toml").write_text(CAMERA)
    raw = np.random.default_rng(2).integers(0, 256, (6, 8, 8, 1)).astype("uint8")
    images = (raw.transpose(0, 3, 1, 2).astype("float32") - 100) / 50
    theirs = reference(child, opened, images, GAINS)
    wrapped = put_in_front(load(tmp_path / "camera.toml"), opened, child).source
    ours = reference(child, wrapped, raw, GAINS)
    np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=1e-4)
