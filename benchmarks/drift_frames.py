"""What the statistics of one sample cost: frames, a second of sound, an embedding, class scores.

    OPENBLAS_NUM_THREADS=1 python benchmarks/drift_frames.py [--write]

Each statistic that is computed beside an inference is timed alone, on the kind of
array that a model takes: the median and the smallest of many runs. ``--write`` puts the table into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from page import setting, table, write_section

from edgeml.bundle import Tensor
from edgeml.statistics import fit_baseline
from edgeml.statistics.families import FAMILIES

RUNS, REPEATS = 10, 60


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of the statistics of one sample."""

    what: str
    statistics: int
    """Streams of numbers; vectors come beside them."""
    median_us: float
    least_us: float


def rows() -> list[Cost]:
    """Measure."""
    random = np.random.default_rng(0)
    found: list[Cost] = []
    for name, high, wide in (
        ("224x224", 224, 224),
        ("640x480", 480, 640),
        ("1920x1080", 1080, 1920),
    ):
        scene = _scene(high, wide, random)
        found.append(_cost(f"frame {name}, uint8 NHWC", scene[None], "image", "NHWC"))
        planes = np.ascontiguousarray(np.moveaxis(scene, -1, 0), np.float32) / 255
        found.append(_cost(f"frame {name}, float32 NCHW", planes[None], "image", "NCHW"))
    sound = random.normal(0, 3000, (1, 16_000)).astype(np.int16)
    found.append(_cost("a second of sound at 16 kHz, int16", sound, "audio"))
    found.append(_cost("embedding of 128, float32", _floats(random, 128), "embedding"))
    found.append(_cost("embedding of 1280, float32", _floats(random, 1280), "embedding"))
    found.append(_cost("scores of 10 classes, float32", _floats(random, 10), "scores"))
    found.append(_cost("scores of 256 classes, float32", _floats(random, 256), "scores"))
    return found


def markdown(costs: Sequence[Cost]) -> str:
    """The table."""
    lines = [(c.what, c.statistics, f"{c.median_us:.0f}", f"{c.least_us:.0f}") for c in costs]
    return f"{setting('numpy')} One thread.\n\n" + table(
        ("one sample", "statistics", "µs, median", "µs, least"), lines
    )


def _scene(high: int, wide: int, random: np.random.Generator) -> NDArray[np.uint8]:
    y, x = np.mgrid[:high, :wide]
    shade = 120 + 60 * np.sin(y / 37) + 40 * np.cos(x / 23)
    noisy = shade[:, :, None] + random.normal(0, 6, (high, wide, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _floats(random: np.random.Generator, width: int) -> NDArray[np.float32]:
    return random.normal(size=(1, width)).astype(np.float32)


def _cost(what: str, sample: NDArray[Any], meaning: str, layout: str = "") -> Cost:
    tensor = Tensor(
        name="x",
        shape=(1, *sample.shape[1:]),
        dtype=str(sample.dtype),
        meaning=meaning,  # type: ignore[arg-type]
        layout=layout,  # type: ignore[arg-type]
    )
    several = np.concatenate([sample, sample[..., ::-1]])
    fitted = fit_baseline({"x": several}, {}, input_tensors=(tensor,), output_tensors=())
    spec = fitted.tensors[0]
    family, state = FAMILIES[spec.family], spec.state()

    def once() -> None:
        spec.compute(sample, state)
        family.vectors(sample, spec.context)

    once()
    each = np.array(timeit.repeat(once, number=RUNS, repeat=REPEATS)) / RUNS * 1e6
    columns = len(family.names(spec.context))
    return Cost(
        what=what, statistics=columns, median_us=float(np.median(each)), least_us=float(each.min())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What the statistics of one sample cost.")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    text = markdown(rows())
    if parser.parse_args().write:
        write_section("drift frames", text)
    print(text)


if __name__ == "__main__":
    main()
