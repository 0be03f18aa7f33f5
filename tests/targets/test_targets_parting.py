"""Where an artifact's outputs part from its source's: the sample, the element, and the layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from support.conversions import Make, Source, torch_source
from support.torch_modules import Classifier

from edgeml.exporter.diagnosis.look import LookJob, look
from edgeml.targets.compiling import CompileResult, compile_here

TARGETS = ["onnx", "openvino", "tflite"]


def look_at(target: str, made: CompileResult, source: Source, folder: Path, expected=None):
    feeds = {name: array[:8] for name, array in source.feeds.items()}
    expected = {name: array[:8] for name, array in (expected or source.expected).items()}
    for name, array in {**feeds, **expected}.items():
        np.save(folder / f"{name}.npy", array)
    return look(
        LookJob(
            target=target,
            entry=made.files[0],
            inputs=made.inputs,
            outputs=made.outputs,
            options=made.options,
            names=tuple(feeds),
            samples=tuple(folder / f"{name}.npy" for name in feeds),
            reference=tuple(folder / f"{name}.npy" for name in made.outputs),
            source_kind=source.kind,
            source=source.path,
        )
    )


@pytest.fixture(scope="module")
def spoiled(sources: Mapping[str, Source], tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The classifier with other weights in its depthwise convolution."""
    torch.manual_seed(1)
    module = Classifier()
    with torch.no_grad():
        module.depthwise.weight.mul_(1.5)
    path = tmp_path_factory.mktemp("spoiled") / "spoiled.pt2"
    return torch_source(module, sources["classifier"].feeds, ["scores"], path)


@pytest.mark.parametrize("target", TARGETS)
def test_the_layer_is_named_with_its_module_and_line(
    target: str, sources: Mapping[str, Source], spoiled: Source, tmp_path: Path
):
    """An artifact whose depthwise convolution computes something else than the source's."""
    made = compile_here(target, spoiled.job("fp32", tmp_path / "made", None))
    found = look_at(target, made, sources["classifier"], tmp_path)
    assert (found.output, found.sample) == ("scores", 0)
    assert found.source is not None
    assert found.artifact is not None
    truth = sources["classifier"].expected["scores"][(0, *found.index)]
    assert found.source == pytest.approx(float(truth))
    assert found.artifact == pytest.approx(
        float(spoiled.expected["scores"][(0, *found.index)]), rel=1e-4
    )
    assert found.module == "depthwise"
    assert found.line.startswith("torch_modules.py:")
    assert "and part at 'conv2d_1' (aten.conv2d; module 'depthwise'" in found.text


@pytest.mark.parametrize(("name", "target"), [("tensorflow", "tflite"), ("onnx", "openvino")])
def test_sound_layers_are_said_to_be_sound(
    name: str, target: str, make: Make, sources: Mapping[str, Source], tmp_path: Path
):
    """The reference itself is off from the fourth sample on; every layer agrees."""
    source = sources[name]
    expected = {key: array.copy() for key, array in source.expected.items()}
    expected["total"][3:, 1] += 10
    found = look_at(target, make(name, target, "fp32"), source, tmp_path, expected)
    assert (found.output, found.sample, found.index) == ("total", 3, (1,))
    assert "in 5 of 8 samples" in found.text
    assert found.layer == ""
    assert "With every intermediate value kept, none parts" in found.text


def test_an_artifact_that_agrees(make: Make, sources: Mapping[str, Source], tmp_path: Path):
    made = make("onnx", "openvino", "fp32")
    assert look_at("openvino", made, sources["onnx"], tmp_path).output == ""
