"""Metrics that are functions of all samples at once, in a child: AUC, F1, mean squared error, and a
user's own function.

Their uncertainty comes from a bootstrap: the samples are drawn anew with replacement, the same ones
for the source and the artifact, and the metric and its drop computed again; the bounds are
percentiles (B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). That is
an approximation, and no certificate that holds at any time: it is called a bootstrap wherever it
shows. For AUC the classes are drawn apart, so that both are always there.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.parity import decide
from edgeml.columns import load
from edgeml.errors import SourceError
from edgeml.exporter.user_code import blaming, load_attribute
from edgeml.statistics.families import softmax
from edgeml.targets.sources import framework

Array = NDArray[Any]
Outputs = dict[str, Array]
Compute = Callable[[Array], float]
"""A metric over some of the samples, given by their rows."""

DRAWS = 500
USERS_DRAWS = 200
"""A user's function may be slow."""


_FUNCTION = "a function (labels, outputs) → float"


class Users(msgspec.Struct, frozen=True):
    """A user's function."""

    path: Path
    name: str


class ScoreJob(msgspec.Struct, frozen=True, kw_only=True):
    """What to judge."""

    metric: str
    """``auc``, ``f1``, ``mse``, or the name of a function."""
    path: Path | None
    """Of the user's file."""
    output: str
    labels: Path
    source: dict[str, Path]
    """Output name to an ``.npy`` of what the source made of the samples."""
    found: dict[str, Path]
    """Likewise of the artifact."""
    inputs: dict[str, Path]
    confidence: float
    seed: int


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. The drop is positive where the artifact is worse."""

    source: float
    value: float
    worst: float
    """One-sided bound of ``value``, on the worse side."""
    drop: float
    beyond: float
    """One-sided upper bound of the drop."""


def look(metric: Users) -> int:
    """In the child: import a user's function, before there is anything to judge.

    Raises:
        SourceError: the file cannot be imported, or holds none of that name.
    """
    load_attribute(metric.path, metric.name, _FUNCTION)
    return 0


def score(job: ScoreJob) -> Score:
    """In the child: compute the metric for source and artifact, and its bounds.

    Raises:
        SourceError: a user's function raised, or gave no finite number.
    """
    labels = np.load(job.labels)
    of_source = _compute(job, labels, {name: load(file) for name, file in job.source.items()})
    of_found = _compute(job, labels, {name: load(file) for name, file in job.found.items()})
    rows = np.arange(len(labels))
    sign, unit = _direction(job, labels)
    before, after = of_source(rows), of_found(rows)
    rng = np.random.default_rng(job.seed)
    values: list[float] = []
    drops: list[float] = []
    for _ in range(DRAWS if job.path is None else USERS_DRAWS):
        drawn = _draw(labels, rng, apart=job.metric == "auc" and job.path is None)
        found = of_found(drawn)
        values.append(sign * found)
        drops.append(sign * (of_source(drawn) - found) / unit)
    return Score(
        source=before,
        value=after,
        worst=sign * float(np.quantile(values, 1 - job.confidence)),
        drop=sign * (before - after) / unit,
        beyond=float(np.quantile(drops, job.confidence)),
    )


def _direction(job: ScoreJob, labels: Array) -> tuple[float, float]:
    """1 where more is better and −1 where less is, and the unit of the drop.

    That of mean squared error is the variance of the labels: a drop of .01 is one point of the
    variance that the model explains (R²).
    """
    if job.path is None and job.metric == "mse":
        variance = float(np.var(labels))
        return -1.0, variance if variance > 0 else 1.0
    return 1.0, 1.0


def _draw(labels: Array, rng: np.random.Generator, *, apart: bool) -> Array:
    count = len(labels)
    if not apart:
        return rng.integers(0, count, count)
    groups = [np.flatnonzero(labels == each) for each in np.unique(labels)]
    return np.concatenate([group[rng.integers(0, len(group), len(group))] for group in groups])


def _compute(job: ScoreJob, labels: Array, outputs: Outputs) -> Compute:
    if job.path is not None:
        return _users(job, job.path, labels, outputs)
    # Thresholds, and whether scores are probabilities, are read off the source for both.
    source = load(job.source[job.output])
    scores = np.asarray(outputs[job.output], dtype=np.float64).reshape(len(labels), -1)
    if job.metric == "mse":
        truth = labels.reshape(len(labels), -1)
        return lambda rows: float(np.mean((scores[rows] - truth[rows]) ** 2))
    if job.metric == "f1":
        return _f1(labels, decide(scores, source), max(scores.shape[1], 2))
    return _auc(labels, scores)


def _f1(labels: Array, chosen: Array, classes: int) -> Compute:
    """Of class 1 where there are two classes, else the mean over the classes that occur."""

    def compute(rows: Array) -> float:
        true, found = labels[rows], chosen[rows]
        hits = np.bincount(true[true == found], minlength=classes)
        total = np.bincount(true, minlength=classes) + np.bincount(
            found[found >= 0], minlength=classes
        )
        occurring = total > 0
        each = 2 * hits / np.where(occurring, total, 1)
        return float(each[1] if classes == 2 else each[occurring].mean())

    return compute


def _auc(labels: Array, scores: Array) -> Compute:
    """Of class 1 where there are two classes, else the mean over each class against the rest."""
    present = np.unique(labels)
    if len(present) < 2:
        raise SourceError(
            f"All labels are {labels[0]}: there is no AUC",
            expected="samples of at least two classes",
        )
    if scores.shape[1] <= 2:
        # Of two columns the difference ranks as the probability of class 1 does.
        ranked = scores[:, -1] - (scores[:, 0] if scores.shape[1] == 2 else 0)
        columns = [(labels == labels.max(), ranked)]
    else:
        is_shares = scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-2)
        shares = scores if is_shares else softmax(scores)
        columns = [(labels == each, shares[:, each]) for each in present]
    return lambda rows: float(
        np.mean([_ranked_apart(is_one[rows], values[rows]) for is_one, values in columns])
    )


def _ranked_apart(is_one: Array, values: Array) -> float:
    """The share of pairs that are ranked rightly, by their ranks: H. B. Mann, D. R. Whitney, "On a
    test of whether one of two random variables is stochastically larger than the other" (1947)."""
    ranks = framework("scipy.stats").rankdata(values)
    ones = int(is_one.sum())
    return (ranks[is_one].sum() - ones * (ones + 1) / 2) / (ones * (len(values) - ones))


def _users(job: ScoreJob, path: Path, labels: Array, outputs: Outputs) -> Compute:
    doing = f"{path}:{job.metric}"
    function = load_attribute(path, job.metric, _FUNCTION)
    with blaming(path, doing):
        wants_inputs = len(inspect.signature(function).parameters) > 2
    inputs = {name: load(file) for name, file in job.inputs.items()} if wants_inputs else {}

    def compute(rows: Array) -> float:
        given = [labels[rows], _bare({name: array[rows] for name, array in outputs.items()})]
        if wants_inputs:
            given.append(_bare({name: array[rows] for name, array in inputs.items()}))
        with blaming(path, doing):
            value = function(*given)
            number = float(value)
        if not math.isfinite(number):
            raise SourceError(
                f"{doing} gave {number}",
                expected="a finite number for any draw of the samples, with repetitions",
            )
        return number

    return compute


def _bare(arrays: Outputs) -> Any:
    """A single array as such, several under their names."""
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays
