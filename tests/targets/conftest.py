"""Artifacts of small real models for each target, made once.

The conversions run in this process: a session pays for torch and TensorFlow once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support.conversions import (
    Make,
    Source,
    calibration_folder,
    forest_source,
    lite_source,
    pair_feeds,
    savedmodel_source,
    torch_source,
)
from support.torch_modules import Classifier, Pair

from edgeml.targets.compiling import CompileResult, compile_here
from edgeml.targets.registry import TARGETS, Precision


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Source]:
    """The models: ``classifier`` and ``pair`` in torch, ``tensorflow``, ``lite``, ``onnx``
    and ``forest``."""
    folder = tmp_path_factory.mktemp("sources")
    torch.manual_seed(1)
    images = np.random.default_rng(2).uniform(0, 1, (48, 1, 8, 8)).astype("float32")
    classifier = torch_source(
        Classifier(), {"image": images}, ["scores"], folder / "classifier.pt2"
    )
    pair = torch_source(
        Pair(), pair_feeds((3, 16, 16)), ["difference", "total"], folder / "pair.pt2"
    )
    path = folder / "pair.onnx"
    program = torch.onnx.export(
        torch.export.load(pair.path),
        dynamo=True,
        input_names=list(pair.feeds),
        output_names=list(pair.expected),
        verbose=False,
    )
    program.save(str(path))
    tensorflow = savedmodel_source(folder / "tensorflow")
    return {
        "classifier": classifier,
        "pair": pair,
        "tensorflow": tensorflow,
        "lite": lite_source(tensorflow, folder / "model.tflite"),
        "forest": forest_source(folder / "forest.onnx"),
        "onnx": Source("onnx", path, pair.feeds, pair.expected),
    }


@pytest.fixture(scope="session")
def make(
    sources: Mapping[str, Source],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Make:
    """``make(source, target, precision)``: the artifact, converted on the first call only."""
    done: dict[tuple[str, str, str], CompileResult] = {}
    folders: dict[tuple[str, str], Path] = {}

    def made(name: str, target: str, precision: Precision) -> CompileResult:
        key = (name, target, precision)
        if key not in done:
            if key[:2] not in folders:
                folders[key[:2]] = tmp_path_factory.mktemp(f"{name}-{target}")
            folder = folders[key[:2]]
            arrays = [array[:32] for array in sources[name].feeds.values()]
            calibration = calibration_folder(folder / "calibration", *arrays)
            job = sources[name].job(precision, folder, calibration)
            if toolchain := TARGETS[target].bridges.get(job.source_kind):
                interpreter: Path = request.getfixturevalue(toolchain)
                job = msgspec.structs.replace(job, bridge=interpreter)
            done[key] = compile_here(target, job)
        return done[key]

    return made
