"""A Keras 2 model as training leaves it, with its optimizer."""

# pyright: basic
from __future__ import annotations

from pathlib import Path

import numpy as np
import tf_keras  # pyright: ignore[reportMissingImports]

LENGTH = 4


def save(folder: Path, answers: Path) -> None:
    """Write the model, and what it answers to ``rows`` of the seed 0."""
    tf_keras.utils.set_random_seed(0)
    layers = [tf_keras.layers.Dense(8, activation="relu"), tf_keras.layers.BatchNormalization()]
    model = tf_keras.Sequential([tf_keras.Input((LENGTH,)), *layers, tf_keras.layers.Dense(2)])
    model.compile(optimizer="adam", loss="mse")
    rows = np.random.default_rng(0).normal(size=(64, LENGTH)).astype(np.float32)
    model.fit(rows, rows[:, :2], epochs=2, verbose=0)
    model.save(str(folder), save_format="tf")
    np.save(answers, model.predict(rows, verbose=0))
