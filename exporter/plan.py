"""Looking a request over: everything that can be wrong without reading a model or a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from edgeml.data import DataSource, parse_source
from edgeml.errors import SourceError, UsageError
from edgeml.exporter import naming, preprocessing
from edgeml.exporter.candidates import CALIBRATED, Candidate, candidates
from edgeml.exporter.children import Children
from edgeml.exporter.events import Event, Progress
from edgeml.exporter.judging.metric_forms import Metric, parse_metric
from edgeml.exporter.measure import not_measurable
from edgeml.exporter.preprocessing import Declaration
from edgeml.exporter.request import ExportRequest, Limits
from edgeml.exporter.sources.forms import ModelSource, parse_model
from edgeml.statistics.baseline import NO_FAMILY
from edgeml.statistics.families import FAMILIES
from edgeml.targets.registry import Refusal, SourceKind, target

Emit = Callable[[Event], None]


OPEN_AXES = ("onnx", "openvino")
"""Targets whose artifacts can keep an axis open."""

NO_OPEN_AXES = Refusal(
    reason="Its artifacts have a fixed length in every axis, and --shape asks for one that stays "
    "open (-1).",
    remedy="Give a length for every axis: --shape input=1,3,224,224; or export for "
    f"{' or '.join(OPEN_AXES)}.",
)

NO_RAW_INPUT = {
    "coreml": Refusal(
        reason="Core ML takes float32 and int32 alone, and what --preprocess declares begins with "
        "what the sensor gives, uint8 or int16.",
        remedy="Leave --preprocess out for it and do those steps in the app; or export to tflite "
        "or onnx, which run on Apple's devices as well.",
    )
}
"""Targets whose artifacts cannot take raw input."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was looked over."""

    request: ExportRequest
    model: ModelSource
    calibration: DataSource | None
    evaluation: DataSource | None
    preprocessing: Declaration | None
    """What the artifacts are to do to raw input first."""
    metric: Metric | None
    """None where the labels decide."""
    candidates: tuple[Candidate, ...]
    """Empty where every target is refused."""
    refused: dict[str, Refusal]
    name: str
    version: str
    output: Path


class Workshop(msgspec.Struct, frozen=True, kw_only=True):
    """Where the stages work, and how they are heard."""

    emit: Emit
    """Takes events, from several threads."""
    children: Children
    folder: Path
    """Empty at first; gone afterwards."""
    bridges: Mapping[str, Path] = {}
    """Interpreters of the toolchains that targets' conversions go through, by target."""

    def steps(self) -> Callable[[str], None]:
        """Counts the steps of a stage: call it when one is done."""
        count = 0

        def done(text: str) -> None:
            nonlocal count
            count += 1
            self.emit(Progress(text=text, step=count))

        return done


def settled(plan: Plan, kind: SourceKind) -> Plan:
    """The plan for a model whose kind showed only when it was opened: a factory, a pickle.

    Targets that were refused before are not taken up again.
    """
    if kind == plan.model.kind:
        return plan
    targets = tuple(dict.fromkeys(each.target for each in plan.candidates))
    found, refused = candidates(
        targets,
        plan.request.precision,
        kind,
        calibrated=plan.calibration is not None,
        searching=plan.request.searching,
    )
    return msgspec.structs.replace(plan, candidates=found, refused={**plan.refused, **refused})


UNMEASURED = Refusal(
    reason="Every calibration sample has a missing value (NaN), and the ranges of a model's values "
    "can only be measured on whole ones.",
    remedy="Give some samples without NaN, too, or ask for --precision fp32.",
)


def _check_statistics(request: ExportRequest) -> None:
    # Texts stand in tables; no artifact takes one.
    known = (*(name for name in FAMILIES if name != "text"), NO_FAMILY)
    for name, family in request.statistics.items():
        if family not in known:
            raise UsageError(
                f"There are no statistics {family!r}, asked for of the input {name!r}",
                expected=f"one of {', '.join(known)}",
            )


