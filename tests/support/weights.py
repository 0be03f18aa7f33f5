"""The weights of the tests' tiny classifier: of 8x8 images into four classes, from a fixed seed."""

from __future__ import annotations

import numpy as np

PIXELS = 64
CLASSES = 4

_random = np.random.default_rng(20)
WEIGHTS = _random.normal(0, 0.5, (PIXELS, CLASSES)).astype(np.float32)
BIAS = _random.normal(0, 0.1, CLASSES).astype(np.float32)


def scores(images: np.ndarray) -> np.ndarray:
    """What the model makes of images [n, 1, 8, 8]: float32 [n, 4], each row sums to 1."""
    logits = images.reshape(len(images), PIXELS) @ WEIGHTS + BIAS
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def images(count: int, seed: int = 0) -> np.ndarray:
    """Frames like those that the model was calibrated on: float32 [count, 1, 8, 8] in 0..1."""
    random = np.random.default_rng(seed)
    base = random.uniform(0.2, 0.8, (count, 1, 1, 1))
    return np.clip(base + random.normal(0, 0.15, (count, 1, 8, 8)), 0, 1).astype(np.float32)
