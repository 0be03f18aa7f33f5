"""Every form of model goes through to a bundle whose artifacts do what the source does."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from support.exports import Export, Models, Outcome, made_again

from edgeml import machine
from edgeml.targets.runtime import NamedSession, open_session


@pytest.fixture(scope="module")
def digits(models: Models, export: Export, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The whole road: a factory, three targets, float and int8, calibration and evaluation."""
    return export(
        model=models.factory("trained"),
        targets=["tflite", "openvino", "onnx"],
        calibration=str(models.torch / "calibration.npz"),
        evaluation=str(models.torch / "evaluation.npz"),
        name="digits",
        version="2.1",
        output=str(tmp_path_factory.mktemp("bundles")),
        deadline_ms=20,
    )


def test_a_factory_becomes_a_bundle_for_three_targets(digits: Outcome):
    assert digits.status == digits.done.status == 0
    assert Path(digits.done.bundle).name == "digits-2.1.edgeml"
    assert digits.stages == [
        "source",
        "calibrate",
        "candidates",
        "compile",
        "verify",
        "measure",
        "choose",
        "pack",
    ]
    assert set(digits.rows) == {
        *(f"{target}-{it}" for target in ("tflite", "onnx") for it in ("fp32", "int8")),
        *("openvino-fp16", "openvino-int8"),  # float16 is as quick as float32, and half as large
    }


def test_every_row_has_its_figures(digits: Outcome):
    for row in digits.rows.values():
        assert row.passed
        assert row.bytes > 0
        assert row.cosine > 0.98
        assert row.accuracy is not None
        assert row.accuracy_lower is not None
        assert 0.9 < row.accuracy_lower < row.accuracy
        assert row.p50_ms is not None
        assert row.p99_ms is not None
        assert 0 < row.p50_ms <= row.p99_ms
        assert row.peak_rss_mb is not None
        # Light: a process with torch or TensorFlow in it holds several hundred.
        assert 20 < row.peak_rss_mb < 200


def test_the_bundle_holds_the_best_artifact_of_each_target(digits: Outcome):
    manifest = digits.bundle().manifest
    chosen = {name for name, row in digits.rows.items() if row.chosen}
    assert {artifact.id for artifact in manifest.artifacts} == chosen
    assert {artifact.target for artifact in manifest.artifacts} == {"tflite", "openvino", "onnx"}
    for artifact in manifest.artifacts:
        assert artifact.chosen
        assert artifact.bytes == digits.rows[artifact.id].bytes
        assert artifact.measured is not None
        assert artifact.measured.isa == machine.isa()
        assert artifact.parity.tolerance.agreement is not None


def test_the_manifest_says_what_goes_in_and_out_and_where_it_came_from(
    digits: Outcome, models: Models
):
    manifest = digits.bundle().manifest
    (image,) = manifest.inputs
    (logits,) = manifest.outputs
    assert (image.name, image.shape, image.meaning) == ("image", (1, 1, 8, 8), "image")
    assert image.layout == "NCHW"
    assert (logits.name, logits.shape, logits.meaning) == ("logits", (1, 10), "scores")
    assert manifest.budgets.deadline_ms == 20
    origin = manifest.provenance
    assert origin.source_name == "export_torch.py"
    assert len(origin.source_sha256) == 64
    assert {"torch", "openvino", "nncf", "onnxruntime", "litert-torch"} <= set(origin.tools)
    assert origin.calibration is not None
    assert origin.evaluation is not None
    assert (origin.calibration.count, origin.evaluation.count) == (200, 200)
    for data, hashed in (("calibration", origin.calibration), ("evaluation", origin.evaluation)):
        with np.load(models.torch / f"{data}.npz") as arrays:
            hashes = [hashlib.sha256(row.tobytes()).digest() for row in arrays["image"]]
        assert hashed.samples == tuple(each.hex()[:16] for each in hashes)
        assert hashed.sha256 == hashlib.sha256(b"".join(hashes)).hexdigest()
    assert origin.source_accuracy is not None
    assert origin.source_accuracy.samples == 200