def uncalibrated(plan: Plan) -> Plan:
    """The plan where no sample can calibrate a quantizer."""
    found = tuple(each for each in plan.candidates if each.precision not in CALIBRATED)
    left = {each.target for each in found}
    refused = {each.target: UNMEASURED for each in plan.candidates if each.target not in left}
    return msgspec.structs.replace(plan, candidates=found, refused={**plan.refused, **refused})


def plan(request: ExportRequest) -> Plan:
    """Look a request over.

    Raises:
        UsageError: a word of it is none that edgeml knows.
        SourceError: a file is missing or plainly damaged, there are no samples, or nothing can be
            written to the output.
        RefusedError: nothing can be put in front of such a model.
    """
    if not request.targets:
        raise UsageError("No target was named", expected="at least one, with -t")
    for name in request.targets:
        target(name)
    _check_statistics(request)
    named = (request.calibration or "", request.evaluation or "")
    model = parse_model(
        request.model,
        trust=request.trust,
        python=request.python,
        of_samples=any(text.rpartition(":")[0].endswith(".py") for text in named),
    )
    calibration = parse_source(request.calibration) if request.calibration else None
    evaluation = parse_source(request.evaluation) if request.evaluation else None
    declared = preprocessing.load(Path(request.preprocessing)) if request.preprocessing else None
    if declared is not None and model.settled:
        preprocessing.refuse_kind(model.kind)
    name = naming.model_name(request.name, model.path)
    version = naming.checked_name(request.version, "version")
    output = naming.destination(request.output, name, version)
    metric = parse_metric(request.metric)
    naming.beside(request.report, "--report", (".png", ".html"))
    naming.beside(request.minimize, "--minimize", (".onnx",))
    unjudged = {
        each: why
        for each in request.targets
        if (why := _unjudged(each, request.limits)) is not None
    }
    found, refused = candidates(
        tuple(each for each in dict.fromkeys(request.targets) if each not in unjudged),
        request.precision,
        model.kind,
        calibrated=calibration is not None,
        searching=request.searching,
    )
    refused = {**unjudged, **refused}
    if any(-1 in shape for shape in request.shapes.values()):
        refused |= {each.target: NO_OPEN_AXES for each in found if each.target not in OPEN_AXES}
        found = tuple(each for each in found if each.target in OPEN_AXES)
    if declared is not None:
        refused |= {e.target: NO_RAW_INPUT[e.target] for e in found if e.target in NO_RAW_INPUT}
        found = tuple(each for each in found if each.target not in NO_RAW_INPUT)
    if found and calibration is None and evaluation is None:
        raise SourceError(
            "There are no samples to check the artifacts with",
            expected="real samples: each artifact is compared with the model on them before it is "
            "packed",
            remedy="Give some with --calibration (int8 needs them too) or --evaluate.",
        )
    return Plan(
        request=request,
        model=model,
        calibration=calibration,
        evaluation=evaluation,
        preprocessing=declared,
        metric=metric,
        candidates=found,
        refused=refused,
        name=name,
        version=version,
        output=output,
    )


def _unjudged(name: str, limits: Limits) -> Refusal | None:
    """A limit that nothing here can judge for a target, since its artifacts do not run here."""
    asked = {
        "--max-latency": limits.latency_ms,
        "--max-memory": limits.memory_mb,
        # A graph for another provider gives the same answers on the CPU.
        "--max-accuracy-drop": None if target(name).providers else limits.accuracy_drop,
    }
    flags = [flag for flag, value in asked.items() if value is not None]
    why = not_measurable(name)
    if not why or not flags:
        return None
    there = "" if target(name).needs_nvidia else "; or run the export there"
    return Refusal(
        reason=f"{' and '.join(flags)} cannot be judged for {name} here: {why.rstrip('.')}.",
        remedy=f"Export it apart without {' and '.join(flags)}, and measure it on the device with "
        f"`edgeml bench`{there}.",
    )
