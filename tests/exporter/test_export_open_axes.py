"""Axes that stay open: kept where the target can, whatever the model was made with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.exports import SUPPORT, Export, Models
from support.signals import signal

from edgeml.api.session import Session
from edgeml.cli import main
from edgeml.errors import SourceError

SIGNALS = np.random.default_rng(0).normal(0, 1, (24, 3, 20)).astype("float32")
"""Of torch: channels first; Keras takes [n, 20, 3]."""


def answers(folder: Path) -> dict[int, np.ndarray]:
    """What the model itself made of a signal of each length, in a process of its own."""
    return {int(name): array for name, array in np.load(folder / "along.npz").items()}


def agree(bundle: Path, wanted: dict[int, np.ndarray], *, last: bool = False) -> None:
    """Each artifact takes any length, and answers as the model does."""
    for target in ("onnx", "openvino"):
        with Session(bundle, target) as session:
            for length, scores in wanted.items():
                found = session.run(signal(length, last=last))["scores"]
                np.testing.assert_allclose(found, scores, atol=1e-4)


@pytest.fixture(scope="module")
def torch_answers(models: Models) -> dict[int, np.ndarray]:
    return answers(models.torch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, signal=SIGNALS)
    return path


@pytest.mark.parametrize("form", ["factory", "program"])
def test_of_a_torch_model(
    models: Models,
    export: Export,
    data: Path,
    torch_answers: dict[int, np.ndarray],
    tmp_path: Path,
    form: str,
    capsys: pytest.CaptureFixture[str],
):
    outcome = export(
        model=models.factory("along") if form == "factory" else str(models.torch / "along.pt2"),
        targets=["onnx", "openvino", "tflite", "executorch"],
        precision="fp32",
        calibration=str(data),
        shapes={"signal": [1, 3, -1]},
        output=str(tmp_path),
    )
    assert outcome.status == 1
    assert set(outcome.refused) == {"tflite", "executorch"}
    assert "a fixed length in every axis" in outcome.refused["tflite"].reason
    manifest = outcome.bundle().manifest
    assert manifest.inputs[0].shape == (1, 3, -1)
    assert {tensor.name: tensor.shape for tensor in manifest.outputs} == {
        "scores": (1, 4),
        "envelope": (1, -1),
    }
    agree(Path(outcome.done.bundle), torch_answers)
    # The command line takes another length, too.
    np.save(tmp_path / "longer.npy", signal(33, last=False))
    line = ["run", outcome.done.bundle, "--input", str(tmp_path / "longer.npy"), "--json"]
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)["outputs"]["scores"]
    np.testing.assert_allclose(found, torch_answers[33], atol=1e-4)


def test_of_a_keras_model(models: Models, export: Export, tmp_path: Path):
    np.savez(tmp_path / "data.npz", signal=SIGNALS.transpose(0, 2, 1))
    outcome = export(
        model=str(models.keras / "along.keras"),
        targets=["onnx", "openvino"],
        precision="fp32",
        calibration=str(tmp_path / "data.npz"),
        shapes={"signal": [1, -1, 3]},
        output=str(tmp_path / "out"),
    )
    assert outcome.status == 0
    assert outcome.bundle().manifest.inputs[0].shape == (1, -1, 3)
    agree(Path(outcome.done.bundle), answers(models.keras), last=True)


LIVE = """
import sys
import numpy as np
sys.path.insert(0, {support!r})
import edgeml
from export_torch import Along

edgeml.export(
    Along(), ["onnx", "openvino"], calibration=np.load({data!r})["signal"], precision="fp32",
    shapes={{"signal": (1, 3, -1)}}, output={out!r},
)
"""


def test_of_a_live_module(
    models: Models, data: Path, torch_answers: dict[int, np.ndarray], tmp_path: Path
):
    out = tmp_path / "along.edgeml"
    script = LIVE.format(support=str(SUPPORT), data=str(data), out=str(out))
    environment = {**os.environ, "EDGEML_CACHE": str(tmp_path / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    agree(out, torch_answers)
    with (
        Session(out, "onnx") as session,
        pytest.raises(SourceError, match="has shape"),
    ):
        session.run(np.zeros((1, 4, 20), np.float32))


def test_a_model_that_takes_one_length_is_refused(
    models: Models, export: Export, data: Path, tmp_path: Path
):
    outcome = export(
        model=models.factory("rigid"),
        targets=["onnx"],
        precision="fp32",
        calibration=str(data),
        shapes={"signal": [1, 3, -1]},
        output=str(tmp_path),
    )
    assert outcome.status == 1
    assert "torch.export cannot trace the module" in outcome.failure.found
    assert list(tmp_path.iterdir()) == []
