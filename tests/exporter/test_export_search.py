"""Exports with limits, whole: what is tried, what is certain, and what is told where nothing will
do. One target, so that little time goes into conversions."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.exports import Export, Models, Outcome

from edgeml.exporter.events import Row
from edgeml.exporter.measure import TURNS


@pytest.fixture(scope="module")
def many(models: Models, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Many evaluation samples: the same ones over and over, in noise."""
    with np.load(models.torch / "evaluation.npz") as data:
        image, labels = np.tile(data["image"], (3, 1, 1, 1)), np.tile(data["labels"], 3)
    noise = np.random.default_rng(0).normal(0, 0.02, image.shape).astype(np.float32)
    path = tmp_path_factory.mktemp("many") / "evaluation.npz"
    np.savez(path, image=image + noise, labels=labels)
    return str(path)


@pytest.fixture(scope="module")
def searched(
    models: Models, export: Export, many: str, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    folder = tmp_path_factory.mktemp("searched")
    return export(
        model=str(models.torch / "net.onnx"),
        targets=["onnx"],
        calibration=str(models.torch / "calibration.npz"),
        evaluation=many,
        limits={"accuracy_drop": 0.05, "memory_mb": 500},
        output=str(folder / "net.edgeml"),
        report=str(folder / "report.html"),
    )


def chosen(outcome: Outcome) -> Row:
    (row,) = [row for row in outcome.rows.values() if row.chosen]
    return row


def test_a_search_chooses_within_the_limits_and_certifies_it(searched: Outcome):
    assert searched.status == 0
    assert "search" in searched.stages
    assert "compile" not in searched.stages
    row = chosen(searched)
    assert row.passed
    assert row.missed == ()
    certificate = row.certificate
    assert certificate is not None
    assert (certificate.metric, certificate.method) == ("top-1", "betting")
    assert (certificate.drop, certificate.confidence) == (0.05, 0.95)
    assert certificate.samples == row.samples < certificate.population == 600
    (artifact,) = searched.bundle().manifest.artifacts
    assert artifact.certificate == certificate


def test_those_that_latency_decides_between_were_measured_in_turns(searched: Outcome):
    within = [row for row in searched.rows.values() if row.passed and not row.missed]
    assert len(within) > 1
    (artifact,) = searched.bundle().manifest.artifacts
    assert artifact.measured is not None
    assert len(artifact.measured.turns_ms) == TURNS


def test_what_could_not_win_was_not_tried_and_that_is_told(searched: Outcome):
    tried = {row.precision for row in searched.rows.values()}
    assert {"fp32", "int8"} <= tried
    assert "mixed" not in tried  # int8 is within the limit
    assert "was not tried: " in searched.notes


def test_memory_is_told_while_loading_and_after(searched: Outcome):
    for row in searched.rows.values():
        assert row.loading_rss_mb is not None
        assert row.steady_rss_mb is not None
        assert row.peak_rss_mb is not None
        assert 20 < row.loading_rss_mb <= row.peak_rss_mb < 200
        assert 20 < row.steady_rss_mb <= row.peak_rss_mb
    (artifact,) = searched.bundle().manifest.artifacts
    assert artifact.measured is not None
    assert artifact.measured.cores == 1


def test_the_report_is_one_page_with_picture_table_and_certificate(searched: Outcome):
    page = (Path(searched.done.bundle).parent / "report.html").read_text()
    assert page.count("<svg") == 1
    assert "http://" not in page.replace("http://www.w3.org", "")  # nothing is fetched
    for row in searched.rows.values():
        assert f"<td>{row.precision}</td>" in page
    assert "drop at most 5 points with 95 % confidence" in page
    assert searched.done.isa in page
    assert any(row.front for row in searched.rows.values())


def test_layers_stay_float_where_int8_loses_too_much(
    models: Models, export: Export, many: str, tmp_path: Path
):
    found = export(
        model=str(models.torch / "net.onnx"),
        targets=["onnx"],
        calibration=str(models.torch / "calibration.npz"),
        evaluation=many,
        precision="mixed",
        tolerances={"mixed": {"cosine": 0.99985}},
        output=str(tmp_path / "net.edgeml"),
    )
    assert found.status == 0
    row = chosen(found)
    assert row.precision == "mixed"
    assert row.float_layers
    assert row.cosine is not None
    assert row.cosine > (found.rows["onnx-int8"].cosine or 0)
    assert "float layers: drop" in row.step
    (artifact,) = found.bundle().manifest.artifacts
    assert (artifact.id, artifact.float_layers) == ("onnx-mixed", row.float_layers)


def test_where_nothing_is_within_the_limits_the_nearest_is_told_and_there_is_no_bundle(
    models: Models, export: Export, tmp_path: Path
):
    found = export(
        model=str(models.torch / "net.onnx"),
        targets=["onnx"],
        calibration=str(models.torch / "calibration.npz"),
        limits={"size_bytes": 1000},
        output=str(tmp_path / "out"),
        report=str(tmp_path / "report.png"),
    )
    assert found.status == 1
    assert found.failure.error == "RefusedError"
    assert "within the limits. The nearest, " in found.failure.found
    assert "at most 1 kB" in found.failure.found
    assert "--max-size" in found.failure.remedy
    assert all(any("size" in text for text in row.missed) for row in found.rows.values())
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def linear(path: Path, weights: np.ndarray, *, sigmoid: bool) -> str:
    """A model of one column, y = x·w, with a sigmoid behind it or without."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z" if sigmoid else "y"])]
    nodes += [helper.make_node("Sigmoid", ["z"], ["y"])] if sigmoid else []
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, len(weights)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [len(weights), 1], weights.tolist())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return str(path)


X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
WEIGHTS = np.array([4.0, -3.0, 2.0, 1.0], dtype=np.float32)


def test_a_single_sigmoid_column_has_accuracy_and_agreement(export: Export, tmp_path: Path):
    labels = (X @ WEIGHTS > 0.5).astype(np.int64)  # not quite what the model says
    np.savez(tmp_path / "data.npz", x=X, labels=labels)
    found = export(
        model=linear(tmp_path / "m.onnx", WEIGHTS, sigmoid=True),
        targets=["onnx"],
        evaluation=str(tmp_path / "data.npz"),
        precision="fp32",
        output=str(tmp_path / "m.edgeml"),
    )
    row = chosen(found)
    right = ((X @ WEIGHTS > 0) == (labels == 1)).mean()
    assert row.metric == "top-1"
    assert row.accuracy == found.done.source_accuracy == pytest.approx(right)
    assert row.agreement == 1
    assert found.bundle().manifest.outputs[0].meaning == "scores"


def test_values_are_judged_by_a_function_of_the_users(export: Export, tmp_path: Path):
    truth = (X @ WEIGHTS + np.random.default_rng(1).normal(size=300)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=X, labels=truth)
    (tmp_path / "scores.py").write_text(
        "def r2(labels, outputs):\n"
        "    wrong = ((outputs[:, 0] - labels) ** 2).mean()\n"
        "    return 1 - wrong / labels.var()\n"
    )
    found = export(
        model=linear(tmp_path / "m.onnx", WEIGHTS, sigmoid=False),
        targets=["onnx"],
        evaluation=str(tmp_path / "data.npz"),
        limits={"accuracy_drop": 0.01},
        precision="fp32",
        metric=f"{tmp_path}/scores.py:r2",
        output=str(tmp_path / "m.edgeml"),
    )
    row = chosen(found)
    assert row.metric == "r2"
    assert row.accuracy == pytest.approx(
        1 - ((X @ WEIGHTS - truth) ** 2).mean() / truth.var(), abs=0.01
    )
    assert row.certificate is not None
    assert row.certificate.method == "bootstrap"
    assert row.certificate.drop <= 0.01


def test_a_function_that_is_not_there_is_told_before_there_is_anything_to_judge(
    export: Export, tmp_path: Path
):
    np.savez(tmp_path / "data.npz", x=X, labels=X @ WEIGHTS)
    (tmp_path / "scores.py").write_text("def explained(labels, outputs):\n    return 1.0\n")
    found = export(
        model=linear(tmp_path / "m.onnx", WEIGHTS, sigmoid=False),
        targets=["onnx"],
        evaluation=str(tmp_path / "data.npz"),
        metric=f"{tmp_path}/scores.py:explaned",
        output=str(tmp_path / "m.edgeml"),
    )
    assert found.failure.found == f"{tmp_path}/scores.py has no 'explaned'"
    assert found.failure.remedy == f"Did you mean {tmp_path}/scores.py:explained?"
    assert found.stages == ["source", "calibrate"]
