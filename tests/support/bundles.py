"""Real bundles for tests, without a converter: a tiny classifier of 8x8 images, made by hand.

``image`` [1, 1, 8, 8] float32 in 0..1 → ``scores`` [1, 4], softmax(W·x + b), as checked-in files
for tflite, openvino and onnx (:mod:`support.make_models` made them).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeml.bundle import (
    Artifact,
    Budgets,
    Golden,
    Manifest,
    Parity,
    Provenance,
    Requirement,
    Tensor,
    Tolerance,
    describe,
    encode_golden,
    write_bundle,
)
from edgeml.statistics import fit_baseline
from support.weights import BIAS, CLASSES, WEIGHTS, images, scores

RIGHT = 0.9
"""Of the tiny classifier, on its evaluation set."""

MODELS = Path(__file__).with_name("models")
FILES = {
    "tflite": ("tiny.tflite",),
    "openvino": ("tiny.xml", "tiny.bin"),
    "onnx": ("tiny.onnx",),
    "onnx-cuda": ("tiny.onnx",),
    "tensorrt": ("tiny.onnx",),
}
PACKAGES = {
    "tflite": "ai-edge-litert",
    "openvino": "openvino",
    "onnx": "onnxruntime",
    "onnx-cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
}

IMAGE = Tensor(name="image", shape=(1, 1, 8, 8), dtype="float32", meaning="image", layout="NCHW")
SCORES = Tensor(name="scores", shape=(1, CLASSES), dtype="float32", meaning="scores")


def tiny_bundle(
    path: Path,
    *,
    targets: Sequence[str] = ("onnx",),
    name: str = "tiny",
    version: str = "1.0",
    chosen: str = "",
    budgets: Budgets | None = None,
    calibration: int = 500,
    wrong_golden: bool = False,
    models: Mapping[str, str] | None = None,
    options: Mapping[str, dict[str, str]] | None = None,
    families: Mapping[str, str] | None = None,
) -> Path:
    """Write a bundle of the tiny classifier.

    Args:
        path: the file, or a folder to put ``NAME-VERSION.edgeml`` in.
        targets: artifacts to hold, in this order.
        name: of the model.
        version: of the model.
        chosen: the target whose artifact is marked as chosen; all are where it is empty.
        budgets: of the manifest.
        calibration: frames that the statistics baseline is fitted on; 0 for no baseline.
        wrong_golden: golden vectors that no artifact can meet.
        models: target to the file that stands in for the classifier's own, where one does.
        options: target to the session options of its artifact.
        families: of statistics, by the input's name, where it is not to be that of images.
    """
    artifacts = [
        _artifact(
            target,
            files=(models[target],) if models and target in models else FILES[target],
            options=(options or {}).get(target, {}),
            chosen=chosen in {"", target},
        )
        for target in targets
    ]
    members = {
        file: (MODELS / Path(file).name).read_bytes()
        for artifact in artifacts
        for file in (entry.path for entry in artifact.files)
    }
    return pack(
        path,
        name=name,
        version=version,
        artifacts=artifacts,
        members=members,
        golden=_golden(wrong=wrong_golden),
        calibration=images(calibration, seed=1) if calibration else None,
        budgets=budgets or Budgets(),
        families=families,
    )


def sleeper_bundle(
    path: Path,
    *,
    name: str = "sleeper",
    version: str = "1.0",
    budgets: Budgets | None = None,
    options: dict[str, str] | None = None,
    cheaper: dict[str, str] | None = None,
    wrong_golden: bool = False,
) -> Path:
    """Write a bundle for the target that misbehaves on demand (:mod:`sleeper_runtime`).

    Args:
        path: the file, or a folder to put ``NAME-VERSION.edgeml`` in.
        name: of the model.
        version: of the model.
        budgets: of the manifest.
        options: of its artifact ``sleeper-fp32``.
        cheaper: options of a second, smaller one, ``sleeper-int8``; None for one artifact.
        wrong_golden: golden vectors that no artifact can meet.
    """
    given = {"fp32": options or {}} | ({} if cheaper is None else {"int8": cheaper})
    artifacts: list[Artifact] = []
    members: dict[str, bytes] = {}
    for precision, settings in given.items():
        buffer = io.BytesIO()
        weights = WEIGHTS if precision == "fp32" else WEIGHTS.astype(np.float16)
        np.savez(buffer, weights=weights, bias=BIAS)
        entry = f"artifacts/sleeper-{precision}/weights.npz"
        members[entry] = buffer.getvalue()
        artifacts.append(
            Artifact(
                id=f"sleeper-{precision}",
                target="sleeper",
                precision=precision,
                files=(describe(entry, members[entry]),),
                inputs={"image": "image"},
                outputs={"scores": "scores"},
                requires=Requirement(packages=("numpy",), options=settings),
                parity=parity(),
                not_measured="made by hand for tests",
                chosen=precision == "fp32",
            )
        )
    return pack(
        path,
        name=name,
        version=version,
        artifacts=artifacts,
        members=members,
        golden=_golden(wrong=wrong_golden),
        calibration=images(500, seed=1),
        budgets=budgets or Budgets(),
    )


def pack(
    path: Path,
    *,
    name: str,
    version: str,
    artifacts: Sequence[Artifact],
    members: dict[str, bytes],
    golden: Golden,
    calibration: np.ndarray | None,
    budgets: Budgets,
    families: Mapping[str, str] | None = None,
) -> Path:
    """Write a bundle with these artifacts, around the tiny classifier's tensors."""
    members = {**members, "golden.npz": encode_golden(golden)}
    baseline = None
    if calibration is not None:
        fitted = fit_baseline(
            {"image": calibration},
            {"scores": scores(calibration)},
            input_tensors=(IMAGE,),
            output_tensors=(SCORES,),
            evaluated={"scores": _evaluated()},
            families=families,
        )
        members["baseline.json"] = fitted.encode()
        baseline = describe("baseline.json", members["baseline.json"])
    manifest = Manifest(
        name=name,
        version=version,
        created="2026-01-01T00:00:00Z",
        inputs=(IMAGE,),
        outputs=(SCORES,),
        artifacts=tuple(artifacts),
        golden=describe("golden.npz", members["golden.npz"]),
        baseline=baseline,
        budgets=budgets,
        provenance=Provenance(
            source_format="onnx", source_name="tiny.onnx", source_sha256="0" * 64, tools={}
        ),
    )
    target = path / f"{name}-{version}.edgeml" if path.is_dir() else path
    write_bundle(target, manifest, members)
    return target


