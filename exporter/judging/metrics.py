"""How accuracy is judged: which metric, on which output, against which labels. Pure.

A *paired* metric is a mean over samples (top-1, agreement), so that each sample has an outcome and
a certificate can be had of a part of them. The others (AUC, F1, mean squared error, a user's own)
are functions of all samples at once, which :mod:`edgeml.exporter.judging.scoring` computes.
"""

from __future__ import annotations

import importlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Accuracy
from edgeml.bundle.parity import decide
from edgeml.data import LABELS
from edgeml.errors import SourceError
from edgeml.exporter import meaning
from edgeml.exporter.intake import Checkset
from edgeml.exporter.judging.certificate import bound_for_new
from edgeml.exporter.judging.metric_forms import PAIRED, Metric

Array = NDArray[Any]

CONFIDENCE = 0.95
"""Of the one-sided lower bound of an accuracy."""


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """A metric that was matched with a model and its samples."""

    metric: Metric
    output: str = ""
    """The output that is judged; empty where all are."""
    labels: Array | None = None
    """The truth, [n] class numbers or [n, …] values; None for agreement."""
    decisions: tuple[str, ...] = ()
    """Outputs that must agree, for agreement."""

    @property
    def paired(self) -> bool:
        """Whether it is a mean over samples."""
        return self.metric.path is None and self.metric.name in PAIRED

    @property
    def low(self) -> float:
        """The least that an outcome can be: disagreement cannot be less than none."""
        return 0.0 if self.metric.name == "agreement" else -1.0

    def correct(self, found: dict[str, Array], source: dict[str, Array], rows: Array) -> Array:
        """Whether a paired metric takes each sample for right, [n].

        Args:
            found: outputs of the artifact (or the source) on ``rows``.
            source: outputs of the source on all samples.
            rows: which samples.
        """
        if self.metric.name == "agreement":
            right = np.ones(len(rows), dtype=bool)
            for name in self.decisions:
                whole = source[name]
                right &= decide(found[name], whole) == decide(whole[rows], whole)
            return right
        assert self.labels is not None
        return decide(found[self.output], source[self.output]) == self.labels[rows]


def judge(metric: Metric | None, checkset: Checkset, *, needed: bool) -> Judge | None:
    """Match a metric with what there is; None where nothing can be judged, and nothing must.

    Args:
        metric: as asked for; None for what the labels suggest: top-1 for class numbers, mean
            squared error for values, agreement with the source where there are none.
        checkset: samples, labels and the source's outputs.
        needed: whether a limit depends on it.

    Raises:
        SourceError: the metric asked for, or any that a limit needs, fits nothing that is there.
    """
    truth = checkset.samples.labels
    if metric is None:
        found = (
            _top_1(Metric("top-1"), checkset)
            or _mse(Metric("mse"), checkset, truth)
            or _agreement(Metric("agreement"), checkset)
        )
        if found is None and needed:
            raise SourceError(
                "A loss of accuracy cannot be judged: there are no labels, and no output is a "
                "decision of which agreement with the source could be counted",
                remedy="Give labels with --evaluate, with --metric where they are no class "
                "numbers; or leave --max-accuracy-drop out.",
            )
        return found
    if metric.path is not None:
        if truth is None:
            raise _no_labels(metric)
        return Judge(metric=metric, labels=truth)
    if metric.name == "agreement":
        found = _agreement(metric, checkset)
        if found is None:
            raise SourceError(
                "Agreement was asked for, and no output of the model is a decision",
                expected="class scores, or one column of probabilities",
                remedy="Give labels, and --metric mse or FILE.py:FUNCTION.",
            )
        return found
    if truth is None:
        raise _no_labels(metric)
    makers = {"top-1": _top_1, "f1": _top_1, "auc": _auc}
    found = makers[metric.name](metric, checkset) if metric.name in makers else None
    if metric.name == "mse":
        found = _mse(metric, checkset, truth)
    if found is None:
        shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in checkset.reference.items())
        raise SourceError(
            f"--metric {metric.name} does not fit: the labels have shape {list(truth.shape)} and "
            f"dtype {truth.dtype}, the outputs {shapes}",
            expected="values of an output's shape"
            if metric.name == "mse"
            else "class numbers, one a sample, of the columns of an output",
            remedy="Give other labels, another metric, or a function of your own: "
            "--metric FILE.py:FUNCTION.",
        )
    return found


def unfit(checkset: Checkset) -> str:
    """What a person should know of labels that fit nothing."""
    truth = checkset.samples.labels
    assert truth is not None
    of = "text" if truth.dtype.kind in "US" else str(truth.dtype)
    span = f", {truth.min()} to {truth.max()}" if truth.dtype.kind in "biu" and truth.size else ""
    shapes = ", ".join(
        f"{name!r} {[1, *array.shape[1:]]}" for name, array in checkset.reference.items()
    )
    return (
        f"The labels ({of} {list(truth.shape)}{span}) fit no output of the model ({shapes}): no "
        "accuracy is measured. Class numbers from 0 on would, or values of an output's shape."
    )


def _no_labels(metric: Metric) -> SourceError:
    return SourceError(
        f"--metric {metric.name} needs labels, and the samples have none",
        expected=f"an array '{LABELS}' beside the inputs, or a pair of inputs and label",
        remedy="Give them with --evaluate, or leave --metric out.",
    )


def _top_1(metric: Metric, checkset: Checkset) -> Judge | None:
    if checkset.labels is None:
        return None
    return Judge(metric=metric, output=checkset.labelled, labels=checkset.labels)


def _auc(metric: Metric, checkset: Checkset) -> Judge | None:
    """Any single number a sample ranks, be it a decision or not: an anomaly score, say."""
    found = _top_1(metric, checkset)
    if found is not None:
        return found
    labels = meaning.class_labels(checkset.samples.labels, 2)
    for name, array in checkset.reference.items():
        if labels is not None and array.size == len(array):
            return Judge(metric=metric, output=name, labels=labels)
    return None


def _mse(metric: Metric, checkset: Checkset, truth: Array | None) -> Judge | None:
    if truth is None or truth.dtype.kind not in "biuf":
        return None
    for name, array in checkset.reference.items():
        if array.size == truth.size and len(array) == len(truth):
            return Judge(metric=metric, output=name, labels=truth.astype(np.float64))
    return None


def _agreement(metric: Metric, checkset: Checkset) -> Judge | None:
    if not checkset.decisions:
        return None
    return Judge(metric=metric, decisions=checkset.decisions)


def share(name: str, right: Array, *, all_seen: bool) -> Accuracy:
    """A paired metric's value, with a one-sided lower bound of 95 %.

    Of all samples the bound is that of Clopper and Pearson ("The use of confidence or fiducial
    limits illustrated in the case of the binomial", 1934), exact for independent samples. Where a
    test stopped at a sample of its choice it is that of the betting process, which allows for it.

    Args:
        name: of the metric.
        right: whether each sample was right, [n].
        all_seen: whether these are all samples there are.
    """
    count, good = len(right), int(right.sum())
    if all_seen:
        special: Any = importlib.import_module("scipy.special")
        lower = float(special.betaincinv(good, count - good + 1, 1 - CONFIDENCE)) if good else 0.0
    else:
        lower = 1 - bound_for_new(1.0 - right, confidence=CONFIDENCE)
    return Accuracy(
        metric=name, value=good / count, lower=lower, confidence=CONFIDENCE, samples=count
    )
