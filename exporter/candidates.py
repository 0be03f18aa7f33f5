"""Which artifacts are to be tried, and what each must reach.

``auto`` tries float32 for every target and, with calibration data, int8; a precision named is the
only one tried. float16 is made only when it is named, for on a processor it saves bytes, not time;
but OpenVINO's stands for float32 under ``auto``, which is looked at only where it does not hold.
With limits, ``auto`` may try all that a target makes: :mod:`edgeml.exporter.searching.search`
decides in which order, and how far it goes. ``mixed`` needs float32 and int8 beside it, which tell
the layers that are to stay float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from edgeml.bundle.manifest import PRECISIONS, Precision, Tolerance
from edgeml.errors import RefusedError
from edgeml.exporter.request import Choice, ToleranceOverride
from edgeml.targets.registry import Refusal, SourceKind, can_make
from edgeml.targets.registry import target as row_of

TOLERANCES: Mapping[Precision, Tolerance] = {
    "fp32": Tolerance(cosine=0.9999, agreement=0.99),
    "fp16": Tolerance(cosine=0.999, agreement=0.98),
    "int8": Tolerance(cosine=0.98, agreement=0.9),
    "int8-dynamic": Tolerance(cosine=0.98, agreement=0.9),
    "int16x8": Tolerance(cosine=0.98, agreement=0.9),
    "int8-weights": Tolerance(cosine=0.98, agreement=0.9),
    "int4-weights": Tolerance(cosine=0.98, agreement=0.9),
    "mixed": Tolerance(cosine=0.98, agreement=0.9),
}
"""Chosen by measurement. The same arithmetic in another order stays above .999999 in float32 and
.9999 in float16 (a digit classifier, ResNet-8, DS-CNN, on three runtimes). Sound int8 conversions
of the same models lie between .990 (ResNet-8) and .9999 (digits), with the same decision for .91 to
1.0 of the samples, the lowest on photos of nothing that the model knows; a range that forgets its
extremes (ResNet-8 .962) or a layout that is mixed up falls below."""

CALIBRATED: frozenset[Precision] = frozenset({"int8", "int16x8", "mixed"})
"""Precisions whose activations are rounded in ranges that are measured beforehand."""

NO_CALIBRATION = Refusal(
    reason="int8 was asked for without calibration data. The ranges of a model's values, which "
    "decide how each is rounded, must be measured on what the model really sees: random data would "
    "give an artifact that is wrong without any sign of it.",
    remedy="Give some hundred real samples with --calibration, or ask for --precision fp32.",
)


class Candidate(msgspec.Struct, frozen=True):
    """An artifact to be tried."""

    target: str
    precision: Precision
    keep_float: tuple[str, ...] = ()
    """Layers that stay float in ``mixed``, by the target's names."""

    @property
    def id(self) -> str:
        """As in the manifest, where only one of a target's ``mixed`` ones can be."""
        return f"{self.target}-{self.precision}"

    def __str__(self) -> str:
        count = len(self.keep_float)
        layers = f" with {count} float layer{'' if count == 1 else 's'}" if count else ""
        return f"{self.target} {self.precision}{layers}"


def candidates(
    targets: Sequence[str],
    choice: Choice,
    kind: SourceKind,
    *,
    calibrated: bool,
    searching: bool = False,
) -> tuple[tuple[Candidate, ...], dict[str, Refusal]]:
    """The artifacts to try, float first, and the refusals of targets of which there will be none.

    Decided from the registry alone, before anything heavy is imported.

    Args:
        targets: as asked for.
        choice: the precision asked for.
        kind: of the source.
        calibrated: whether there is calibration data.
        searching: whether ``auto`` means all precisions.
    """
    named: tuple[Precision, ...] | None = None if choice == "auto" else (choice,)
    if searching and choice == "auto":
        named = PRECISIONS
    elif choice == "mixed":
        named = ("fp32", "int8", "mixed")
    found: list[Candidate] = []
    refused: dict[str, Refusal] = {}
    for target in targets:
        for precision in named or row_of(target).auto:
            refusal = can_make(target, kind, precision)
            if refusal is None and precision in CALIBRATED and not calibrated:
                refusal = NO_CALIBRATION
            if refusal is None:
                found.append(Candidate(target, precision))
            elif target not in refused or precision == choice:
                refused[target] = refusal
    if choice == "mixed":  # what stands beside it is of no use without it
        able = {each.target for each in found if each.precision == "mixed"}
        found = [each for each in found if each.target in able]
    made = {candidate.target for candidate in found}
    return tuple(found), {name: why for name, why in refused.items() if name not in made}


def spares(found: Sequence[Candidate], choice: Choice) -> dict[Candidate, Candidate]:
    """Candidates that are looked at only where another does not hold, which computes the same in
    fewer bytes, each with that other.

    Args:
        found: all that are to be tried.
        choice: the precision asked for: one that was named is looked at.
    """
    if choice != "auto":
        return {}
    named = {(each.target, each.precision): each for each in found}
    pairs = {each: row_of(each.target).spare.get(each.precision) for each in found}
    return {
        each: named[each.target, other]
        for each, other in pairs.items()
        if other is not None and (each.target, other) in named
    }


def tolerances(overrides: Mapping[Precision, ToleranceOverride]) -> dict[Precision, Tolerance]:
    """The defaults, with a user's changes."""
    return {
        precision: Tolerance(
            cosine=default.cosine
            if (given := overrides.get(precision)) is None or given.cosine is None
            else given.cosine,
            agreement=default.agreement
            if given is None or given.agreement is None
            else given.agreement,
        )
        for precision, default in TOLERANCES.items()
    }


def nothing_left(refused: Mapping[str, Refusal]) -> RefusedError:
    """The error where no target can be made: each reason once, with the targets that have it."""
    targets: dict[tuple[str, str], list[str]] = {}
    for name, refusal in refused.items():
        targets.setdefault((refusal.reason.rstrip("."), refusal.remedy), []).append(name)
    if len(targets) == 1:
        ((reason, remedy),) = targets
        return RefusedError(reason, remedy=remedy)
    return RefusedError(
        ". ".join(f"{', '.join(names)}: {reason}" for (reason, _), names in targets.items()),
        remedy=" ".join(dict.fromkeys(remedy for _, remedy in targets)),
    )