def parity() -> Parity:
    """What a float artifact of the tiny classifier reached."""
    return Parity(
        cosine=1.0,
        max_abs=1e-6,
        samples=64,
        tolerance=Tolerance(cosine=0.999, agreement=0.98),
        agreement=1.0,
    )


def _artifact(
    target: str, *, files: Sequence[str], options: dict[str, str], chosen: bool
) -> Artifact:
    return Artifact(
        id=f"{target}-fp32",
        target=target,
        precision="fp32",
        files=tuple(
            describe(f"artifacts/{target}-fp32/{file}", (MODELS / file).read_bytes())
            for file in files
        ),
        inputs={"image": "image"},
        outputs={"scores": "scores"},
        requires=Requirement(packages=(PACKAGES[target],), options=options),
        parity=parity(),
        not_measured="made by hand for tests",
        chosen=chosen,
    )


def _golden(*, wrong: bool = False, count: int = 8) -> Golden:
    frames = images(count, seed=2)
    expected = scores(frames)
    return Golden({"image": frames}, {"scores": expected[:, ::-1].copy() if wrong else expected})


def _evaluated() -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels: what the classifier says is right but for every tenth image."""
    found = scores(images(500, seed=2))
    labels = found.argmax(axis=1)
    labels[::10] = (labels[::10] + 1) % CLASSES
    return found, labels
