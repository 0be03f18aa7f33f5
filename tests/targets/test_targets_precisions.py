"""Every precision of every target: made, run and compared with float, or refused at once; and what
``mixed`` rests on, which is finding the layer that int8 breaks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support.conversions import Make, Source, calibration_folder, torch_source

from edgeml.bundle.manifest import PRECISIONS, Precision
from edgeml.bundle.parity import cosine
from edgeml.errors import RefusedError
from edgeml.targets.compiling import CompileResult, compile_here
from edgeml.targets.layers import SignalJob, signals_here
from edgeml.targets.registry import CALIBRATED, TARGETS, can_make
from edgeml.targets.runtime import Array, NamedSession, open_session

LAYERED = ("tflite", "openvino", "onnx")
SHOWN = (*LAYERED, "executorch")
"""Whose layers can be looked at."""
# The least cosine that a right artifact of the classifier shows.
LEAST: Mapping[Precision, float] = {
    "int8": 0.998,
    "mixed": 0.998,
    "int8-dynamic": 0.999,
    "int16x8": 0.9999,
    "int8-weights": 0.9999,
    "int4-weights": 0.99,
}
CELLS = [
    pytest.param(row.name, precision, id=f"{row.name}-{precision}")
    for row in TARGETS.values()
    for precision in LEAST
    if can_make(row, "torch", precision) is None and not row.runs_on
]
REFUSED = [
    pytest.param(row.name, precision, id=f"{row.name}-{precision}")
    for row in TARGETS.values()
    for precision in PRECISIONS
    if can_make(row, "torch", precision) is not None
]


def outputs(target: str, made: CompileResult, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Of all samples; the graphs of the GPU targets are plain ONNX, which the CPU can run."""
    on_gpu = TARGETS[target].needs_nvidia
    session = open_session(
        "onnx" if on_gpu else target, made.files[0], options={} if on_gpu else made.options
    )
    with NamedSession(session, made.inputs, made.outputs) as named:
        count = len(next(iter(feeds.values())))
        rows = [named.run({k: a[i : i + 1] for k, a in feeds.items()}) for i in range(count)]
        assert [info.dtype for info in named.inputs] == [str(a.dtype) for a in feeds.values()]
    return {name: np.concatenate([row[name] for row in rows]) for name in made.outputs}


@pytest.mark.parametrize(("target", "precision"), CELLS)
def test_the_artifact_computes_nearly_what_float_does(
    target: str, precision: Precision, make: Make, sources: Mapping[str, Source]
):
    source = sources["classifier"]
    found = outputs(target, make("classifier", target, precision), source.feeds)["scores"]
    expected = source.expected["scores"]
    assert found.dtype == expected.dtype
    assert cosine(found.ravel(), expected.ravel()) >= LEAST[precision]


@pytest.mark.parametrize(("target", "precision"), REFUSED)
def test_what_a_target_lacks_is_refused_from_the_table(target: str, precision: Precision):
    refusal = can_make(target, "torch", precision)
    assert refusal is not None
    assert refusal.reason.endswith(".")
    assert refusal.remedy


@pytest.mark.parametrize("target", LAYERED)
def test_weights_take_the_bytes_that_their_bits_say(target: str, make: Make):
    # OpenVINO's numbers are in the last file; its .xml grows by what unpacks them.
    sizes = {
        precision: make("classifier", target, precision).files[-1].stat().st_size
        for precision in ("fp32", "fp16", "int8-weights", "int4-weights")
    }
    assert sizes["int4-weights"] < sizes["int8-weights"] < sizes["fp16"] < sizes["fp32"]


@pytest.mark.parametrize("target", LAYERED)
def test_weights_alone_need_no_samples(
    target: str, make: Make, sources: Mapping[str, Source], tmp_path: Path
):
    make("classifier", target, "fp32")
    for precision in sorted(set(LEAST) - CALIBRATED):
        made = compile_here(target, sources["classifier"].job(precision, tmp_path, None))
        assert made.calibration_samples == 0


class Convolutions(torch.nn.Module):
    """Has no matrix product."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)

    def forward(self, image):
        return self.conv(image).mean((2, 3))


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_dynamic_int8_of_a_model_without_matrix_products_is_refused(target: str, tmp_path: Path):
    feeds = {"image": np.zeros((1, 1, 8, 8), "float32")}
    source = torch_source(Convolutions(), feeds, ["means"], tmp_path / "model.pt2")
    with pytest.raises(
        RefusedError, match="int8-dynamic has nothing to do in this model"
    ) as caught:
        compile_here(target, source.job("int8-dynamic", tmp_path, None))
    assert "int8-weights" in caught.value.remedy


class Fragile(torch.nn.Module):
    """``weights``: one input of a layer is always 0, and its weights are a thousand times the
    others', which int8 therefore rounds away. ``activations``: one channel is a thousand times the
    others, so that these are rounded away in the tensor between two layers."""

    def __init__(self, what: str):
        super().__init__()
        self.stem = torch.nn.Conv2d(2, 8, 3, padding=1)
        self.middle = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.fragile = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 5, bias=False)
        with torch.no_grad():
            if what == "weights":
                self.middle.bias[0] = -100.0
                self.fragile.weight[:, 0] = 100.0
            else:
                self.middle.weight[0] *= 1000
                self.fragile.weight[:, 0] /= 1000

    def forward(self, image):
        x = self.middle(self.stem(image).relu()).relu()
        return self.head(self.fragile(x).relu().mean((2, 3)))


@pytest.fixture(scope="module", params=["weights", "activations"])
def fragile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    torch.manual_seed(3)
    images = np.random.default_rng(4).normal(0, 1, (16, 2, 8, 8)).astype("float32")
    folder = tmp_path_factory.mktemp(request.param)
    return torch_source(Fragile(request.param), {"image": images}, ["y"], folder / "model.pt2")


@pytest.mark.parametrize("target", SHOWN)
def test_the_layer_that_int8_breaks_is_found_and_kept_float(
    target: str, fragile: Source, tmp_path: Path
):
    calibration = calibration_folder(tmp_path / "calibration", fragile.feeds["image"])
    job = fragile.job("int8", tmp_path, calibration)
    exact = compile_here(target, msgspec.structs.replace(job, precision="fp32"))
    broken = compile_here(target, job)
    signals = signals_here(
        target, SignalJob(job=job, exact=exact, quantized=broken, samples=calibration)
    )

    # The first layer that comes out much noisier than what goes in.
    first = next(each for each in signals if each.snr_db < min(15, each.input_snr_db - 10))
    assert first.module == "fragile"
    assert first.line.startswith("test_targets_precisions.py:")
    assert len({each.name for each in signals}) == len(signals)

    mixed = msgspec.structs.replace(job, precision="mixed", keep_float=(first.name,))
    mended = compile_here(target, mixed)
    after = signals_here(
        target, SignalJob(job=mixed, exact=exact, quantized=mended, samples=calibration)
    )
    assert after[-1].snr_db > signals[-1].snr_db + 10 > 0
    assert any(10 < each.snr_db < 60 for each in after)  # the rest is still int8
    found = outputs(target, mended, fragile.feeds)["y"]
    assert cosine(found.ravel(), fragile.expected["y"].ravel()) > 0.998
