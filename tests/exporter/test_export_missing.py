"""Missing values: NaN in the samples goes through where the model itself takes it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import export_classical
from support.exports import SUPPORT, Export, Models, Outcome

from edgeml.api.session import Session
from edgeml.cli import main

FILE = SUPPORT / "export_classical.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``gaps.npz``: 150 rows of 4 columns, every seventh value missing."""
    folder = tmp_path_factory.mktemp("missing")
    subprocess.run([sys.executable, str(FILE), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def imputed(export: Export, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """An imputer, a scaler and a classifier."""
    return export(
        model=f"{FILE}:imputed",
        targets=["onnx", "openvino"],
        calibration=str(folder / "gaps.npz"),
        output=str(tmp_path_factory.mktemp("bundle") / "imputed.edgeml"),
    )


@pytest.fixture(scope="module")
def gaps(folder: Path) -> np.ndarray:
    return np.load(folder / "gaps.npz")["X"]


def probabilities(bundle: Path, target: str, rows: np.ndarray) -> np.ndarray:
    with Session(bundle, target) as session:
        return np.concatenate([session.run(row)["probabilities"] for row in rows])


def test_a_pipeline_with_an_imputer_is_made_and_checked_on_rows_with_gaps(imputed: Outcome):
    assert imputed.status == 0
    bundle = imputed.bundle()
    (features,) = bundle.manifest.inputs
    assert features.missing
    for artifact in bundle.manifest.artifacts:
        assert artifact.parity is not None
        assert artifact.parity.agreement == 1
        assert artifact.parity.cosine > 0.9999


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_its_artifacts_answer_gaps_as_the_pipeline_does(
    imputed: Outcome, gaps: np.ndarray, target: str
):
    found = probabilities(Path(imputed.done.bundle), target, gaps)
    expected = export_classical.imputed().predict_proba(gaps)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_device_proves_them_on_golden_vectors_with_and_without_gaps(imputed: Outcome):
    lacking = np.isnan(imputed.bundle().golden().inputs["X"]).any(axis=1)
    assert 0 < lacking.sum() < len(lacking)


def test_the_baseline_counts_gaps_as_the_device_will(imputed: Outcome, gaps: np.ndarray):
    baseline = imputed.bundle().baseline()
    assert baseline is not None
    (features,) = (each for each in baseline.tensors if each.tensor == "X")
    invalid = [stream.counts[stream.grid.nan] for stream in features.streams]
    assert invalid == np.isnan(gaps).sum(axis=0).tolist()
    assert all(sum(stream.counts) == len(gaps) for stream in features.streams)


def test_edgeml_run_takes_rows_with_gaps(
    imputed: Outcome, gaps: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    np.save(tmp_path / "rows.npy", gaps[:5].astype(np.float64))
    bundle = imputed.done.bundle
    assert main(["run", bundle, "--input", str(tmp_path / "rows.npy"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = export_classical.imputed().predict_proba(gaps[:5])
    np.testing.assert_allclose(found["outputs"]["probabilities"], expected, atol=1e-5)
    rows = gaps[:5].copy()
    rows[3, 1] = np.inf
    np.save(tmp_path / "rows.npy", rows)
    assert main(["run", bundle, "--input", str(tmp_path / "rows.npy")]) == 1
    assert "NaN or infinite, the first in sample 3" in capsys.readouterr().err


@pytest.mark.parametrize("factory", ["boosted_gaps", "light_gaps"])
def test_boosters_take_missing_values_natively(
    export: Export, folder: Path, tmp_path: Path, gaps: np.ndarray, factory: str
):
    outcome = export(
        model=f"{FILE}:{factory}",
        targets=["onnx", "openvino"],
        evaluation=str(folder / "gaps.npz"),
        output=str(tmp_path / "trees.edgeml"),
    )
    assert outcome.status == 0
    assert outcome.bundle().manifest.inputs[0].missing
    expected = getattr(export_classical, factory)().predict_proba(gaps)
    for target in ("onnx", "openvino"):
        found = probabilities(tmp_path / "trees.edgeml", target, gaps)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_trees_in_another_toolchain_s_operators_take_them_too(
    export: Export, folder: Path, tmp_path: Path, gaps: np.ndarray
):
    outcome = export(
        model=f"{FILE}:boosted_gaps",
        targets=["tflite"],
        calibration=str(folder / "gaps.npz"),
        output=str(tmp_path / "trees.edgeml"),
    )
    assert outcome.status == 0
    expected = export_classical.boosted_gaps().predict_proba(gaps)
    found = probabilities(tmp_path / "trees.edgeml", "tflite", gaps)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_that_does_not_take_gaps_is_refused_with_its_own_words(
    export: Export, folder: Path, tmp_path: Path
):
    outcome = export(
        model=f"{FILE}:signs",
        targets=["onnx"],
        calibration=str(folder / "gaps.npz"),
        output=str(tmp_path),
    )
    assert outcome.status == 1
    found = outcome.failure.found
    assert "'X' in " in found
    assert "values that are NaN or infinite, the first in sample" in found
    assert "the model does not take them" in found
    assert "Input X contains NaN" in found
    assert outcome.failure.expected == "finite numbers"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def broken_images(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 digits; one pixel of every third is missing."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    images = np.load(models.torch / "calibration.npz")["image"]
    images[::3, 0, 4, 4] = np.nan
    np.savez(path, image=images)
    return path


def test_a_torch_module_that_mends_gaps_is_quantized_on_whole_samples(
    models: Models, export: Export, broken_images: Path, tmp_path: Path
):
    outcome = export(
        model=models.factory("mended"),
        targets=["onnx"],
        calibration=str(broken_images),
        output=str(tmp_path),
        tolerances={"int8": {"cosine": 0.0, "agreement": 0.0}},
    )
    assert outcome.status == 0
    assert outcome.rows["onnx-fp32"].agreement == 1
    assert outcome.rows["onnx-int8"].cosine > 0.98
    assert outcome.bundle().manifest.inputs[0].missing


def test_without_a_whole_sample_nothing_can_be_quantized(
    models: Models, export: Export, broken_images: Path, tmp_path: Path
):
    images = np.load(broken_images)["image"]
    np.savez(tmp_path / "images.npz", image=images[::3])
    outcome = export(
        model=str(models.torch / "mended.onnx"),
        targets=["onnx"],
        calibration=str(tmp_path / "images.npz"),
        output=str(tmp_path / "out"),
    )
    assert outcome.status == 0
    assert set(outcome.rows) == {"onnx-fp32"}
    refused = export(
        model=str(models.torch / "mended.onnx"),
        targets=["onnx"],
        calibration=str(tmp_path / "images.npz"),
        precision="int8",
        output=str(tmp_path / "out"),
    )
    assert refused.status == 1
    assert "Every calibration sample has a missing value" in refused.failure.found


def test_a_torch_module_that_hands_nan_on_is_refused(
    models: Models, export: Export, broken_images: Path, tmp_path: Path
):
    outcome = export(
        model=models.factory("trained"),
        targets=["onnx"],
        calibration=str(broken_images),
        output=str(tmp_path),
    )
    assert outcome.status == 1
    assert "67 values that are NaN or infinite, the first in sample 0" in outcome.failure.found
    assert "its output 'logits' is not finite then" in outcome.failure.found