def test_the_golden_vectors_prove_every_artifact(digits: Outcome, tmp_path: Path):
    bundle = digits.bundle()
    golden = bundle.golden()
    assert len(golden) == 8
    assert len(set(golden.outputs["logits"].argmax(axis=1))) == 8  # spread over the classes
    for artifact in bundle.manifest.artifacts:
        session = open_session(
            artifact.target, bundle.extract(artifact, tmp_path), options=artifact.requires.options
        )
        with NamedSession(session, artifact.inputs, artifact.outputs) as named:
            found = [named.run({"image": row[None]})["logits"][0] for row in golden.inputs["image"]]
        assert np.argmax(found, axis=1).tolist() == golden.outputs["logits"].argmax(axis=1).tolist()


def test_the_baseline_counts_all_calibration_samples(digits: Outcome):
    baseline = digits.bundle().baseline()
    assert baseline is not None
    assert baseline.rows == 200
    assert {"input.image.sharpness", "output.logits.class"} <= set(baseline.streams)
    assert all(sum(stream.counts) == 200 for stream in baseline.streams.values())


def test_the_baseline_says_how_often_the_model_was_right_by_how_sure_it_was(digits: Outcome):
    bundle = digits.bundle()
    baseline, source = bundle.baseline(), bundle.manifest.provenance.source_accuracy
    assert baseline is not None
    assert source is not None
    (calibration,) = (each.calibration for each in baseline.tensors if each.side == "output")
    assert calibration is not None
    assert sum(calibration.rows) == source.samples
    assert sum(calibration.correct) == round(source.value * source.samples)


@pytest.mark.parametrize("family", ["embedding", "none"])
def test_an_input_has_the_statistics_that_were_asked_for(
    models: Models, export: Export, tmp_path: Path, family: str
):
    outcome = export(
        model=str(models.torch / "net.onnx"),
        targets=["onnx"],
        precision="fp32",
        calibration=str(models.torch / "calibration.npz"),
        statistics={"image": family},
        output=str(tmp_path),
    )
    baseline = outcome.bundle().baseline()
    assert baseline is not None
    found = [name for name in baseline.streams if name.startswith("input.")]
    wanted = ["input.image.norm", "input.image.mean", "input.image.vector"]
    assert found == (wanted if family == "embedding" else [])


def test_statistics_of_an_input_that_is_none_are_refused(
    models: Models, export: Export, tmp_path: Path
):
    outcome = export(
        model=str(models.torch / "net.onnx"),
        targets=["onnx"],
        precision="fp32",
        calibration=str(models.torch / "calibration.npz"),
        statistics={"picture": "none"},
        output=str(tmp_path),
    )
    assert "'picture'" in outcome.failure.found
    assert "image" in outcome.failure.expected


