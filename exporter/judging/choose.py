"""Which artifact of each target goes into the bundle.

A named precision is chosen. Under ``auto`` the best of those that passed their check is, where best
means: the lowest median latency measured on this machine, among those that lose at most one point
of the metric against the source model: of accuracy where the samples have labels, else of agreement
with it, for then nothing better is known. Of those that are no slower than the fastest
(:mod:`edgeml.exporter.judging.pace`) the smallest file wins. Where a target cannot be measured
here, int8 is chosen, or the smallest of what was tried.

With limits, only what is within all of them counts, and the best is again the fastest; one that
loses more than a point without a limit on accuracy is chosen only where nothing else is within the
limits. Of ``mixed`` artifacts, of which there may be several, the best is chosen likewise.

Under ``auto``, an int8 artifact that misses its tolerance is shown, without a latency, and not
chosen, as long as the target's float artifact passes. Any other failed check is an error, and then
there is no bundle: of a float artifact, of a precision asked for by name, of the only artifact that
a target has.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgeml.bundle.manifest import Precision
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.judging.figures import Figures, missed
from edgeml.exporter.judging.pace import slower, told
from edgeml.exporter.request import Limits

NO_LIMITS = Limits()
ACCURACY_LOSS = 0.01
FLOAT: tuple[Precision, ...] = ("fp32", "fp16")


class Choice(msgspec.Struct, frozen=True):
    """The outcome for one candidate."""

    chosen: bool
    note: str = ""
    """What a reader of the table should know of it."""


def fatal(figures: Sequence[Figures], *, auto: bool) -> list[Figures]:
    """Candidates whose failed check means that there is no bundle."""
    passed = {each.candidate.target for each in figures if not each.shortfall}
    return [
        each
        for each in figures
        if each.shortfall
        and not (auto and each.candidate.precision != "fp32" and each.candidate.target in passed)
    ]


def choose(
    figures: Sequence[Figures],
    *,
    auto: bool,
    source_accuracy: float | None = None,
    limits: Limits = NO_LIMITS,
    only: Precision | None = None,
) -> dict[Candidate, Choice]:
    """Choose for every target among its candidates.

    Args:
        figures: of all candidates that were made.
        auto: whether edgeml chooses; otherwise each that passed and is within the limits is.
        source_accuracy: of the source model on the same samples.
        limits: what the artifacts must keep within.
        only: the precision that may be chosen, among others that were tried beside it.
    """
    choices: dict[Candidate, Choice] = {}
    targets = dict.fromkeys(each.candidate.target for each in figures)
    judged = limits.accuracy_drop is None  # a limit judges by itself
    for target in targets:
        mine = [each for each in figures if each.candidate.target == target]
        passed = [each for each in mine if not each.shortfall and not missed(each, limits)]
        if only is not None:
            passed = [each for each in passed if each.candidate.precision == only]
        sound = [each for each in passed if not _lost(each, source_accuracy) > ACCURACY_LOSS]
        best = _best(passed, sound if judged and auto else passed) if auto or only else None
        fastest = _fastest(passed)
        for each in mine:
            chosen = each is best or (not auto and only is None and each in passed)
            loss = _loss(each, source_accuracy) if judged else ""
            notes = _notes(each, mine, loss)
            if each is best and fastest is not None and fastest.bytes > each.bytes:
                notes += _no_slower(each, fastest)
            note = "; ".join((*notes, *(miss.text for miss in missed(each, limits))))
            choices[each.candidate] = Choice(chosen, note)
    return choices


def holds(each: Figures) -> bool:
    """Whether a candidate passed its check, and loses no more than counts as nothing."""
    return not each.shortfall and _lost(each, None) <= ACCURACY_LOSS


def _best(passed: Sequence[Figures], sound: Sequence[Figures]) -> Figures | None:
    if not passed:
        return None
    kept = sound or [each for each in passed if each.candidate.precision == "fp32"] or list(passed)
    fastest = _fastest(kept)
    if fastest is None:
        return min(kept, key=lambda each: (each.candidate.precision != "int8", each.bytes))
    near = [each for each in kept if each.p50_ms is not None and not slower(each, fastest)]
    return min(near, key=lambda each: (each.bytes, each.p50_ms))


def _fastest(kept: Sequence[Figures]) -> Figures | None:
    """By the median of all runs; None where none was measured."""
    measured = [each for each in kept if each.p50_ms is not None]
    return min(measured, key=lambda each: each.p50_ms or 0.0, default=None)


def _lost(each: Figures, source_accuracy: float | None) -> float:
    """Of the metric, against the source model; 0 where nothing is known."""
    if each.drop is not None:
        return each.drop
    if each.accuracy is None or source_accuracy is None:
        return 0.0
    return source_accuracy - each.accuracy


def _loss(each: Figures, source_accuracy: float | None) -> str:
    """What to tell of a loss, where there is one."""
    lost = _lost(each, source_accuracy) * 100
    if lost <= ACCURACY_LOSS * 100:
        return ""
    if each.accuracy is None:
        return f"decides otherwise than the source model on {lost:.1f} % of the samples"
    return f"{lost:.1f} points less accurate than the source model"


def _no_slower(each: Figures, fastest: Figures) -> list[str]:
    """Why the smaller one was preferred."""
    if each.p50_ms is None or slower(each, fastest):
        return []
    name = fastest.candidate.precision
    return [f"smaller than {name} and no slower ({told(each, fastest)})"]


def _notes(each: Figures, mine: Sequence[Figures], loss: str) -> list[str]:
    notes = [loss] if loss else []
    if each.shortfall:
        notes.insert(0, f"failed its check: {each.shortfall}")
    floats = [e for e in mine if e.candidate.precision in FLOAT and e.p50_ms is not None]
    if floats and floats[0] is not each and each.p50_ms is not None:
        reference, name = floats[0].p50_ms, floats[0].candidate.precision
        if slower(each, floats[0]):
            notes.append(
                f"slower than {name} on this machine ({each.p50_ms:.3g} against {reference:.3g} ms)"
            )
    if each.not_measured and not each.shortfall:
        notes.append(f"not measured: {each.not_measured}")
    return notes
