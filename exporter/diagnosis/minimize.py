"""``--minimize``: the smallest ONNX model that shows a refusal or a failed check."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from edgeml.errors import EdgemlError
from edgeml.exporter import naming
from edgeml.exporter.bridges import bridges
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.diagnosis.shrink import DIFFERS, ShrinkJob, Shrunk
from edgeml.exporter.events import Refusal, Stage
from edgeml.exporter.intake import Material
from edgeml.exporter.plan import Workshop
from edgeml.exporter.trial import Trial, compile_job


def minimize(
    file: str,
    refused: Mapping[str, Refusal],
    trials: Sequence[Trial],
    material: Material,
    shop: Workshop,
) -> dict[str, str]:
    """Write the smallest model for each target that refused the source, or whose float artifact
    failed its check.

    Args:
        file: the ``.onnx`` to write; that of a second target has the target's name behind its own.
        refused: by target.
        trials: what was made.
        material: the source and its samples.
        shop: where to work.

    Returns:
        A sentence for each target: what was written, or why nothing was.
    """
    symptoms: dict[str, tuple[Candidate, str]] = {
        name: (Candidate(name, refusal.precision or "fp32"), refusal.reason)
        for name, refusal in refused.items()
    }
    for trial in trials:
        candidate = trial.candidate
        failed = trial.checked is not None and trial.checked.shortfall
        if failed and candidate.precision in {"fp32", "fp16"}:
            symptoms.setdefault(candidate.target, (candidate, DIFFERS))
    if not symptoms:
        return {}
    shop.emit(Stage(name="explain", title="Looking for the smallest model", steps=len(symptoms)))
    done = shop.steps()
    told: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        # Whatever the source, ONNX is what goes through from here on.
        ways = shop.bridges or stack.enter_context(bridges(tuple(symptoms), "onnx", shop.emit))
        for index, (name, (candidate, symptom)) in enumerate(symptoms.items()):
            path = Path(file).resolve()
            if index:
                path = naming.of_target(path, name)
            work = compile_job(candidate, material, shop)
            job = ShrinkJob(
                target=name,
                job=msgspec.structs.replace(work, bridge=ways.get(name)),
                symptom=symptom,
                samples=material.checkset.files,
                output=shop.folder / f"smallest-{name}.onnx",
            )
            told[name] = _shrunk(job, path, shop)
            done(name)
    return told


def _shrunk(job: ShrinkJob, path: Path, shop: Workshop) -> str:
    module = "edgeml.exporter.diagnosis.shrink"
    step = f"Looking for the smallest model for {job.target}"
    try:
        with shop.children.child() as child:
            found = child.call(f"{module}:shrink", job, Shrunk, step=step)
        if not found.nodes:
            return f"{found.text}."
        again = msgspec.structs.replace(job, symptom=found.symptom)
        with shop.children.child() as child:
            shown = child.call(f"{module}:confirm", again, bool, step=step)
        naming.put(job.output, path, "--minimize")
    except EdgemlError as error:
        return f"No smallest model was found: {error.found}."
    way = "" if job.job.source_kind in {"onnx", "classical"} else ", made into ONNX first"
    nodes = "node" if found.nodes == 1 else "nodes"
    sure = "" if shown else " On random input it does not show."
    return f"{path} shows it with {found.nodes} {nodes} of {found.of}{way}.{sure}"
