"""Preprocessing inside artifacts: each target takes a camera's and a microphone's raw numbers and
makes of them what the reference implementation does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from onnx import TensorProto, helper
from support.conversions import calibration_folder

from edgeml.bundle import Tensor
from edgeml.bundle.manifest import Precision
from edgeml.exporter.preprocessing import onnx_front, tf_front, torch_front
from edgeml.exporter.preprocessing.declaration import (
    AudioInput,
    Crop,
    ImageInput,
    Layout,
    LogMel,
    Normalize,
    Order,
    Resize,
    Scale,
)
from edgeml.exporter.preprocessing.front import FrontJob
from edgeml.exporter.preprocessing.program import compile_input
from edgeml.exporter.preprocessing.reference import preprocess
from edgeml.exporter.sources.forms import Opened
from edgeml.targets.compiling import CompileJob, compile_here
from edgeml.targets.registry import SourceKind
from edgeml.targets.runtime import NamedSession, open_session

MEL = LogMel(
    window="hann",
    length=128,
    hop=64,
    fft=128,
    centre=None,
    mels=8,
    fmin=60,
    fmax=4000,
    scale="htk",
    norm=None,
    power=2,
    log="ln",
    floor=1e-6,
    floor_by="add",
)
MAGNITUDES = msgspec.structs.replace(
    MEL, centre="reflect", scale="slaney", norm="slaney", power=1, log="log10", floor_by="max"
)

DECLARED: Mapping[str, Any] = {
    "photo": ImageInput(
        shape=(24, 20, 3),
        order="rgb",
        steps=(
            Crop(size=(20, 20)),
            Resize(size=(8, 6), method="bilinear", antialias=True),
            Order(to="bgr"),
            Normalize(mean=(100, 110, 120), std=(50,)),
            Layout(to="NCHW"),
        ),
    ),
    "pillow": ImageInput(
        shape=(24, 20, 3),
        order="bgr",
        steps=(
            Resize(size=(9, 7), method="bicubic", antialias=True, round=True),
            Order(to="rgb"),
            Layout(to="NHWC"),
        ),
    ),
    "grey": ImageInput(
        shape=(24, 20, 1),
        order="grey",
        steps=(
            Resize(size=(18, 15), method="nearest", antialias=False),
            Resize(size=(7, 8), method="area", antialias=True),
            Resize(size=(70, 9), method="bicubic", antialias=False),
            Resize(size=(6, 5), method="bilinear", antialias=False),
            Crop(size=(5, 4), at=(1, 0)),
            Scale(factor=1 / 255, offset=-0.5),
        ),
    ),
    "sound": AudioInput(rate=8000, samples=800, steps=(Scale(factor=1 / 32768), MEL)),
    "tone": AudioInput(
        rate=8000, samples=800, steps=(Scale(factor=1 / 32768), MAGNITUDES, Layout(to="NCFT"))
    ),
}
MADE = {name: compile_input(each).shape for name, each in DECLARED.items()}
RANDOM = np.random.default_rng(0)
RAW = {
    "photo": RANDOM.integers(0, 256, (8, 24, 20, 3), np.uint8),
    "sound": RANDOM.normal(0, 3000, (8, 800)).astype(np.int16),
    "pillow": RANDOM.integers(0, 256, (8, 24, 20, 3), np.uint8),
    "grey": RANDOM.integers(0, 256, (8, 24, 20, 1), np.uint8),
    "tone": RANDOM.normal(0, 3000, (8, 800)).astype(np.int16),
}


class Plain(torch.nn.Module):
    """Next to nothing: what comes out is what went in, so that an output shows a preprocessing."""

    def forward(self, photo, pillow, grey, sound, tone):
        return photo * 2, pillow * 2, grey * 2, sound * 2, tone * 2


def save_torch(path: Path) -> None:
    examples = tuple(torch.zeros(shape) for shape in MADE.values())
    torch.export.save(torch.export.export(Plain().eval(), examples), path)


def save_onnx(path: Path) -> None:
    def value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [helper.make_node("Add", [name, name], [f"{name}_made"]) for name in MADE],
        "plain",
        [value(name, shape) for name, shape in MADE.items()],
        [value(f"{name}_made", shape) for name, shape in MADE.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def save_savedmodel(path: Path) -> None:
    module = tf.Module()
    module.call = tf.function(
        lambda photo, pillow, grey, sound, tone: {
            "photo_made": photo * 2,
            "pillow_made": pillow * 2,
            "grey_made": grey * 2,
            "sound_made": sound * 2,
            "tone_made": tone * 2,
        }
    )
    specs = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in MADE.items()]
    signature = module.call.get_concrete_function(*specs)
    tf.saved_model.save(module, str(path), signatures={"serving_default": signature})


WAYS: Mapping[SourceKind, Any] = {
    "torch": (save_torch, torch_front, "plain.pt2"),
    "onnx": (save_onnx, onnx_front, "plain.onnx"),
    "savedmodel": (save_savedmodel, tf_front, "plain"),
}


def wrapped(kind: SourceKind, folder: Path) -> Path:
    """A model with what is declared in front of it."""
    save, front, name = WAYS[kind]
    save(folder / name)
    opened = Opened(
        kind=kind,
        path=folder / name,
        inputs=tuple(Tensor(name=n, shape=s, dtype="float32") for n, s in MADE.items()),
        outputs=tuple(Tensor(name=f"{n}_made", shape=s, dtype="float32") for n, s in MADE.items()),
        title="",
    )
    job = FrontJob(source=opened, inputs=dict(DECLARED), path=folder / f"raw-{name}")
    return front.put_in_front(job).path


def outputs(target: str, job: CompileJob) -> dict[str, np.ndarray]:
    made = compile_here(target, job)
    session = open_session(target, made.files[0], options=made.options)
    with NamedSession(session, made.inputs, made.outputs) as named:
        for info in named.inputs:
            raw = RAW[info.name]
            assert (info.shape, info.dtype) == ((1, *raw.shape[1:]), str(raw.dtype))
        rows = [named.run({n: a[i : i + 1] for n, a in RAW.items()}) for i in range(8)]
    return {name: np.concatenate([row[name] for row in rows]) for name in made.outputs}


def job(kind: SourceKind, path: Path, folder: Path, precision: Precision = "fp32") -> CompileJob:
    return CompileJob(
        source_kind=kind,
        source=path,
        precision=precision,
        inputs=tuple(MADE),
        outputs=tuple(f"{name}_made" for name in MADE),
        workdir=folder,
        calibration=calibration_folder(folder / "samples", *(RAW[name] for name in MADE)),
        spectra=2,
    )


def expected(name: str) -> np.ndarray:
    return 2 * np.concatenate([preprocess(DECLARED[name], raw) for raw in RAW[name]])


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("torch", "tflite"),
        ("torch", "openvino"),
        ("torch", "onnx"),
        ("torch", "executorch"),
        ("onnx", "tflite"),
        ("savedmodel", "onnx"),
    ],
)
def test_an_artifact_takes_what_sensors_give(
    kind: SourceKind, target: str, tmp_path: Path, request: pytest.FixtureRequest
):
    work = job(kind, wrapped(kind, tmp_path), tmp_path)
    if (kind, target) == ("onnx", "tflite"):
        work = msgspec.structs.replace(work, bridge=request.getfixturevalue("onnx2tf"))
    found = outputs(target, work)
    for name in MADE:
        off = np.abs(found[f"{name}_made"] - expected(name)) > 2e-3
        # A number that is rounded may fall to either side.
        assert off.mean() <= (0.02 if name == "pillow" else 0), name


class Wave(torch.nn.Module):
    """Hears the waveform itself, not its spectrum."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.front = torch.nn.Conv1d(1, 8, 9, stride=4)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, sound):
        return self.head(self.front(sound.reshape(1, 1, 800)).relu().mean(2))


