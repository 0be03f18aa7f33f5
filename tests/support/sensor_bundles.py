"""Bundles of models that take what a sensor gives, for the target ``meter``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundle import (
    Artifact,
    Golden,
    Manifest,
    Provenance,
    Requirement,
    Tensor,
    describe,
    encode_golden,
    write_bundle,
)
from edgeml.bundle.manifest import Step
from edgeml.statistics import fit_baseline
from support.bundles import parity
from support.meter.meter_runtime import mean


def image_bundle(
    folder: Path, *, height: int, width: int, order: str = "rgb", calibration: int = 0
) -> Path:
    """A model of RGB frames, uint8 [1, height, width, 3].

    Args:
        folder: to put it in.
        height: pixels.
        width: pixels.
        order: of the channels; nobody says where it is empty.
        calibration: frames that its statistics are fitted on; 0 for none.
    """
    inside = (Step(name="image", parameters={"input": "sensor", "order": order}),) if order else ()
    return _meter(folder, "frames", (1, height, width, 3), "uint8", inside, calibration)


def sound_bundle(folder: Path, *, samples: int, rate: int) -> Path:
    """A model of sound, int16 [1, samples]."""
    inside = (Step(name="audio", parameters={"input": "sensor", "rate": rate}),)
    return _meter(folder, "sound", (1, samples), "int16", inside)


def _meter(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    inside: tuple[Step, ...],
    calibration: int = 0,
) -> Path:
    image = len(shape) == 4
    random = np.random.default_rng(0)
    golden = random.integers(0, 100, (4, *shape[1:])).astype(dtype)
    means = np.concatenate([mean(golden[index : index + 1]) for index in range(4)])
    content: dict[str, Any] = {"shape": shape, "dtype": dtype}
    members = {
        "artifacts/meter-fp32/model.json": json.dumps(content).encode(),
        "golden.npz": encode_golden(Golden({"sensor": golden}, {"mean": means})),
    }
    artifact = Artifact(
        id="meter-fp32",
        target="meter",
        precision="fp32",
        files=(describe(entry := "artifacts/meter-fp32/model.json", members[entry]),),
        inputs={"sensor": "sensor"},
        outputs={"mean": "mean"},
        requires=Requirement(packages=("numpy",)),
        parity=parity(),
        not_measured="made by hand for tests",
        chosen=True,
    )
    meaning: Any = "image" if image else "audio"
    layout = "NHWC" if image else ""
    sensor = Tensor(name="sensor", shape=shape, dtype=dtype, meaning=meaning, layout=layout)
    result = Tensor(name="mean", shape=(1, means.shape[1]), dtype="float32")
    baseline = None
    if calibration:
        seen = random.integers(0, 256, (calibration, *shape[1:])).astype(dtype)
        fitted = fit_baseline(
            {"sensor": seen},
            {"mean": np.concatenate([mean(one[None]) for one in seen])},
            input_tensors=(sensor,),
            output_tensors=(result,),
        )
        members["baseline.json"] = fitted.encode()
        baseline = describe("baseline.json", members["baseline.json"])
    manifest = Manifest(
        name=name,
        version="1.0",
        created="2026-01-01T00:00:00Z",
        inputs=(sensor,),
        outputs=(result,),
        artifacts=(artifact,),
        golden=describe("golden.npz", members["golden.npz"]),
        baseline=baseline,
        inside=inside,
        provenance=Provenance(
            source_format="onnx", source_name="meter", source_sha256="0" * 64, tools={}
        ),
    )
    target = folder / f"{name}-1.0.edgeml"
    write_bundle(target, manifest, members)
    return target
