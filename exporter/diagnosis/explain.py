"""Says of each artifact that failed its check where it goes wrong, as events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgeml.errors import EdgemlError
from edgeml.exporter.compile import ConvertTask
from edgeml.exporter.diagnosis import collapse
from edgeml.exporter.diagnosis.look import Looked, LookJob
from edgeml.exporter.events import Collapse, LayerNoise, Note, Parted, Progress, Stage
from edgeml.exporter.intake import Material
from edgeml.exporter.plan import Workshop
from edgeml.exporter.searching import sensitivity
from edgeml.exporter.trial import Trial, compile_job
from edgeml.npz import save_npz
from edgeml.targets.compiling import CompileResult
from edgeml.targets.registry import target

COLLAPSED = 0.9
"""Cosine below which the layers are shown even where a tolerance of the user's own allows it."""

FEW = 16
"""Samples that layers are compared on."""


def explain(trials: Sequence[Trial], material: Material, shop: Workshop) -> None:
    """Look into every artifact that failed its check, or nearly.

    A fault on the way is a note: what is being explained is the news.
    """
    # Of a mixed one, which is a step of a search, the int8 one that it came from tells enough.
    failed = [each for each in trials if _failed(each) and each.candidate.precision != "mixed"]
    if failed:
        shop.emit(Stage(name="explain", title="Looking into what failed", steps=len(failed)))
    done = shop.steps()
    for trial in failed:
        floats = trial.candidate.precision in {"fp32", "fp16"}
        shop.emit(Progress(text=str(trial.candidate)))
        try:
            event = (
                _parted(trial, material, shop)
                if floats
                else _collapsed(trial, trials, material, shop)
            )
        except EdgemlError as error:
            event = Note(
                text=f"cannot be looked into: {error}",
                target=trial.candidate.target,
                precision=trial.candidate.precision,
            )
        if event is not None:
            shop.emit(event)
        done(str(trial.candidate))


def _failed(trial: Trial) -> bool:
    checked = trial.checked
    return checked is not None and bool(checked.shortfall or checked.parity.cosine < COLLAPSED)


def _collapsed(
    trial: Trial, trials: Sequence[Trial], material: Material, shop: Workshop
) -> Collapse | None:
    candidate = trial.candidate
    exact = next(
        (
            each
            for each in trials
            if each.candidate.target == candidate.target and each.candidate.precision == "fp32"
        ),
        None,
    )
    job = compile_job(candidate, material, shop)
    if exact is None:
        exact = _float_twin(trial, material, shop)
    found = collapse.judge(
        sensitivity.signals(job, exact, trial, _some_samples(material, shop), shop)
    )
    if found is None:
        return None
    return Collapse(
        target=candidate.target,
        precision=candidate.precision,
        text=collapse.sentence(found),
        compared=found.compared,
        layers=tuple(
            LayerNoise(
                name=each.name,
                operator=each.operator,
                module=each.module,
                line=each.line,
                shape=each.shape,
                snr_db=_finite(each.snr_db),
                input_snr_db=_finite(each.input_snr_db),
                first=each is found.bad,
                most=each is found.most,
            )
            for each in found.layers
        ),
    )


def _float_twin(trial: Trial, material: Material, shop: Workshop) -> Trial:
    """The float artifact of the same target, which was not asked for."""
    candidate = msgspec.structs.replace(trial.candidate, precision="fp32", keep_float=())
    with shop.children.child() as child:
        made = child.call(
            "edgeml.exporter.compile:convert",
            ConvertTask(candidate.target, compile_job(candidate, material, shop)),
            CompileResult,
            step=f"The conversion to {candidate}",
        )
    return Trial(candidate=candidate, made=made)


def _some_samples(material: Material, shop: Workshop) -> Path:
    path = shop.folder / "diagnosis.npz"
    if not path.exists():
        samples = material.checkset.samples
        rows = np.linspace(0, len(samples) - 1, min(FEW, len(samples))).round().astype(int)
        chosen = {name: np.array(array[rows]) for name, array in samples.inputs.items()}
        save_npz(path, chosen)
    return path


def _parted(trial: Trial, material: Material, shop: Workshop) -> Parted | None:
    candidate, made = trial.candidate, trial.made
    folder = shop.folder / "diagnosis" / candidate.id
    folder.mkdir(parents=True, exist_ok=True)
    reference = tuple(folder / f"{index}.npy" for index in range(len(made.outputs)))
    for name, path in zip(made.outputs, reference, strict=True):
        np.save(path, material.checkset.reference[name])
    elsewhere = target(candidate.target).needs_nvidia
    with shop.children.child() as child:
        found = child.call(
            "edgeml.exporter.diagnosis.look:look",
            LookJob(
                target="onnx" if elsewhere else candidate.target,
                entry=made.files[0],
                inputs=made.inputs,
                outputs=made.outputs,
                options={} if elsewhere else made.options,
                names=tuple(tensor.name for tensor in material.inputs),
                samples=material.checkset.files,
                reference=reference,
                source_kind=material.source.kind,
                source=material.source.path,
            ),
            Looked,
            step=f"Looking into {candidate}",
        )
    if not found.output:
        return None
    return Parted(
        target=candidate.target,
        precision=candidate.precision,
        **msgspec.structs.asdict(found),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
