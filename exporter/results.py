"""What came of an export: rows for people, the error where there is no bundle, and what is packed.

Pure, but for the hashes of the source and the samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle import Accuracy, Budgets, Golden, Provenance, SampleSet, Tensor
from edgeml.bundle.manifest import Precision
from edgeml.data import Samples
from edgeml.errors import SourceError
from edgeml.exporter import pack
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.events import Refusal, Row
from edgeml.exporter.intake import Checkset, Material
from edgeml.exporter.judging.check import golden_rows
from edgeml.exporter.judging.choose import Choice
from edgeml.exporter.judging.figures import Figures, distance, missed
from edgeml.exporter.judging.pareto import Merits, front
from edgeml.exporter.plan import Plan
from edgeml.exporter.repeat.dependencies import file_hash
from edgeml.exporter.repeat.lock import hashes
from edgeml.exporter.request import Limits
from edgeml.exporter.samples import calibrate
from edgeml.exporter.trial import Trial
from edgeml.statistics import Baseline, fit_baseline


def failure(failed: Sequence[Figures], smallest: str = "") -> SourceError:
    """The error where a check failed and there is no bundle.

    Args:
        failed: of the candidates that did.
        smallest: what ``--minimize`` came to.
    """
    told = "; ".join(f"{each.candidate}: {each.shortfall}" for each in failed)
    precision = failed[0].candidate.precision
    hint = (
        "More, and more varied, calibration samples may help, and --precision mixed keeps the "
        "worst layers in float. "
        if precision == "int8"
        else ""
    )
    return SourceError(
        f"The check against the source model failed for {told}",
        expected="artifacts that come as near to it as their tolerance says",
        remedy=f"No bundle was written. {hint}If it is near enough for you, set "
        f"--tolerance {precision}:cosine=…,agreement=…."
        f"{f' {smallest}' if smallest else ''}",
    )


def rows(trials: Sequence[Trial], choices: Mapping[Candidate, Choice], limits: Limits) -> list[Row]:
    """The table: a target's artifacts together; where none is chosen, the nearest first."""
    on_front = dict(zip([t.candidate for t in trials], _on_front(trials), strict=True))
    told: list[Row] = []
    for target in dict.fromkeys(each.candidate.target for each in trials):
        mine = [each for each in trials if each.candidate.target == target]
        if not any(choices[each.candidate].chosen for each in mine):
            mine.sort(key=lambda each: distance(each.figures(), limits))
        told += [
            _row(each, choices[each.candidate], limits, front=on_front[each.candidate])
            for each in mine
        ]
    return told


def _row(trial: Trial, choice: Choice, limits: Limits, *, front: bool) -> Row:
    checked, measured = trial.checked, trial.measured
    parity = checked.parity if checked else None
    accuracy = checked.accuracy if checked else None
    certificate = checked.certificate if checked else None
    metric = (accuracy and accuracy.metric) or (certificate and certificate.metric) or ""
    return Row(
        target=trial.candidate.target,
        precision=trial.candidate.precision,
        bytes=trial.bytes,
        passed=not trial.figures().shortfall,
        chosen=choice.chosen,
        cosine=parity.cosine if parity else None,
        max_abs=parity.max_abs if parity else None,
        agreement=parity.agreement if parity else None,
        samples=parity.samples if parity else 0,
        metric=metric,
        accuracy=accuracy.value if accuracy else None,
        accuracy_lower=accuracy.lower if accuracy else None,
        drop=checked.drop if checked else None,
        certificate=certificate,
        load_ms=measured.load_ms if measured else None,
        p50_ms=measured.p50_ms if measured else None,
        p99_ms=measured.p99_ms if measured else None,
        peak_rss_mb=measured.peak_rss_mb if measured else None,
        loading_rss_mb=measured.loading_rss_mb if measured else None,
        steady_rss_mb=measured.steady_rss_mb if measured else None,
        float_layers=trial.candidate.keep_float,
        missed=tuple(each.text for each in missed(trial.figures(), limits)),
        front=front,
        step=trial.note,
        not_checked=trial.not_checked,
        note=choice.note,
    )


def _on_front(trials: Sequence[Trial]) -> list[bool]:
    able = [each for each in trials if each.checked is not None and not each.checked.shortfall]
    merits: list[Merits] = []
    for each in able:
        assert each.checked is not None
        agreement = each.checked.parity.agreement
        loss = each.checked.drop
        if loss is None and agreement is not None:
            loss = 1 - agreement
        merits.append(
            Merits(
                latency_ms=each.measured.p50_ms if each.measured else None,
                loss=loss if loss is not None else 1 - each.checked.parity.cosine,
                bytes=each.bytes,
            )
        )
    on = {e.candidate for e, good in zip(able, front(merits), strict=True) if good}
    return [each.candidate in on for each in trials]