def test_the_lock_has_what_it_takes_to_make_it_again_and_that_gives_the_same_bytes(
    digits: Outcome, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bundle = Path(digits.done.bundle)
    lock = json.loads(digits.bundle().read("edgeml.lock"))
    assert lock["tools"]["torch"]
    assert {recipe["id"] for recipe in lock["artifacts"]} == {
        artifact.id for artifact in digits.bundle().manifest.artifacts
    }
    assert str(models.torch / "weights.pt") in lock["dependencies"]
    # Nothing of where it was made on the way.
    assert b"edgeml-export-" not in bundle.read_bytes()

    monkeypatch.chdir(tmp_path)
    made_again(bundle, tmp_path)


def test_an_exported_program_and_a_bare_array(models: Models, export: Export, tmp_path: Path):
    # Double-precision samples and an open batch axis; a tolerance that no int8 can meet.
    found = export(
        model=str(models.torch / "net.pt2"),
        targets=["onnx"],
        calibration=str(models.torch / "images.npy"),
        output=str(tmp_path / "net.edgeml"),
        tolerances={"int8": {"cosine": 1.0}},
    )
    assert found.status == 0
    row = found.rows["onnx-int8"]
    assert not row.passed
    assert not row.chosen
    assert "failed its check: cosine" in row.note
    assert row.samples < 40  # of those held back: enough to know that the others cannot mend it
    assert f"on {row.samples} samples, which the {40 - row.samples} others cannot mend" in row.note
    assert found.rows["onnx-fp32"].samples == 40
    assert found.rows["onnx-fp32"].chosen
    assert found.rows["onnx-fp32"].accuracy is None
    manifest = found.bundle().manifest
    assert [artifact.id for artifact in manifest.artifacts] == ["onnx-fp32"]
    assert manifest.artifacts[0].parity.samples == 40  # held back: a fifth
    assert manifest.provenance.evaluation is None
    # Without labels it still looks like what it is.
    assert manifest.outputs[0].meaning == "scores"


def test_openvino_s_fp32_is_taken_where_fp16_does_not_hold(
    models: Models, export: Export, tmp_path: Path
):
    found = export(
        model=str(models.torch / "net.onnx"),
        targets=["openvino"],
        calibration=str(models.torch / "images.npy"),
        output=str(tmp_path),
        tolerances={"fp16": {"cosine": 1.0}, "int8": {"cosine": 1.0}},
    )
    assert found.status == 0
    assert {name for name, row in found.rows.items() if row.passed} == {"openvino-fp32"}
    assert found.rows["openvino-fp32"].chosen
    assert found.rows["openvino-fp32"].p50_ms is not None
    assert found.rows["openvino-fp16"].p50_ms is None  # what failed goes nowhere, however fast


def test_a_target_that_is_refused_leaves_the_others_and_status_1(
    models: Models, export: Export, tmp_path: Path
):
    found = export(
        model=str(models.torch / "net.onnx"),
        targets=["executorch", "openvino"],
        calibration=str(models.torch / "calibration.npz"),
        output=str(tmp_path),
    )
    assert found.status == found.done.status == 1
    assert set(found.refused) == {"executorch"}
    assert "ONNX" in found.refused["executorch"].reason
    assert found.refused["executorch"].remedy
    assert {artifact.target for artifact in found.bundle().manifest.artifacts} == {"openvino"}


def test_the_targets_of_a_jetson_are_made_and_checked_but_not_measured(
    models: Models, export: Export, tmp_path: Path
):
    found = export(
        model=str(models.torch / "net.onnx"),
        targets=["onnx-cuda", "tensorrt"],
        calibration=models.factory("samples"),
        precision="int8",
        output=str(tmp_path),
    )
    assert found.status == 0
    for artifact in found.bundle().manifest.artifacts:
        assert artifact.precision == "int8"
        assert artifact.measured is None
        assert "computes on the CPU alone" in artifact.not_measured
        assert "edgeml bench" in artifact.not_measured
        assert artifact.parity.cosine > 0.98
        assert artifact.requires.packages == ("onnxruntime-gpu",)
        assert artifact.requires.options["session.disable_cpu_ep_fallback"] == "1"
    # The samples are code, which gave labels too.
    assert all(row.accuracy is not None for row in found.rows.values())


def test_a_keras_model(models: Models, export: Export, tmp_path: Path):
    found = export(
        model=str(models.keras / "net.keras"),
        targets=["tflite"],
        calibration=str(models.keras / "calibration.npz"),
        evaluation=str(models.keras / "evaluation.npz"),
        precision="int8",
        output=str(tmp_path),
    )
    assert found.status == 0
    manifest = found.bundle().manifest
    assert [artifact.id for artifact in manifest.artifacts] == ["tflite-int8"]
    assert (manifest.inputs[0].name, manifest.inputs[0].layout) == ("image", "NHWC")
    assert manifest.outputs[0].name == "scores"
    assert "keras" in manifest.provenance.tools
    made_again(Path(found.done.bundle), tmp_path)


def test_a_keras_2_file_that_keras_3_refuses(models: Models, export: Export, tmp_path: Path):
    found = export(
        model=str(models.keras / "old.h5"),
        targets=["openvino"],
        evaluation=str(models.keras / "evaluation.npz"),
        precision="fp32",
        output=str(tmp_path),
    )
    assert found.status == 0
    assert "it was read with tf-keras" in found.notes
    assert found.rows["openvino-fp32"].passed
    bundle = found.bundle()
    assert bundle.manifest.provenance.source_format == "Keras 2 .h5"
    # Statistics come from calibration data, and there was none.
    assert bundle.baseline() is None


def test_a_saved_model_in_half_precision(models: Models, export: Export, tmp_path: Path):
    found = export(
        model=str(models.keras / "saved"),
        targets=["onnx"],
        calibration=str(models.keras / "calibration.npz"),
        precision="fp16",
        output=str(tmp_path),
    )
    assert found.status == 0
    (artifact,) = found.bundle().manifest.artifacts
    assert artifact.id == "onnx-fp16"
    assert set(artifact.inputs) == {"image"}
    assert set(artifact.outputs) == {"scores"}
