"""Scenes that look enough like photos for a camera's faults to show in them: a bright blue sky over
warm ground, objects with edges, texture, and a sensor's noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def scenes(count: int, *, size: int = 96, seed: int = 0) -> Frames:
    """[count, size, size, 3], RGB."""
    random = np.random.default_rng(seed)
    return np.stack([_scene(size, random) for _ in range(count)])


def _scene(size: int, random: np.random.Generator) -> Frames:
    y, x = np.mgrid[:size, :size] / size
    horizon = random.uniform(0.3, 0.6)
    sky = np.array([120, 150, 190]) * random.uniform(0.8, 1.1)
    ground = np.array([120, 95, 60]) * random.uniform(0.7, 1.1)
    frame = np.where((y < horizon)[..., None], sky, ground)
    for _ in range(12):
        top, left = random.uniform(0, 0.9, 2)
        high, wide = random.uniform(0.05, 0.3, 2)
        inside = (y > top) & (y < top + high) & (x > left) & (x < left + wide)
        warm = random.uniform(20, 200) * np.array([1.1, 0.9, 0.7])
        frame = np.where(inside[..., None], warm, frame)
    grain = random.normal(0, 8, (size // 2, size // 2))
    frame = frame + np.kron(grain, np.ones((2, 2)))[..., None]
    return as_frame(frame + random.normal(0, 2, frame.shape))


def as_frame(values: NDArray[np.floating]) -> Frames:
    """What an 8-bit sensor makes of it."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def blurred(frames: Frames) -> Frames:
    """By 3x3 pixels."""
    high, wide = frames.shape[1:3]
    padded = np.pad(frames.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    parts = (padded[:, i : i + high, j : j + wide] for i in range(3) for j in range(3))
    return as_frame(sum(parts) / 9)
