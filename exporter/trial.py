"""A trial: one candidate on its way, made, checked against the source and measured.

What the two ways of trying share: :mod:`edgeml.exporter.bulk` tries all candidates at once, a stage
after the other; :mod:`edgeml.exporter.searching.search` tries one after another and stops when it
can.
"""

from __future__ import annotations

import msgspec

from edgeml.bundle import Accuracy, Certificate, Measurement, Parity
from edgeml.bundle.parity import shortfall
from edgeml.errors import EdgemlError, RefusedError, SourceError, ToolchainError
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.events import Refusal
from edgeml.exporter.intake import Stock
from edgeml.exporter.judging.certificate import Verdict
from edgeml.exporter.judging.figures import Figures
from edgeml.exporter.plan import Workshop
from edgeml.targets.compiling import CompileJob, CompileResult


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found."""

    parity: Parity
    golden: Parity
    """Likewise, on the golden vectors alone."""
    accuracy: Accuracy | None = None
    certificate: Certificate | None = None
    """None where there is no metric, or where the drop is beyond the limit."""
    drop: float | None = None
    """Of the metric, over the samples seen; None where there is no metric."""
    verdict: Verdict = "open"
    """Whether the drop is within the limit; ``open`` where there is no limit, too."""
    given_up: int = 0
    """How many samples there were for an artifact that was run on fewer, since it could not pass
    any more; 0: it was not given up."""

    @property
    def shortfall(self) -> str:
        """Which figures miss the tolerance, on all samples or as a device will see it when it
        proves the artifact; empty where none does."""
        missed = shortfall(self.parity)
        if missed and self.given_up:
            seen, left = self.parity.samples, self.given_up - self.parity.samples
            return f"{missed} on {seen:,} samples, which the {left:,} others cannot mend"
        on_device = shortfall(self.golden, golden=True)
        return missed or (on_device and f"{on_device} on the golden vectors")


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that was made, and what was found out about it."""

    candidate: Candidate
    made: CompileResult
    checked: Checked | None = None
    not_checked: str = ""
    """Why there is no check: nothing here can run it."""
    measured: Measurement | None = None
    not_measured: str = ""
    note: str = ""
    """What the search has to say of it."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.made.files)

    def figures(self) -> Figures:
        """What choice and search go by."""
        checked, measured = self.checked, self.measured
        return Figures(
            candidate=self.candidate,
            bytes=self.bytes,
            shortfall=checked.shortfall if checked else "",
            accuracy=checked.accuracy.value if checked and checked.accuracy else None,
            drop=checked.drop if checked else None,
            verdict=checked.verdict if checked else "open",
            samples=checked.parity.samples if checked else 0,
            p50_ms=measured.p50_ms if measured else None,
            turns_ms=measured.turns_ms if measured else (),
            peak_rss_mb=measured.peak_rss_mb if measured else None,
            not_measured=self.not_measured,
        )


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What trying came to."""

    trials: tuple[Trial, ...]
    refused: dict[str, Refusal]
    """Of targets of which nothing could be made."""
    source_accuracy: Accuracy | None = None
    """Of the source model, by the metric."""
    spare: tuple[Trial, ...] = ()
    """Made, and not looked at: another that computes the same holds."""
    converted: float | None = None
    """When the last conversion ended, on the monotonic clock; None in a search, where they take
    turns with all else."""


def compile_job(candidate: Candidate, stock: Stock, shop: Workshop) -> CompileJob:
    """What a converter is asked for."""
    return CompileJob(
        source_kind=stock.source.kind,
        source=stock.source.path,
        precision=candidate.precision,
        inputs=tuple(tensor.name for tensor in stock.inputs),
        outputs=tuple(tensor.name for tensor in stock.source.outputs),
        workdir=shop.folder / "compile" / candidate.target,
        calibration=stock.calibrating,
        keep_float=candidate.keep_float,
        spectra=sum(step.name == "log-mel" for step in stock.inside),
        bridge=shop.bridges.get(candidate.target),
    )


def refusal(candidate: Candidate, error: EdgemlError, *, auto: bool) -> Refusal:
    """A target's refusal, told of the first of its candidates that could not be made.

    Args:
        candidate: that one.
        error: why.
        auto: whether its precision is only one among others, and so of no interest.

    Raises:
        EdgemlError: ``error`` itself, where it has nothing to do with the target.
    """
    if not isinstance(error, RefusedError | SourceError | ToolchainError):
        raise error
    reason = error.found.rstrip(".")
    if error.expected:
        reason = f"{reason}. Expected {error.expected}".rstrip(".")
    return Refusal(
        target=candidate.target,
        precision=None if auto else candidate.precision,
        reason=f"{reason}.",
        remedy=error.remedy,
    )
