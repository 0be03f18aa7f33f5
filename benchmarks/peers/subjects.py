"""The models of ``benchmarks/exporter.py``, with real inputs for each.

``prepare`` runs once, in a process of its own since it trains the sample model; afterwards a
:class:`Subject` is nothing but paths.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, signal
from scipy.io import wavfile

Array = NDArray[Any]
ROOT = Path(__file__).parents[2]
CALIBRATION = 100


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A model, and its inputs.

    Attributes:
        name: for the table.
        form: ``keras`` (.h5), ``savedmodel`` or ``torch``.
        model: as ``edgeml export`` takes it.
        input: the input's name.
        calibration: ``.npz`` with the input's samples.
        evaluation: likewise, with ``labels`` where there is a truth.
    """

    name: str
    form: str
    model: str
    input: str
    calibration: Path
    evaluation: Path

    @property
    def labelled(self) -> bool:
        """Whether there is a truth, for an accuracy; agreement with the source otherwise."""
        with np.load(self.evaluation) as arrays:
            return "labels" in arrays.files


def prepare(data: Path, folder: Path, *, only: Collection[str] | None = None) -> Iterator[Subject]:
    """Make the inputs of the models in ``folder``, one model after another.

    Args:
        data: the folder of real models, photos and recordings.
        folder: exists.
        only: names; None for all.
    """
    for name, make in MAKERS.items():
        if only is None or name in only:
            yield make(data, folder)


def _resnet8(data: Path, folder: Path) -> Subject:
    crops = np.stack([np.asarray(crop, np.float32) for crop in _crops(data, 32, each=2)])
    model = data / "mlperf-tiny" / "image_classification_resnet8.h5"
    return _subject(folder, "resnet8", "keras", str(model), crops)


def _ds_cnn(data: Path, folder: Path) -> Subject:
    recordings = sorted((data / "spoken-digits").rglob("*.wav"))
    spoken = np.stack([mfcc(*wavfile.read(path)) for path in recordings])[..., None]
    model = data / "mlperf-tiny" / "keyword_spotting_dscnn_savedmodel"
    return _subject(folder, "ds-cnn", "savedmodel", str(model), spoken)


def _mobilenet_v2(data: Path, folder: Path) -> Subject:
    crops = np.stack([np.asarray(crop, np.float32) for crop in _crops(data, 224, each=1)])
    photos = (crops / 127.5 - 1).transpose(0, 3, 1, 2).copy()
    np.save(folder / "photos.npy", photos[:64])
    source = Path(__file__).with_name("mobilenet.py")
    subprocess.run([sys.executable, source, folder], check=True)
    (folder / "mobilenet.py").write_text(source.read_text())
    model = f"{folder / 'mobilenet.py'}:trained"
    return _subject(folder, "mobilenet-v2", "torch", model, photos)


def mfcc(rate: int, samples: Array) -> Array:
    """49 x 10 coefficients of one second, as MLPerf Tiny's keyword spotting takes them.

    Windows of 30 ms every 20 ms at 16 kHz, 40 mel bands from 20 to 4,000 Hz, natural logarithm,
    the first 10 of an orthonormal DCT-II (github.com/mlcommons/tiny, get_dataset.py).
    """
    wave: Array = signal.resample_poly(samples.astype(np.float32) / 32768, 16_000, rate)
    wave = np.pad(wave, (0, max(0, 16_000 - len(wave))))[:16_000]
    frames = np.lib.stride_tricks.sliding_window_view(wave, 480)[::320]
    power = np.abs(np.fft.rfft(frames * np.hanning(481)[:-1], 512))
    mel = 1127 * np.log1p(np.fft.rfftfreq(512, 1 / 16_000) / 700)
    edges = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(4000 / 700), 42)
    rising = (mel[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - mel[:, None]) / np.diff(edges)[1:]
    bands = power @ np.maximum(0, np.minimum(rising, falling))
    cosines: Any = fft.dct(np.log(bands + 1e-6), type=2, norm="ortho")
    return np.asarray(cosines[:, :10], np.float32)


def _crops(data: Path, side: int, *, each: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    crops: list[Image.Image] = []
    for path in sorted((data / "photos").glob("*.jpg")):
        photo = Image.open(path).convert("RGB")
        for _ in range(each):
            size = int(min(photo.size) * rng.uniform(0.6, 1))
            x, y = (int(rng.integers(0, length - size + 1)) for length in photo.size)
            crops.append(photo.crop((x, y, x + size, y + size)).resize((side, side)))
    return crops


def _subject(folder: Path, name: str, form: str, model: str, samples: Array) -> Subject:
    names = {"resnet8": "input_1", "ds-cnn": "input_1", "mobilenet-v2": "photo"}
    calibration, evaluation = folder / f"{name}-calibration.npz", folder / f"{name}-evaluation.npz"
    order = np.random.default_rng(1).permutation(len(samples))
    np.savez(calibration, allow_pickle=False, **{names[name]: samples[order[:CALIBRATION]]})
    np.savez(evaluation, allow_pickle=False, **{names[name]: samples[order[CALIBRATION:]]})
    return Subject(
        name=name,
        form=form,
        model=model,
        input=names[name],
        calibration=calibration,
        evaluation=evaluation,
    )


def _digits(data: Path, folder: Path) -> Subject:  # noqa: ARG001 - its data needs no download
    sample = ROOT / "sample_models" / "digits"
    made = folder / "digits"
    subprocess.run([sys.executable, sample / "train.py", made], check=True, stdout=sys.stderr)
    (made / "model.py").write_text((sample / "model.py").read_text())
    return Subject(
        name="digits",
        form="torch",
        model=f"{made / 'model.py'}:trained",
        input="image",
        calibration=made / "calibration.npz",
        evaluation=made / "evaluation.npz",
    )


MAKERS: Mapping[str, Callable[[Path, Path], Subject]] = {
    "resnet8": _resnet8,
    "ds-cnn": _ds_cnn,
    "mobilenet-v2": _mobilenet_v2,
    "digits": _digits,
}
"""In the order of the table."""