def test_a_waveform_is_quantized_too(tmp_path: Path):
    steps = (Scale(factor=1 / 32768), Normalize(mean=(0,), std=(0.1,)))
    declared = AudioInput(rate=8000, samples=800, steps=steps)
    module = Wave().eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 800),)), tmp_path / "wave.pt2")
    opened = Opened(
        kind="torch",
        path=tmp_path / "wave.pt2",
        inputs=(Tensor(name="sound", shape=(1, 800), dtype="float32"),),
        outputs=(Tensor(name="scores", shape=(1, 3), dtype="float32"),),
        title="",
    )
    front = FrontJob(source=opened, inputs={"sound": declared}, path=tmp_path / "raw.pt2")
    work = CompileJob(
        source_kind="torch",
        source=torch_front.put_in_front(front).path,
        precision="int8",
        inputs=("sound",),
        outputs=("scores",),
        workdir=tmp_path,
        calibration=calibration_folder(tmp_path / "samples", RAW["sound"]),
    )
    made = compile_here("openvino", work)
    session = open_session("openvino", made.files[0], options=made.options)
    with NamedSession(session, made.inputs, made.outputs) as named, torch.no_grad():
        for raw in RAW["sound"]:
            found = named.run({"sound": raw[np.newaxis]})["scores"]
            heard = torch.from_numpy(np.float32(preprocess(declared, raw)).reshape(1, 800))
            np.testing.assert_allclose(found, module(heard).numpy(), atol=0.02)


def test_what_leads_up_to_a_logarithm_stays_float_in_openvino_s_int8(tmp_path: Path):
    """In 8 bits the quiet bands would be lost; pixels may well be rounded."""
    work = job("torch", wrapped("torch", tmp_path), tmp_path, "int8")
    found = outputs("openvino", work)
    np.testing.assert_allclose(found["sound_made"], expected("sound"), atol=0.2)
