"""Declared preprocessing: what a declaration may say, and the program that it is compiled to beside
other people's implementations (Pillow, SciPy), for every method that can be declared."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeml.errors import RefusedError, SourceError
from edgeml.exporter import preprocessing
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
from edgeml.exporter.preprocessing.program import Op, compile_input, run
from edgeml.exporter.preprocessing.reference import preprocess

FRAME = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
SOUND = (np.random.default_rng(1).normal(0, 3000, 2000)).astype(np.int16)

IMAGE = """
[image]
kind = "image"
shape = [48, 64, 3]
order = "rgb"
steps = [
    { step = "crop", size = [48, 48] },
    { step = "resize", size = [24, 20], method = "bilinear", antialias = true },
    { step = "order", to = "bgr" },
    { step = "scale", factor = 0.00392156862745098 },
    { step = "normalize", mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] },
    { step = "layout", to = "NCHW" },
]
"""

MEL = {
    "window": "hann",
    "length": 200,
    "hop": 80,
    "fft": 256,
    "centre": None,
    "mels": 20,
    "fmin": 60.0,
    "fmax": 3900.0,
    "scale": "htk",
    "norm": None,
    "power": 2,
    "log": "ln",
    "floor": 1e-6,
    "floor_by": "max",
}


def image(*steps: Any, order: Any = "rgb") -> ImageInput:
    return ImageInput(shape=(48, 64, 3), order=order, steps=steps)


def sound(*steps: Any) -> AudioInput:
    return AudioInput(rate=8000, samples=len(SOUND), steps=(Scale(factor=1 / 32768), *steps))


def mel(**changes: Any) -> LogMel:
    return LogMel(**{**MEL, **changes})


def both(declared: Any, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    program = compile_input(declared)
    made = run(program, raw[np.newaxis])
    assert made.shape == program.shape
    assert made.dtype == np.float32
    return made, preprocess(declared, raw)


def test_a_declaration_is_read_and_becomes_the_manifests_steps(tmp_path: Path):
    (tmp_path / "p.toml").write_text(IMAGE)
    declared = preprocessing.load(tmp_path / "p.toml")
    steps = declared.steps()
    names = ["image", "crop", "resize", "order", "scale", "normalize", "layout"]
    assert [step.name for step in steps] == names
    assert {step.parameters["input"] for step in steps} == {"image"}
    assert steps[2].parameters["antialias"] is True
    assert preprocessing.made_shapes(declared)[0].shape == (3, 24, 20)
    made, expected = both(declared.inputs["image"], FRAME)
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (", antialias = true", "", "antialias"),
        ('method = "bilinear", ', "", "method"),
        ("bilinear", "lanczos", "lanczos"),
        ('step = "crop"', 'step = "clop"', "clop"),
        ("[48, 48]", "[49, 48]", "crop of 49 by 48 from 48 by 64"),
        ("[0.485, 0.456, 0.406]", "[0.5, 0.5]", "2 numbers of mean for 3 channels"),
        ("0.229", "0", "> 0"),
        ('"NCHW"', '"CHW"', "'CHW'"),
        ('kind = "image"', "", "kind"),
        ("[image]", "[image", "TOML|Expected|Unclosed|Invalid"),
        ('order = "rgb"', 'order = "grey"', "3 channels"),
        ('order = "rgb"', 'order = "rgb"\nmirror = true', "mirror"),
    ],
)
def test_what_is_wrong_in_a_declaration_is_named(old: str, new: str, words: str, tmp_path: Path):
    assert old in IMAGE
    (tmp_path / "p.toml").write_text(IMAGE.replace(old, new, 1))
    with pytest.raises(SourceError, match=words):
        preprocessing.load(tmp_path / "p.toml")


@pytest.mark.parametrize("size", [(24, 32), (31, 100), (96, 64)])
@pytest.mark.parametrize(
    ("method", "antialias"),
    [(m, a) for m in ("bilinear", "bicubic") for a in (True, False)]
    + [("area", True), ("nearest", False)],
)
def test_a_resize_is_that_of_the_reference(method: Any, antialias: bool, size: tuple[int, int]):
    made, expected = both(image(Resize(size=size, method=method, antialias=antialias)), FRAME)
    np.testing.assert_allclose(made, expected, atol=1e-3)


def test_a_large_resize_does_not_multiply_by_the_zeros_of_its_matrix():
    frame = ImageInput(
        shape=(480, 640, 1),
        order="grey",
        steps=(Resize(size=(224, 224), method="bilinear", antialias=True),),
    )
    program = compile_input(frame)
    macs = [480 * op.arrays[0].shape[0] * 224 for op in program.ops if op.kind == "product"]
    macs += [
        480 * sum(band.weights.size for band in op.bands)
        for op in program.ops
        if op.kind == "bands"
    ]
    assert len(macs) == 2
    assert sum(macs) < 480 * 224 * (640 + 480) / 5
    raw = np.random.default_rng(0).integers(0, 256, (480, 640, 1), np.uint8)
    made, expected = both(frame, raw)
    np.testing.assert_allclose(made, expected, atol=1e-3)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_a_rounded_resize_is_pillows_own_on_uint8(method: Any):
    step = Resize(size=(30, 41), method=method, antialias=True, round=True)
    made = run(compile_input(image(step)), FRAME[np.newaxis])[0].transpose(1, 2, 0)
    resample = getattr(Image.Resampling, method.upper())
    pillows = np.array(Image.fromarray(FRAME).resize((41, 30), resample), np.float32)
    assert np.abs(made - pillows).max() <= 1  # it rounds weights to 22 bits
    assert (made == pillows).mean() > 0.98


def test_halves_go_up_on_whatever_side_of_them_a_sum_comes_out():
    step = Resize(size=(48, 32), method="bilinear", antialias=True, round=True)
    program = compile_input(image(step))
    black_or_white = np.random.default_rng(1).integers(0, 2, (1, 48, 64, 3), np.uint8)
    made = run(program, black_or_white)
    for nudge in (-1e-6, 1e-6):
        ops = tuple(
            Op("shift", op.array + np.float32(nudge)) if op.kind == "shift" else op
            for op in program.ops
        )
        np.testing.assert_array_equal(run(program._replace(ops=ops), black_or_white), made)


def test_steps_are_done_in_their_order():
    steps = (Crop(size=(20, 30), at=(5, 7)), Normalize(mean=(1, 2, 3), std=(2,)), Order(to="bgr"))
    made, expected = both(image(*steps, Layout(to="NHWC")), FRAME)
    by_hand = (FRAME[5:25, 7:37].astype(float) - [1, 2, 3])[..., ::-1] / 2
    np.testing.assert_allclose(made[0], by_hand, atol=1e-4)
    np.testing.assert_allclose(expected[0], by_hand, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        dict(zip(("scale", "norm", "centre"), each, strict=True))
        for each in itertools.product(
            ("htk", "slaney"), (None, "slaney"), (None, "reflect", "zero")
        )
    ]
    + [
        {"window": "hamming"},
        {"window": "rectangular", "length": 256},
        {"power": 1},
        {"log": "log10"},
        {"log": "db", "floor": 1e-5},
        {"floor_by": "add"},
        {"fft": 255},
    ],
)
def test_log_mel_is_that_of_the_reference(changes: dict[str, Any]):
    made, expected = both(sound(mel(**changes)), SOUND)
    np.testing.assert_allclose(made, expected, atol=2e-4)


def test_audio_in_another_layout():
    made, _ = both(sound(mel(), Layout(to="NCFT")), SOUND)
    plain, _ = both(sound(mel()), SOUND)
    assert made.shape == (1, 1, 20, 22)
    np.testing.assert_array_equal(made[0, 0], plain[0].T)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"length": 300}, "window of 300"),
        ({"fmax": 4001.0}, "4001 Hz at a rate of 8000"),
        ({"mels": 200}, "fewer mels"),
        ({"fft": 4096}, "frames of 4096"),
        ({"log": "db", "power": 1}, "decibels of a magnitude"),
    ],
)
def test_a_spectrum_that_cannot_be_made_says_why(changes: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        compile_input(sound(mel(**changes)))


def test_scales_and_shifts_become_one_of_each():
    steps = (Scale(factor=1 / 255), Normalize(mean=(0.5,), std=(0.25,)), Scale(factor=2, offset=1))
    kinds = [op.kind for op in compile_input(image(*steps)).ops]
    assert kinds == ["cast", "transpose", "scale", "shift"]


def test_nothing_is_put_in_front_of_a_pipeline_or_a_finished_model():
    with pytest.raises(RefusedError, match="pipeline") as caught:
        preprocessing.refuse_kind("classical")
    assert "raw columns" in caught.value.remedy
    with pytest.raises(RefusedError, match="tflite"):
        preprocessing.refuse_kind("tflite")
