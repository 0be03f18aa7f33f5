"""A microphone's faults and an unknown voice, on spoken digits."""

from __future__ import annotations

import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle import Tensor
from edgeml.statistics import Stream, fit_baseline
from faults.windows import Study, study

Clips = NDArray[np.int16]
Fault = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]

SAMPLES = 8000
"""One second: longer clips are cut, shorter ones end in silence."""
TENSOR = Tensor(name="clip", shape=(1, SAMPLES), dtype="int16", meaning="audio")


def load(folder: Path) -> dict[str, Clips]:
    """Clips [n, SAMPLES] by speaker."""
    clips: dict[str, list[Clips]] = {}
    for file in sorted(folder.glob("*.wav")):
        with wave.open(str(file)) as recording:
            found = np.frombuffer(recording.readframes(SAMPLES), np.int16)
        clip = np.zeros(SAMPLES, np.int16)
        clip[: found.size] = found
        clips.setdefault(file.stem.split("_")[1], []).append(clip)
    return {speaker: np.stack(each) for speaker, each in clips.items()}


def measure(folder: Path, *, splits: int) -> list[Study]:
    """A study of the microphone's faults, and one for each speaker who is not in the baseline."""
    speakers = load(folder)
    together = np.concatenate(list(speakers.values()))
    faults = {
        (fault, strength): _with(together, change)
        for fault, strengths in FAULTS.items()
        for strength, change in strengths.items()
    }
    studies = [_study(together, faults, splits)]
    for speaker, clips in speakers.items():
        others = np.concatenate([each for name, each in speakers.items() if name != speaker])
        studies.append(_study(others, {("another speaker", speaker): clips}, splits))
    return studies


def _study(clean: Clips, faults: dict[tuple[str, str], Clips], splits: int) -> Study:
    def fit(rows: NDArray[np.int64]) -> Sequence[Stream]:
        clips = {"clip": clean[rows]}
        fitted = fit_baseline(clips, {}, input_tensors=(TENSOR,), output_tensors=())
        return fitted.tensors[0].streams

    spec = fit_baseline({"clip": clean}, {}, input_tensors=(TENSOR,), output_tensors=()).tensors[0]
    names = [stream.name.rpartition(".")[2] for stream in spec.streams]
    faulty = {key: spec.compute(clips) for key, clips in faults.items()}
    return study(names, spec.compute(clean), faulty, fit, splits=splits)


def _with(clips: Clips, change: Fault) -> Clips:
    random = np.random.default_rng(1)
    changed = np.stack([change(clip.astype(np.float64), random) for clip in clips])
    return np.clip(np.rint(changed), -32768, 32767).astype(np.int16)


def _noise(decibels: float) -> Fault:
    """White, so far below the level of the spoken part."""

    def noisy(clip: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        spoken = clip[: int(np.flatnonzero(clip).max(initial=0)) + 1]
        level = np.sqrt((spoken**2).mean()) * 10 ** (-decibels / 20)
        return clip + random.normal(0, level, clip.size)

    return noisy


def _rail(share: float) -> Fault:
    """An amplifier that gives no more than this share of the clip's peak."""

    def clipped(clip: NDArray[np.float64], _: np.random.Generator) -> NDArray[np.float64]:
        rail = share * np.abs(clip).max()
        return np.clip(clip, -rail, rail)

    return clipped


def _gain(gain: float) -> Fault:
    """What then goes beyond the converter's range is cut off there."""
    return lambda clip, _: clip * gain


FAULTS: dict[str, dict[str, Fault]] = {
    "white noise": {f"{-level} dB": _noise(level) for level in (40, 30, 20, 10, 5)},
    "clipped before the converter": {
        f"at {share:.0%} of the peak": _rail(share) for share in (0.9, 0.7, 0.5, 0.3, 0.1)
    },
    "overdriven": {f"× {gain}": _gain(gain) for gain in (1.5, 2, 4, 8, 16)},
}
