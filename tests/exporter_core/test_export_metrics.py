"""Which metric is taken, and what it comes to for source and artifact."""

import re
from pathlib import Path

import numpy as np
import pytest

from edgeml.data import Samples
from edgeml.errors import EdgemlError, SourceError, UsageError
from edgeml.exporter import meaning
from edgeml.exporter.intake import Checkset
from edgeml.exporter.judging.metric_forms import Metric, parse_metric
from edgeml.exporter.judging.metrics import judge, unfit
from edgeml.exporter.judging.scoring import Score, ScoreJob, score

RNG = np.random.default_rng(0)


def checkset(output: np.ndarray, labels: np.ndarray | None, *, decision: bool) -> Checkset:
    numbers = meaning.class_labels(labels, output.shape[1]) if decision else None
    return Checkset(
        samples=Samples({"x": np.zeros((len(output), 1))}, labels),
        files=(),
        reference={"y": output},
        decisions=("y",) if decision else (),
        labels=numbers,
        labelled="y" if numbers is not None else "",
    )


LOGITS = RNG.normal(size=(20, 3))
CLASSES = np.arange(20) % 3


def test_labels_decide_where_no_metric_is_named():
    values = RNG.normal(size=(20, 1))
    found = [
        judge(None, given, needed=False)
        for given in (
            checkset(LOGITS, CLASSES, decision=True),
            checkset(values, values[:, 0] + 1, decision=False),
            checkset(LOGITS, None, decision=True),
            checkset(values, None, decision=False),
        )
    ]
    assert [each and each.metric.name for each in found] == ["top-1", "mse", "agreement", None]
    assert [each and each.paired for each in found] == [True, False, True, None]


def test_a_limit_that_nothing_can_judge_is_refused():
    with pytest.raises(SourceError) as told:
        judge(None, checkset(LOGITS, None, decision=False), needed=True)
    assert "--evaluate" in told.value.remedy


@pytest.mark.parametrize("name", ["top-1", "auc", "f1", "mse"])
def test_a_metric_that_needs_labels_says_so(name: str):
    with pytest.raises(SourceError, match="needs labels"):
        judge(Metric(name), checkset(LOGITS, None, decision=True), needed=False)


def test_labels_that_do_not_fit_are_refused_with_their_shape():
    with pytest.raises(SourceError, match=r"labels have shape \[20\] and dtype int64"):
        judge(Metric("mse"), checkset(LOGITS, CLASSES, decision=True), needed=False)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (CLASSES + 2, r"\(int64 \[20\], 2 to 4\)"),
        (np.array(["cat", "dog"] * 10), r"\(text \[20\]\)"),
        (np.zeros((20, 2)), r"\(float64 \[20, 2\]\)"),
    ],
)
def test_labels_that_fit_nothing_are_told_with_what_would_fit(labels: np.ndarray, found: str):
    given = checkset(LOGITS, labels, decision=True)
    asked = judge(None, given, needed=False)
    assert asked is None or asked.metric.name == "agreement"
    told = unfit(given)
    assert re.search(found, told)
    assert "'y' [1, 3]" in told


def test_a_single_sigmoid_column_is_judged_at_a_half():
    scores = np.array([[0.1], [0.9], [0.6], [0.4]])
    labels = np.array([0, 1, 0, 1])
    found = judge(None, checkset(scores, labels, decision=True), needed=False)
    assert found is not None
    right = found.correct({"y": scores}, {"y": scores}, np.arange(4))
    assert right.tolist() == [True, True, False, False]


def test_disagreement_is_seen_sample_by_sample():
    found = judge(None, checkset(LOGITS, None, decision=True), needed=True)
    assert found is not None
    other = LOGITS[[3, 4]].copy()
    other[1] = -other[1]
    right = found.correct({"y": other}, {"y": LOGITS}, np.array([3, 4]))
    assert right.tolist() == [True, False]


def test_metrics_are_named_or_a_file_and_a_function(tmp_path: Path):
    (tmp_path / "m.py").write_text("def recall(labels, outputs): ...")
    assert parse_metric("") is None
    assert parse_metric("auc") == Metric("auc")
    assert parse_metric(f"{tmp_path}/m.py:recall") == Metric("recall", tmp_path / "m.py")
    for wrong in ("accuracy", f"{tmp_path}/m.py:", f"{tmp_path}/m.py:a b"):
        with pytest.raises(UsageError):
            parse_metric(wrong)
    with pytest.raises(SourceError, match="no file"):
        parse_metric("missing.py:recall")


