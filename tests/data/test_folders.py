"""Folders of images and recordings as samples: as files hold them, unless something is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from edgeml.bundle import Tensor
from edgeml.bundle.manifest import Step
from edgeml.data import Samples, parse_source, read_samples
from edgeml.errors import SourceError

FRAME = Tensor(name="image", shape=(1, 4, 6, 3), dtype="uint8", meaning="image", layout="NHWC")
FLOATS = Tensor(name="image", shape=(1, 3, 4, 6), dtype="float32", meaning="image", layout="NCHW")
SOUND = Tensor(name="sound", shape=(1, 8), dtype="int16", meaning="audio")


def pixels(seed: int = 0, height: int = 4, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def read(folder: Path, tensor: Tensor = FRAME, **declared: Any) -> Samples:
    kind = "audio" if tensor is SOUND else "image"
    step = Step(name=kind, parameters={"input": tensor.name, **declared})
    inside = (step,) if declared else ()
    return read_samples(parse_source(str(folder)), [tensor], folder.parent / "work", inside=inside)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    return made


def test_images_come_in_the_order_of_their_names_and_a_flat_folder_has_no_labels(folder: Path):
    for index, name in enumerate(("b.png", "a.bmp", "c.webp")):
        Image.fromarray(pixels(index)).save(folder / name, lossless=True)
    (folder / ".hidden.png").write_text("no image")
    samples = read(folder)
    assert samples.inputs["image"].dtype == np.uint8
    np.testing.assert_array_equal(samples.inputs["image"], [pixels(1), pixels(0), pixels(2)])
    assert samples.labels is None


def test_a_folder_a_class_gives_labels_by_sorted_name(folder: Path):
    for name in ("dog/1.png", "cat/2.png", "dog/deeper/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels()).save(folder / name)
    samples = read(folder)
    assert samples.classes == ("cat", "dog")
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 1]


def test_a_table_of_labels_wins(folder: Path):
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels()).save(folder / name)
    (folder / "labels.csv").write_text("file,label\nb.png,7\na.png,3\n")
    samples = read(folder)
    assert samples.labels is not None
    assert samples.labels.tolist() == [3, 7]
    (folder / "labels.csv").write_text("file,label\na.png,cat\n")
    with pytest.raises(SourceError, match=r"no label for b\.png"):
        read(folder)


def test_the_orientation_that_the_camera_noted_is_applied(folder: Path):
    image = Image.fromarray(pixels())
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.rotate(90, expand=True).save(folder / "a.png", exif=exif)
    np.testing.assert_array_equal(read(folder).inputs["image"][0], pixels())


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
def test_other_modes_become_rgb(mode: str, folder: Path):
    image = Image.fromarray(pixels()).convert(mode)
    image.save(folder / "a.png")
    np.testing.assert_array_equal(read(folder).inputs["image"][0], np.array(image.convert("RGB")))


def test_what_is_declared_decides_sizes_and_order(folder: Path):
    Image.fromarray(pixels(height=8, width=12)).save(folder / "a.png")
    with pytest.raises(SourceError, match="8 pixels high and 12 wide") as caught:
        read(folder)
    assert "other_sizes" in caught.value.remedy
    found = read(folder, shape=[4, 6, 3], order="bgr", other_sizes="stretch").inputs["image"][0]
    resized = Image.fromarray(pixels(height=8, width=12)).resize((6, 4))
    np.testing.assert_array_equal(found[..., ::-1], np.array(resized))


def test_pixels_are_never_scaled_by_a_guess(folder: Path):
    Image.fromarray(pixels()).save(folder / "a.png")
    with pytest.raises(SourceError, match=r"pixels of 0\.\.255.*float32") as caught:
        read(folder, FLOATS)
    assert "--preprocess" in caught.value.remedy


def test_a_damaged_image_is_named(folder: Path):
    Image.fromarray(pixels(height=400, width=600)).save(folder / "a.jpg")
    data = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"a\.jpg cannot be read as an image"):
        read(folder)


def test_sixteen_bits_a_channel_are_refused(folder: Path):
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(folder / "a.png")
    with pytest.raises(SourceError, match="more than 8 bits"):
        read(folder)


def test_a_folder_of_neither_or_both_is_refused(folder: Path):
    with pytest.raises(SourceError, match="0 images and 0 WAV files"):
        read(folder)
    Image.fromarray(pixels()).save(folder / "a.png")
    wavfile.write(folder / "a.wav", 8000, np.zeros(8, np.int16))
    with pytest.raises(SourceError, match="1 images and 1 WAV files"):
        read(folder)


def test_files_beside_class_folders_are_refused(folder: Path):
    (folder / "cat").mkdir()
    for name in ("cat/a.png", "b.png"):
        Image.fromarray(pixels()).save(folder / name)
    with pytest.raises(SourceError, match=r"b\.png lie beside folders"):
        read(folder)


WAVE = np.array([0, 100, -100, 32767, -32768, 1, 2, 3], np.int16)


@pytest.mark.parametrize(
    "stored",
    [
        WAVE,
        WAVE.astype(np.int32) << 16,
        (WAVE / np.float32(32768)).astype(np.float32),
        WAVE[:, np.newaxis],
    ],
)
def test_recordings_of_any_width_become_int16(stored: np.ndarray, folder: Path):
    wavfile.write(folder / "a.wav", 8000, stored)
    np.testing.assert_array_equal(read(folder, SOUND).inputs["sound"], [WAVE])


@pytest.mark.parametrize(
    ("stored", "rate", "words"),
    [
        (WAVE[:5], 8000, ("5 samples", 'shorter = "pad"')),
        (np.tile(WAVE, 2), 8000, ("16 samples", 'longer = "cut"')),
        (np.stack([WAVE, WAVE], axis=1), 8000, ("2 channels", '"average"')),
        (WAVE, 44100, ("44,100 Hz", "8,000 Hz")),
    ],
)
def test_a_recording_that_does_not_fit_says_what_to_declare(
    stored: np.ndarray, rate: int, words: tuple[str, ...], folder: Path
):
    wavfile.write(folder / "a.wav", rate, stored)
    with pytest.raises(SourceError) as caught:
        read(folder, SOUND, rate=8000)
    assert all(word in str(caught.value) for word in ("a.wav", *words)), str(caught.value)


def test_a_declaration_pads_cuts_and_mixes(folder: Path):
    wavfile.write(folder / "a.wav", 8000, WAVE[:5])
    wavfile.write(folder / "b.wav", 8000, np.tile(WAVE, 2))
    wavfile.write(folder / "c.wav", 8000, np.stack([WAVE // 2, WAVE // 2 * 0], axis=1))
    how = {"rate": 8000, "shorter": "pad", "longer": "cut", "channels": "average"}
    found = read(folder, SOUND, **how).inputs["sound"]
    np.testing.assert_array_equal(found[0], [*WAVE[:5], 0, 0, 0])
    np.testing.assert_array_equal(found[1], WAVE)
    np.testing.assert_allclose(found[2], WAVE // 2 / 2, atol=0.5)


def test_files_of_two_rates_are_refused_even_where_none_is_declared(folder: Path):
    wavfile.write(folder / "a.wav", 8000, WAVE)
    wavfile.write(folder / "b.wav", 16000, WAVE)
    with pytest.raises(SourceError, match=r"b\.wav.*16,000 Hz"):
        read(folder, SOUND)


def test_a_damaged_recording_is_named(folder: Path):
    (folder / "a.wav").write_bytes(b"RIFF1234WAVE nothing")
    with pytest.raises(SourceError, match=r"a\.wav"):
        read(folder, SOUND)
