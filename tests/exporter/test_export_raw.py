"""Preprocessing inside the artifacts: the same in front of every kind of source, and an export
whose artifacts take what a microphone gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile
from support.exports import SUPPORT, Export

from edgeml.bundle.manifest import Tensor
from edgeml.data import parse_source, read_samples
from edgeml.exporter.child import Child
from edgeml.exporter.children import Children
from edgeml.exporter.preprocessing import load, put_in_front
from edgeml.exporter.preprocessing.program import compile_input, run
from edgeml.exporter.sources.forms import MODULES, Opened, ReferenceJob
from edgeml.targets.runtime import NamedSession, open_session

MEL = """
[bands]
kind = "audio"
rate = 8000
samples = 1600
shorter = "pad"
steps = [
    { step = "scale", factor = 0.000030517578125 },
    { step = "log-mel", window = "hann", length = 200, hop = 80, fft = 256, centre = "zero",
      mels = 20, fmin = 60, fmax = 4000, scale = "htk", norm = "none", power = POWER, log = "ln",
      floor = 1e-5, floor_by = "add" },
    { step = "layout", to = "NCTF" },
]
""".replace("\n      ", " ")

IMAGE = """
["a/image:0"]
kind = "image"
shape = [50, 30, 3]
order = "rgb"
steps = [
    { step = "crop", size = [50, 20] },
    { step = "resize", size = [40, 12], method = "bilinear", antialias = true, round = true },
    { step = "order", to = "bgr" },
    { step = "normalize", mean = [100, 110, 120], std = [50] },
    { step = "layout", to = "NHWC" },
]
"""


def nothing(kind: str, name: str, shape: tuple[int, ...], folder: Path) -> Opened:
    """A model that returns its input, in a child's framework."""
    tensor = Tensor(name=name, shape=shape, dtype="float32")
    out = Tensor(name="out", shape=shape, dtype="float32")
    path = folder / {"torch": "source.pt2", "onnx": "source.onnx", "savedmodel": "source"}[kind]
    made: Any = Opened(kind=kind, path=path, inputs=(tensor,), outputs=(out,), title="")  # type: ignore[arg-type]
    return made


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One for all frameworks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT.parent))
        with Children(tmp_path_factory.mktemp("log") / "raw.txt").child() as made:
            yield made


@pytest.mark.parametrize("kind", ["torch", "onnx", "savedmodel"])
@pytest.mark.parametrize("what", ["image", "power", "magnitude"])
def test_every_kind_of_source_computes_the_same(kind: str, what: str, child: Child, tmp_path: Path):
    text = IMAGE if what == "image" else MEL.replace("POWER", "2" if what == "power" else "1")
    if kind == "savedmodel":
        text = text.replace("a/image:0", "image")  # names of a signature are Python's
    (tmp_path / "p.toml").write_text(text)
    declared = load(tmp_path / "p.toml")
    ((name, entry),) = declared.inputs.items()
    program = compile_input(entry)
    bare = nothing(kind, name, program.shape, tmp_path)
    child.call(f"support.raw_models:save_{kind}", bare, int, step="Saving")
    wrapped = put_in_front(declared, bare, child).source
    limit = np.iinfo(program.dtype)
    raw = np.random.default_rng(0).integers(limit.min, limit.max, (3, *program.raw[1:]))
    np.save(tmp_path / "raw.npy", raw.astype(program.dtype))
    job = ReferenceJob(
        source=wrapped, inputs=(tmp_path / "raw.npy",), outputs=(tmp_path / "out.npy",)
    )
    child.call(f"{MODULES[wrapped.kind]}:reference", job, int, step="Running")
    expected = run(program, raw.astype(program.dtype))
    # A number that is rounded may fall to either side.
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), expected, atol=0.021 if what == "image" else 2e-4
    )


def test_artifacts_take_what_a_microphone_gives(export: Export, tmp_path: Path):
    random = np.random.default_rng(0)
    for index in range(40):
        time = np.arange(1400 + 5 * index) / 8000
        tone = 8000 * np.sin(2 * np.pi * (300 + 60 * index) * time)
        noise = random.normal(0, 200, len(time))
        folder = tmp_path / "data" / "abcd"[index % 4]
        folder.mkdir(parents=True, exist_ok=True)
        wavfile.write(folder / f"{index}.wav", 8000, (tone + noise).astype(np.int16))
    (tmp_path / "p.toml").write_text(MEL.replace("POWER", "2"))
    outcome = export(
        model=f"{SUPPORT / 'export_raw.py'}:net",
        targets=["onnx", "tflite", "executorch"],
        calibration=str(tmp_path / "data"),
        preprocessing=str(tmp_path / "p.toml"),
        precision="int8",
        output=str(tmp_path),
    )
    assert outcome.status == 0, outcome.events
    # The spectrum stays float: in 8 bits hardly a decision would be the same.
    assert all(row.cosine is not None and row.cosine > 0.995 for row in outcome.rows.values())
    bundle = outcome.bundle()
    (tensor,) = bundle.manifest.inputs
    assert (tensor.dtype, tensor.shape, tensor.meaning) == ("int16", (1, 1600), "audio")
    names = [step.name for step in bundle.manifest.inside]
    assert names == ["audio", "scale", "log-mel", "layout"]
    baseline = bundle.baseline()
    assert baseline is not None
    assert "input.bands.level_db" in baseline.streams
    # What the exporter read of the folder, anybody can read with the bundle alone.
    samples = read_samples(
        parse_source(str(tmp_path / "data")),
        bundle.manifest.inputs,
        tmp_path / "work",
        inside=bundle.manifest.inside,
    )
    artifact = bundle.manifest.artifact("onnx")
    session = open_session("onnx", bundle.extract(artifact, tmp_path / "files"))
    with NamedSession(session, artifact.inputs, artifact.outputs) as named:
        found = named.run({"bands": np.array(samples.inputs["bands"][:1])})
    assert found["output_0"].shape == (1, 4)