def scored(
    folder: Path,
    metric: str,
    labels: np.ndarray,
    source: np.ndarray,
    found: np.ndarray,
    code: str = "",
) -> Score:
    arrays = {"labels": labels, "source": source, "found": found, "x": labels * 2.0}
    files = {name: folder / f"{name}.npy" for name in arrays}
    for name, array in arrays.items():
        np.save(files[name], array)
    path = None
    if code:
        path = folder / f"{metric}_file.py"
        path.write_text(code)
    return score(
        ScoreJob(
            metric=metric,
            path=path,
            output="y",
            labels=files["labels"],
            source={"y": files["source"]},
            found={"y": files["found"]},
            inputs={"x": files["x"]},
            confidence=0.95,
            seed=0,
        )
    )


BINARY = np.arange(200) % 2
GOOD = (BINARY * 0.45 + RNG.uniform(size=200) * 0.55)[:, None]


@pytest.mark.parametrize("classes", [2, 4])
def test_auc_and_f1_are_those_of_scikit_learn(tmp_path: Path, classes: int):
    metrics = pytest.importorskip("sklearn.metrics")
    labels = RNG.integers(0, classes, 150)
    scores = np.eye(classes)[labels] + RNG.normal(size=(150, classes))
    chosen = scores.argmax(axis=1)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    auc = scored(tmp_path, "auc", labels, scores, np.round(scores))  # with ties
    f1 = scored(tmp_path, "f1", labels, scores, scores)
    if classes == 2:
        assert auc.source == pytest.approx(metrics.roc_auc_score(labels, shares[:, 1]))
        assert f1.value == pytest.approx(metrics.f1_score(labels, chosen))
    else:
        expected = metrics.roc_auc_score(labels, shares, multi_class="ovr")
        assert auc.source == pytest.approx(expected)
        assert f1.value == pytest.approx(metrics.f1_score(labels, chosen, average="macro"))
    assert auc.value != auc.source


def test_auc_sees_nothing_but_the_order(tmp_path: Path):
    found = scored(tmp_path, "auc", BINARY, GOOD, GOOD * 0.01 - 5)
    assert found.drop == found.beyond == 0
    assert found.worst < found.value
    two = np.concatenate([-GOOD, GOOD], axis=1)
    assert scored(tmp_path, "auc", BINARY, GOOD, two).drop == pytest.approx(0)


def test_a_worse_artifact_drops_and_the_bound_is_further(tmp_path: Path):
    noisy = np.clip(GOOD + RNG.normal(size=(200, 1)), 0, 1)
    for metric in ("auc", "f1"):
        found = scored(tmp_path, metric, BINARY, GOOD, noisy)
        assert 0 < found.drop < found.beyond
        assert found.drop == pytest.approx(found.source - found.value)


def test_the_drop_of_the_squared_error_is_in_shares_of_the_labels_variance(tmp_path: Path):
    truth = RNG.normal(scale=7, size=300)
    exact, off = truth[:, None], truth[:, None] + 0.7
    found = scored(tmp_path, "mse", truth, exact, off)
    assert found.source == 0
    assert found.value == pytest.approx(0.49)
    assert found.drop == pytest.approx(0.49 / truth.var())
    assert found.worst >= found.value


def test_a_users_function_judges_and_may_ask_for_the_inputs(tmp_path: Path):
    code = (
        "def near(labels, outputs, inputs):\n"
        "    assert (inputs == 2 * labels).all()\n"
        "    return (abs(outputs[:, 0] - labels) < .5).mean()\n"
    )
    found = scored(tmp_path, "near", BINARY, GOOD, 1 - GOOD, code)
    assert found.source == pytest.approx((abs(GOOD[:, 0] - BINARY) < 0.5).mean())
    assert found.drop > 0.5


def test_an_error_in_a_users_function_is_told_with_its_line(tmp_path: Path):
    broken = "def broken(labels, outputs):\n    return 1 / 0\n"
    with pytest.raises(EdgemlError, match=r"broken_file.py:2: ZeroDivisionError"):
        scored(tmp_path, "broken", BINARY, GOOD, GOOD, broken)
    odd = "def odd(labels, outputs):\n    return float('nan')\n"
    with pytest.raises(SourceError, match="gave nan"):
        scored(tmp_path, "odd", BINARY, GOOD, GOOD, odd)