def unmet(trials: Sequence[Trial], limits: Limits, *, only: Precision | None) -> Refusal:
    """The refusal of a target of which nothing is within the limits.

    Args:
        trials: of that target, at least one.
        limits: what was asked for.
        only: the precision asked for, where others were tried beside it.
    """
    meant = [each for each in trials if only in (None, each.candidate.precision)] or list(trials)
    near = min(meant, key=lambda each: distance(each.figures(), limits))
    figures = near.figures()
    over = missed(figures, limits)
    limited = limits != Limits()
    told = [each.text for each in over]
    if figures.shortfall:
        told.append(f"its check failed: {figures.shortfall}" if limited else figures.shortfall)
    if not told:
        return Refusal(
            target=near.candidate.target,
            reason=f"There is no artifact with precision {only}.",
            remedy="The notes say why none was made; --precision auto takes what there is.",
        )
    name = str(near.candidate).removeprefix(f"{near.candidate.target} ")
    if len(meant) > 1:
        many = f"None of the {len(meant)} artifacts tried"
        verb = "is within the limits" if limited else "passes its check"
    else:
        many = "What was tried"
        verb = "is not within the limits" if limited else "does not pass its check"
    remedies = {each.limit: _REMEDIES[each.limit] for each in over}
    return Refusal(
        target=near.candidate.target,
        reason=f"{many} {verb}. The nearest, {name}: {', '.join(told)}.",
        remedy=" ".join(remedies.values())
        or "More, and more varied, calibration samples may help. If it is near enough for you, set "
        f"--tolerance {near.candidate.precision}:cosine=…,agreement=….",
    )


_REMEDIES = {
    "accuracy": "More, and more varied, calibration samples may help; else allow a larger "
    "--max-accuracy-drop.",
    "latency": "Allow a larger --max-latency, or make the model smaller; on another processor the "
    "same artifact may be within it.",
    "memory": "Allow more with --max-memory; most of it may be the runtime's own: try another "
    "target.",
    "size": "Allow more with --max-size, or make the model smaller.",
}


def finished(trial: Trial) -> pack.Finished:
    """A chosen artifact as it is packed."""
    checked = trial.checked
    return pack.Finished(
        candidate=trial.candidate,
        made=trial.made,
        parity=checked.parity if checked else None,
        not_checked=trial.not_checked,
        accuracy=checked.accuracy if checked else None,
        certificate=checked.certificate if checked else None,
        measured=trial.measured,
        not_measured=trial.not_measured,
    )


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Of the source and its samples: their hashes."""

    calibration: SampleSet | None
    evaluation: SampleSet | None
    sha256: str
    """Of the source."""
    given: dict[str, str]
    """Of the files that the request names, by its fields."""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of the source and its samples, whatever is made of them."""

    baseline: Baseline | None
    identity: Identity
    golden: Golden


def identify(planned: Plan, material: Material) -> Identity:
    """Hash the source and the samples: without what the source makes of them."""
    return Identity(
        calibration=_sample_set(material.calibration, material.inputs),
        evaluation=_sample_set(material.evaluation, material.inputs),
        sha256=material.source.sha256 or file_hash(planned.model.path),
        given=hashes(planned.request),
    )


def observe(planned: Plan, material: Material) -> Baseline | None:
    """Fit the baseline of the inputs: without what the source makes of them. None where there are
    no calibration samples."""
    if material.calibration is None:
        return None
    return fit_baseline(
        material.calibration.inputs,
        {},
        input_tensors=material.inputs,
        output_tensors=(),
        families=planned.request.statistics,
    )


def describe(material: Material, identity: Identity, observed: Baseline | None) -> Described:
    """Fit the baseline of the outputs, choose the golden vectors.

    Args:
        material: with what the source makes of all calibration samples.
        identity: of :func:`identify`.
        observed: of :func:`observe`.
    """
    baseline = observed
    if material.calibration is not None and observed is not None:
        made = fit_baseline(
            material.calibration.inputs,
            material.calibration_reference,
            input_tensors=(),
            output_tensors=material.outputs,
            evaluated=_evaluated(material.checkset),
        )
        baseline = msgspec.structs.replace(observed, tensors=(*observed.tensors, *made.tensors))
    return Described(baseline=baseline, identity=identity, golden=_golden(material.checkset))


def contents(
    planned: Plan,
    material: Material,
    described: Described,
    targets: Sequence[str],
    source_accuracy: Accuracy | None,
) -> pack.Contents:
    """What goes into the bundle beside the artifacts."""
    request = planned.request
    return pack.Contents(
        name=planned.name,
        version=planned.version,
        inputs=material.inputs,
        inside=material.inside,
        devices=request.devices,
        outputs=material.outputs,
        budgets=Budgets(deadline_ms=request.deadline_ms, memory_mb=request.memory_mb),
        provenance=Provenance(
            source_format=material.source.title,
            source_name=planned.model.path.name,
            source_sha256=described.identity.sha256,
            tools=pack.tools(material.source.kind, targets),
            calibration=described.identity.calibration,
            evaluation=described.identity.evaluation,
            source_accuracy=source_accuracy,
        ),
        golden=described.golden,
        baseline=described.baseline,
    )


def _evaluated(checkset: Checkset) -> dict[str, tuple[NDArray[np.generic], NDArray[np.generic]]]:
    """The output that labels belong to, and the labels."""
    if checkset.labels is None or checkset.labelled not in checkset.reference:
        return {}
    return {checkset.labelled: (checkset.reference[checkset.labelled], checkset.labels)}


def _sample_set(samples: Samples | None, inputs: tuple[Tensor, ...]) -> SampleSet | None:
    return None if samples is None else calibrate.sample_set(samples, inputs)


def _golden(checkset: Checkset) -> Golden:
    rows = golden_rows(checkset)
    return Golden(
        {name: np.array(array[rows]) for name, array in checkset.samples.inputs.items()},
        {name: array[rows] for name, array in checkset.reference.items()},
    )
