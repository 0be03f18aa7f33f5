"""Made-up worlds for the benchmarks of drift: a baseline, and what may happen to it.

NumPy alone, since the peers' environments draw the same samples from here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BASELINE_ROWS = 10_000


def _tail(x: Floats, strength: float, random: np.random.Generator) -> Floats:
    heavy = random.standard_t(3, x.size) / np.sqrt(3)
    return np.where(random.random(x.size) < strength, heavy, x)


def _mixture(x: Floats, strength: float, random: np.random.Generator) -> Floats:
    return np.where(random.random(x.size) < strength / 5, 3 + x / 2, x)


def _stuck(x: Floats, strength: float, random: np.random.Generator) -> Floats:
    length = round(strength / 5 * x.size)
    start = int(random.integers(0, x.size - length + 1))
    found = x.copy()
    found[start : start + length] = 0.3
    return found


WORLDS: dict[str, Callable[[Floats, float, np.random.Generator], Floats]] = {
    "mean": lambda x, strength, _: x + strength,
    "scale": lambda x, strength, _: x * (1 + strength),
    "tail": _tail,
    "mixture": _mixture,
    "stuck": _stuck,
}
"""Of unit normal rows: their mean moves by ``strength``; their spread grows by that share; that
share of them gets a heavy tail (t with 3 degrees of freedom, of variance 1); a fifth of that share
comes from elsewhere (3 ± ½); the sensor stands still at 0.3 for a fifth of that share of the time.
"""

STRENGTHS = (0.05, 0.1, 0.2, 0.3, 0.5)
ROWS = (300, 1_000, 10_000)


def generator(seed: int, world: str, strength: float, rows: int) -> np.random.Generator:
    """The same samples for everybody who asks with the same arguments."""
    number = list(WORLDS).index(world) + 1 if strength else 0
    return np.random.default_rng([seed, number, round(1000 * strength), rows])


def pair(
    random: np.random.Generator, world: str, strength: float, rows: int
) -> tuple[Floats, Floats]:
    """A baseline [:data:`BASELINE_ROWS`] and a window [rows]; strength 0 changes nothing."""
    baseline, window = random.standard_normal(BASELINE_ROWS), random.standard_normal(rows)
    return baseline, WORLDS[world](window, strength, random) if strength else window


def autoregressive(random: np.random.Generator, correlation: float, rows: int) -> Floats:
    """Unit normal rows, each correlated with the one before: AR(1)."""
    noise = random.standard_normal(rows)
    if not correlation:
        return noise
    signal: Any = import_module("scipy.signal")  # which the peers need not have
    noise[1:] *= np.sqrt(1 - correlation**2)
    return np.asarray(signal.lfilter([1.0], [1.0, -correlation], noise))
