"""Estimators of scikit-learn, XGBoost and LightGBM: the graph answers as they do themselves."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support import export_classical
from support.exports import SUPPORT, Export, made_again
from support.opening import read, reference

from edgeml.errors import SourceError
from edgeml.exporter.child import Child
from edgeml.exporter.children import Children
from edgeml.exporter.sources import ubjson

FILE = SUPPORT / "export_classical.py"


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Children(tmp_path_factory.mktemp("log") / "classical.txt").child() as child:
        yield child


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the models' own files, pickles and samples."""
    folder = tmp_path_factory.mktemp("classical")
    subprocess.run([sys.executable, str(FILE), str(folder)], check=True)
    return folder


def graph_answers(path: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the converted graph makes of rows, one by one, as a device would run it."""
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    found = [session.run(names, {"X": rows[row : row + 1]}) for row in range(len(rows))]
    return {name: np.concatenate([row[at] for row in found]) for at, name in enumerate(names)}


@pytest.mark.parametrize(
    ("factory", "outputs"),
    [
        ("logistic", {"label": (1,), "probabilities": (1, 3)}),
        ("signs", {"label": (1,), "probabilities": (1, 2)}),
        ("forest", {"label": (1,), "probabilities": (1, 3)}),
        ("histogram", {"label": (1,), "probabilities": (1, 3)}),
        ("searched", {"label": (1,), "probabilities": (1, 3)}),
        ("machine", {"label": (1,), "scores": (1, 2)}),
        ("ridge", {"label": (1,), "scores": (1, 2)}),
        ("line", {"prediction": (1, 2)}),
        ("groups", {"label": (1,), "scores": (1, 3)}),
        ("outliers", {"label": (1, 1), "scores": (1, 1)}),
        ("axes", {"transformed": (1, 2)}),
        ("columns", {"label": (1,), "probabilities": (1, 3)}),
        ("scaled", {"label": (1,), "probabilities": (1, 3)}),
        ("boosted", {"label": (1,), "probabilities": (1, 2)}),
        ("light", {"label": (1,), "probabilities": (1, 3)}),
    ],
)
def test_the_graph_of_an_estimator_answers_as_it_does_itself(
    child: Child, tmp_path: Path, factory: str, outputs: dict[str, tuple[int, ...]]
):
    opened = read(child, f"{FILE}:{factory}", tmp_path)
    assert opened.kind == "classical"
    assert {tensor.name: tensor.shape for tensor in opened.outputs} == outputs
    assert len(opened.sha256) == 64
    rows = export_classical.rows
    if factory == "columns":
        rows = export_classical.frame().to_numpy(np.float32)
    expected = reference(child, opened, rows)
    found = graph_answers(opened.path, rows)
    for tensor in opened.outputs:
        assert expected[tensor.name].dtype == found[tensor.name].dtype == tensor.dtype
        np.testing.assert_allclose(found[tensor.name], expected[tensor.name], atol=1e-4)


def test_the_reference_is_the_estimator_and_not_its_graph(child: Child, tmp_path: Path):
    opened = read(child, f"{FILE}:logistic", tmp_path)
    opened.path.write_bytes(b"gone")
    expected = reference(child, opened, export_classical.rows)
    own = export_classical.logistic().predict_proba(export_classical.rows)
    np.testing.assert_allclose(expected["probabilities"], own, atol=1e-6)


def test_classes_that_are_text_become_numbers_and_their_names_are_kept(
    child: Child, tmp_path: Path
):
    opened = read(child, f"{FILE}:logistic", tmp_path)
    label, probabilities = opened.outputs
    assert (label.dtype, probabilities.meaning) == ("int64", "scores")
    assert probabilities.feature_names == ("setosa", "versicolor", "virginica")
    assert "0 setosa, 1 versicolor, 2 virginica" in opened.notes[0]
    labels = reference(child, opened, export_classical.rows)["label"]
    assert (labels == export_classical.species).mean() > 0.95


def test_a_decision_between_two_has_a_column_a_class(child: Child, tmp_path: Path):
    opened = read(child, f"{FILE}:machine", tmp_path)
    found = reference(child, opened, export_classical.rows)
    assert opened.outputs[1].feature_names == ("False", "True")
    assert (found["scores"].argmax(axis=1) == found["label"]).all()


def test_columns_that_a_pipeline_takes_by_name_are_one_input_with_their_names(
    child: Child, tmp_path: Path
):
    opened = read(child, f"{FILE}:columns", tmp_path)
    (features,) = opened.inputs
    assert (features.name, features.shape, features.dtype) == ("X", (1, 5), "float32")
    assert features.feature_names == (*export_classical.COLUMNS, "soil")


@pytest.mark.parametrize(
    ("name", "title", "outputs"),
    [
        ("boosted.json", "XGBoost", ["label", "probabilities"]),
        ("boosted.ubj", "XGBoost", ["label", "probabilities"]),
        ("light.txt", "LightGBM", ["label", "probabilities"]),
        ("quantity.txt", "LightGBM", ["prediction"]),
    ],
)
def test_the_own_files_of_boosters(
    child: Child, folder: Path, tmp_path: Path, name: str, title: str, outputs: list[str]
):
    opened = read(child, str(folder / name), tmp_path)
    assert opened.title.startswith(title)
    assert [tensor.name for tensor in opened.outputs] == outputs
    expected = reference(child, opened, export_classical.rows)
    found = graph_answers(opened.path, export_classical.rows)
    for output in outputs:
        np.testing.assert_allclose(found[output], expected[output], atol=1e-5)


@pytest.mark.parametrize("name", ["boosted.json", "boosted.ubj", "light.txt"])
@pytest.mark.parametrize("share", [0.08, 0.3, 0.5])
def test_the_file_of_a_booster_that_was_cut_short(
    child: Child, folder: Path, tmp_path: Path, name: str, share: float
):
    content = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SourceError, match="is cut short, damaged"):
        read(child, str(tmp_path / name), tmp_path)


def test_the_binary_file_of_a_booster_is_whole_as_xgboost_wrote_it_and_at_no_byte_before(
    folder: Path,
):
    content = (folder / "boosted.ubj").read_bytes()
    ubjson.check(content)
    for end in range(0, len(content), 13):
        with pytest.raises(ubjson.UbjsonError, match="ends after"):
            ubjson.check(content[:end])


def test_a_pickle_is_opened_where_it_is_trusted(child: Child, folder: Path, tmp_path: Path):
    opened = read(child, str(folder / "forest.joblib"), tmp_path, trust=True)
    assert (opened.kind, opened.title.split()[0]) == ("classical", "scikit-learn")
    with pytest.raises(SourceError, match=r"dict\.joblib holds dict") as caught:
        read(child, str(folder / "dict.joblib"), tmp_path, trust=True)
    assert "FILE.py:FUNCTION" in caught.value.remedy


@pytest.mark.parametrize(
    ("factory", "found", "remedy"),
    [
        ("text_column", "its step OneHotEncoder takes text ('clay', 'sand', …)", "cat.codes"),
        ("two_targets", "decides several things at once", "a model for each"),
        ("unfitted", "the LogisticRegression is not fitted", "Call fit"),
        ("own_step", "Own has no conversion to ONNX", "Take that step out"),
    ],
)
def test_what_cannot_be_converted(
    child: Child, tmp_path: Path, factory: str, found: str, remedy: str
):
    with pytest.raises(SourceError) as caught:
        read(child, f"{FILE}:{factory}", tmp_path)
    assert f"export_classical.py:{factory}: " in caught.value.found
    assert found in caught.value.found
    assert remedy in caught.value.remedy


def test_a_factory_shows_its_kind_when_it_runs_and_refusals_follow_at_once(
    export: Export, folder: Path, tmp_path: Path
):
    outcome = export(
        model=f"{FILE}:logistic",
        targets=["onnx", "coreml"],
        evaluation=str(folder / "samples.npz"),
        output=str(tmp_path),
    )
    assert outcome.status == 1
    assert set(outcome.refused) == {"coreml"}
    manifest = outcome.bundle().manifest
    (artifact,) = manifest.artifacts
    assert artifact.id == "onnx-fp32"
    assert manifest.provenance.source_format.endswith("LogisticRegression")
    # The labels are the names of classes.
    assert artifact.accuracy is not None
    assert artifact.accuracy.value > 0.95
    assert artifact.parity is not None
    assert artifact.parity.agreement == 1
    made_again(Path(outcome.done.bundle), tmp_path)
