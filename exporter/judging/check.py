"""The check of an artifact: what it makes of the checking samples, beside the source model.

Without a limit on accuracy all samples are run, but of an artifact that nobody wants if it fails no
more than show that it does (:mod:`edgeml.exporter.judging.hope`). With one, and a metric that is a
mean over samples, they come in random order and the check ends as soon as
:mod:`edgeml.exporter.judging.certificate` can tell.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle import Accuracy, Certificate
from edgeml.bundle.parity import clarity, compare, decide
from edgeml.errors import DoesNotRunError, EdgemlError
from edgeml.exporter import pack
from edgeml.exporter.candidates import Candidate, tolerances
from edgeml.exporter.child import Child
from edgeml.exporter.events import Progress
from edgeml.exporter.intake import Checkset, Material
from edgeml.exporter.judging import metrics
from edgeml.exporter.judging.certificate import PairedTest, Verdict, certify
from edgeml.exporter.judging.hope import Hope
from edgeml.exporter.judging.metrics import Judge
from edgeml.exporter.judging.predict import PredictJob
from edgeml.exporter.judging.scoring import Score, ScoreJob, Users
from edgeml.exporter.plan import Plan, Workshop
from edgeml.exporter.samples import missing
from edgeml.exporter.trial import Checked
from edgeml.targets.compiling import CompileResult
from edgeml.targets.registry import target

Array = NDArray[Any]

CHUNK = 64
"""Samples that are run before the test is asked; doubled each time, up to :data:`LARGEST_CHUNK`."""

LARGEST_CHUNK = 512

FIRST_LOOK = 16
"""Samples that are run before it is asked whether an artifact can still pass; doubled each time."""

CURSORY = 64
"""Samples for one that is out of the question already: enough to see how near it comes."""


def not_checkable(name: str) -> str:
    """Why a target's artifacts cannot be run here at all; empty where they can.

    What needs a device that is not here is an ONNX graph, which the CPU runs as well.
    """
    row = target(name)
    if row.runs_on and platform.system() != row.runs_on:
        system = {"Darwin": "a Mac"}.get(row.runs_on, row.runs_on)
        return f"it runs only on {system}; its structure was checked"
    return ""


def golden_rows(checkset: Checkset) -> list[int]:
    """Which of the samples become golden vectors: of each class, and with and without gaps."""
    classes, clear = checkset.labels, None
    if checkset.decisions:
        scores = checkset.reference[checkset.decisions[0]]
        clear = clarity(scores)
        classes = decide(scores, scores) if classes is None else classes
    if checkset.samples.missing:
        lacking = missing.gaps(checkset.samples)
        classes = lacking if classes is None else 2 * classes + lacking
    return pack.golden_rows(len(checkset.samples), classes, clear)


class Checker:
    """Checks the artifacts of one export. A context manager.

    Args:
        planned: the request.
        material: samples and the source's outputs.
        judge: the metric; None where there is none.
        shop: where to work.
    """

    def __init__(
        self, planned: Plan, material: Material, judge: Judge | None, shop: Workshop
    ) -> None:
        request = planned.request
        self._checkset = material.checkset
        self._names = tuple(tensor.name for tensor in material.inputs)
        self._judge = judge
        self._limit = request.limits.accuracy_drop
        self._confidence = request.confidence
        self._tolerances = tolerances(request.tolerances)
        self._shop = shop
        self._seed = request.seed
        self._count = len(material.checkset.samples)
        self._order = np.random.default_rng(request.seed).permutation(self._count)
        self._golden = np.array(golden_rows(material.checkset), dtype=np.int64)
        self._folder = shop.folder / "checking"
        self._folder.mkdir()
        self._calls = 0
        self._stack = ExitStack()
        self._scorer: Child | None = None
        self._right: Array | None = None

    def __enter__(self) -> Checker:
        """
        Raises:
            SourceError: a user's metric is not there: told now, before hours of work.
        """
        judge = self._judge
        if judge is not None and judge.metric.path is not None:
            users = Users(judge.metric.path, judge.metric.name)
            function = "edgeml.exporter.judging.scoring:look"
            self._judging(judge).call(function, users, int, step=f"Reading {users.path}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def source_accuracy(self) -> Accuracy | None:
        """Of the source model itself; None without a metric, and for agreement.

        Raises:
            SourceError: a user's metric fails.
        """
        judge = self._judge
        if judge is None or judge.metric.name == "agreement":
            return None
        if judge.paired:
            return metrics.share(judge.metric.name, self._source_right(judge), all_seen=True)
        score = self._score(judge, self._checkset.reference, "the source model")
        return self._accuracy_of(judge, score)

    def check(
        self,
        child: Child,
        candidate: Candidate,
        made: CompileResult,
        *,
        cursory: bool = False,
        dropped: bool = False,
        share: float = 1.0,
    ) -> Checked:
        """Run samples through an artifact, and compare.

        Args:
            child: with nothing but light runtimes.
            candidate: which one.
            made: it.
            cursory: look at few samples: it is out of the question.
            dropped: it will be, if it fails: look no further once that is certain.
            share: of what its certificate leaves to chance, where others might be chosen.

        Raises:
            DoesNotRunError: it cannot be opened or run.
            EdgemlError: a user's metric fails.
        """
        judge = self._judge
        certificate: Certificate | None = None
        verdict: Verdict = "open"
        given_up = 0
        rows = self._order[:CURSORY] if cursory else np.arange(self._count)
        if not cursory and self._limit is not None and judge is not None and judge.paired:
            rows, found, verdict = self._in_order(child, candidate, made, judge, self._limit, share)
        elif dropped and not cursory:
            rows, found = self._while_hoped(child, candidate, made)
            given_up = self._count if len(rows) < self._count else 0
            cursory = bool(given_up)
        else:
            found = self._predict(child, candidate, made, rows)
        whole = len(rows) == self._count and not (np.diff(rows) != 1).any()
        golden = (
            {name: array[self._golden] for name, array in found.items()}
            if whole
            else self._predict(child, candidate, made, self._golden)
        )
        accuracy: Accuracy | None = None
        drop: float | None = None
        if judge is not None and judge.paired:
            right = judge.correct(found, self._checkset.reference, rows)
            outcomes = self._source_right(judge)[rows].astype(float) - right
            drop = float(outcomes.mean())
            if judge.metric.name != "agreement":
                accuracy = metrics.share(
                    judge.metric.name, right, all_seen=len(rows) == self._count
                )
            if not cursory and verdict != "beyond":
                certificate = certify(
                    judge.metric.name,
                    outcomes if not whole else outcomes[self._order],
                    limit=0.0 if self._limit is None else self._limit,
                    population=self._count,
                    confidence=self._confidence,
                    share=share,
                )
        elif judge is not None and not cursory:
            score = self._score(judge, found, str(candidate))
            accuracy, drop = self._accuracy_of(judge, score), score.drop
            if self._limit is not None:
                verdict = "within" if score.drop <= self._limit else "beyond"
            if verdict != "beyond":
                certificate = Certificate(
                    metric=judge.metric.name,
                    drop=score.drop,
                    confidence=self._confidence,
                    samples=self._count,
                    method="bootstrap",
                    population=self._count,
                    beyond=score.beyond,
                )
        limit = self._tolerances[candidate.precision]
        decisions = self._checkset.decisions
        return Checked(
            parity=compare(_only(rows, self._checkset.reference), found, decisions, limit),
            golden=compare(_only(self._golden, self._checkset.reference), golden, decisions, limit),
            accuracy=accuracy,
            certificate=certificate,
            drop=drop,
            verdict=verdict,
            given_up=given_up,
        )

    def _in_order(
        self,
        child: Child,
        candidate: Candidate,
        made: CompileResult,
        judge: Judge,
        limit: float,
        share: float,
    ) -> tuple[Array, dict[str, Array], Verdict]:
        """Samples in random order until the test can tell: which, what came out, and its word."""
        test = PairedTest(
            limit,
            population=self._count,
            confidence=self._confidence,
            low=judge.low,
            share=share,
        )
        parts: list[dict[str, Array]] = []
        start, size = 0, CHUNK
        while start < self._count and test.verdict == "open":
            rows = self._order[start : start + size]
            part = self._predict(child, candidate, made, rows)
            right = judge.correct(part, self._checkset.reference, rows)
            test.update(self._source_right(judge)[rows].astype(float) - right)
            parts.append(part)
            start, size = start + len(rows), min(2 * size, LARGEST_CHUNK)
            self._shop.emit(Progress(text=f"{candidate}: {start:,} of {self._count:,} samples"))
        # What was run beyond the sample that certified it is not looked at.
        found = {
            name: np.concatenate([part[name] for part in parts])[: test.seen] for name in parts[0]
        }
        return self._order[: test.seen], found, test.verdict

    def _while_hoped(
        self, child: Child, candidate: Candidate, made: CompileResult
    ) -> tuple[Array, dict[str, Array]]:
        """All samples in their order; or, of one that fails for certain, those seen till then."""
        hope = Hope(
            self._checkset.reference,
            self._checkset.decisions,
            self._tolerances[candidate.precision],
        )
        found: dict[str, Array] = {}
        stop, size = 0, FIRST_LOOK
        while stop < self._count:
            rows = self._order[stop : stop + size]
            part = self._predict(child, candidate, made, rows)
            for name, array in part.items():
                empty = np.empty((self._count, *array.shape[1:]), array.dtype)
                found.setdefault(name, empty)[rows] = array
            stop, size = stop + len(rows), 2 * size
            if stop < self._count and hope.lost(rows, part):
                return self._order[:stop], _only(self._order[:stop], found)
        return np.arange(self._count), found

    def _source_right(self, judge: Judge) -> Array:
        if self._right is None:
            reference = self._checkset.reference
            self._right = judge.correct(reference, reference, np.arange(self._count))
        return self._right

    def _predict(
        self, child: Child, candidate: Candidate, made: CompileResult, rows: Array
    ) -> dict[str, Array]:
        # What needs a GPU is an ONNX graph, which the CPU runs as well.
        elsewhere = target(candidate.target).needs_nvidia
        self._calls += 1
        folder = self._folder / str(self._calls)
        folder.mkdir()
        results = tuple(folder / f"{index}.npy" for index in range(len(made.outputs)))
        everything = len(rows) == self._count and not (np.diff(rows) != 1).any()
        job = PredictJob(
            target="onnx" if elsewhere else candidate.target,
            entry=made.files[0],
            inputs=made.inputs,
            outputs=made.outputs,
            options={} if elsewhere else made.options,
            names=self._names,
            samples=self._checkset.files,
            results=results,
            rows=None if everything else tuple(int(row) for row in rows),
        )
        function = "edgeml.exporter.judging.predict:predict"
        try:
            child.call(function, job, int, step=f"The check of {candidate}")
        except EdgemlError as error:
            raise DoesNotRunError(
                error.found, expected=error.expected, remedy=error.remedy
            ) from error
        return {name: np.load(path) for name, path in zip(made.outputs, results, strict=True)}

    def _score(self, judge: Judge, found: Mapping[str, Array], what: str) -> Score:
        job = ScoreJob(
            metric=judge.metric.name,
            path=judge.metric.path,
            output=judge.output or next(iter(found)),
            labels=self._folder / "labels.npy",
            source=self._paths("source", self._checkset.reference),
            found=self._files("found", found),
            inputs=dict(zip(self._names, self._checkset.files, strict=True)),
            confidence=self._confidence,
            seed=self._seed,
        )
        return self._judging(judge).call(
            "edgeml.exporter.judging.scoring:score", job, Score, step=f"Judging {what}"
        )

    def _judging(self, judge: Judge) -> Child:
        """The process that scores, with the labels and the source's outputs beside it."""
        if self._scorer is None:
            assert judge.labels is not None
            self._scorer = self._stack.enter_context(self._shop.children.child())
            np.save(self._folder / "labels.npy", judge.labels)
            self._files("source", self._checkset.reference)
        return self._scorer

    def _accuracy_of(self, judge: Judge, score: Score) -> Accuracy:
        return Accuracy(
            metric=judge.metric.name,
            value=score.value,
            lower=score.worst,
            confidence=self._confidence,
            samples=self._count,
        )

    def _paths(self, role: str, arrays: Mapping[str, Array]) -> dict[str, Path]:
        return {
            name: self._folder / f"{role}{index}.npy" for index, name in enumerate(sorted(arrays))
        }

    def _files(self, role: str, arrays: Mapping[str, Array]) -> dict[str, Path]:
        paths = self._paths(role, arrays)
        for name, path in paths.items():
            path.unlink(missing_ok=True)  # the child may have mapped the one before
            np.save(path, arrays[name])
        return paths


def _only(rows: Sequence[int] | Array, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array[rows] for name, array in arrays.items()}
