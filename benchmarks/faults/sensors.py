"""Sensors that failed, with the spans in which experts saw it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle import Tensor
from edgeml.collector.drift.effects import wasserstein
from edgeml.collector.drift.memory import Memory
from edgeml.collector.drift.monitor import Monitor
from edgeml.collector.drift.policy import Policy
from edgeml.statistics import Counts, Grid, fit_baseline

Cells = NDArray[np.int64]

TENSOR = Tensor(
    name="x", shape=(1, 1), dtype="float64", meaning="features", feature_names=("value",)
)
EVIDENCE = (20.0, 100.0, 1000.0, 100_000.0)
DISTANCES = (0.5, 1.0, 1.5, 2.0)
MONTH = timedelta(days=30)

SERIES: dict[str, tuple[timedelta, timedelta]] = {
    "machine_temperature_system_failure": (timedelta(hours=3), timedelta(days=6)),
    "cpu_utilization_asg_misconfiguration": (timedelta(hours=3), timedelta(days=14)),
    "ambient_temperature_system_failure": (timedelta(days=2), timedelta(days=100)),
    "nyc_taxi": (timedelta(days=1), timedelta(days=60)),
}
"""Window, and how much at the start is the training data. None of that is labelled a failure."""


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule raised on one series."""

    series: str
    rule: str
    threshold: float
    failures: int
    """That were labelled."""
    found: int
    false_a_month: float
    """Alarms outside the labelled spans, a month of unlabelled time."""
    armed: bool
    """Whether the rule ever watched: a monitor may find that its windows depend on each other."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One series in windows."""

    name: str
    grid: Grid
    training: Counts
    starts: tuple[datetime, ...]
    windows: tuple[Cells, ...]
    length: timedelta
    failures: tuple[tuple[datetime, datetime], ...]


def measure(folder: Path) -> list[Watched]:
    """Watch each series with each rule."""
    labelled: dict[str, list[list[str]]] = msgspec.json.decode(
        (folder / "labelled_windows.json").read_bytes(), type=dict[str, list[list[str]]]
    )
    found: list[Watched] = []
    for name, (length, training) in SERIES.items():
        file = folder / f"{name}.csv"
        failures = tuple(
            (datetime.fromisoformat(first), datetime.fromisoformat(last))
            for first, last in labelled[file.name]
        )
        series = read(file, length=length, training=training, failures=failures)
        for threshold in EVIDENCE:
            opened, armed = monitored(series, threshold)
            found.append(_judged(series, "evidence", threshold, opened, armed=armed))
        for threshold in DISTANCES:
            opened = too_far(series, threshold)
            found.append(_judged(series, "distance", threshold, opened, armed=True))
    return found


def read(
    file: Path,
    *,
    length: timedelta,
    training: timedelta,
    failures: tuple[tuple[datetime, datetime], ...],
) -> Series:
    """Cut a series into windows of a length, counted on a grid that is fitted to its beginning."""
    with file.open(newline="") as lines:
        rows = [
            (datetime.fromisoformat(r["timestamp"]), float(r["value"]))
            for r in csv.DictReader(lines)
        ]
    begin = rows[0][0]
    early = np.array([[value] for when, value in rows if when < begin + training])
    fitted = fit_baseline({"x": early}, {}, input_tensors=(TENSOR,), output_tensors=())
    stream = fitted.tensors[0].streams[0]
    by_window: dict[int, list[float]] = {}
    for when, value in rows:
        if when >= begin + training:
            by_window.setdefault((when - begin) // length, []).append(value)
    return Series(
        name=file.stem,
        grid=stream.grid,
        training=stream.baseline(),
        starts=tuple(begin + number * length for number in by_window),
        windows=tuple(Counts.of(stream.grid, values).cells for values in by_window.values()),
        length=length,
        failures=failures,
    )


def monitored(series: Series, threshold: float) -> tuple[list[int], bool]:
    """Windows in which the collector's monitor opens an alarm, and whether it was ever armed."""
    season = "day" if series.length < timedelta(hours=12) else "none"
    monitor, past = Monitor(series.grid, series.training, Policy(season=season)), Memory()
    opened: list[int] = []
    armed = False
    for number, (start, cells) in enumerate(zip(series.starts, series.windows, strict=True)):
        step = monitor.step(
            cells,
            key=f"{series.name} {number}",
            threshold=threshold,
            start_ms=int(start.timestamp() * 1000),
            length_ms=round(series.length.total_seconds() * 1000),
            source=past,
        )
        past.add(step)
        armed |= monitor.phase != "collecting"
        if step.opened:
            opened.append(number)
    return opened, armed


def too_far(series: Series, threshold: float) -> list[int]:
    """Windows that are the first of a row whose W1 from the training data is above a threshold, in
    its standard deviations: what a fixed limit on an effect size would raise."""
    far = [
        wasserstein(series.grid, cells, series.training.cells) > threshold
        for cells in series.windows
    ]
    return [number for number, now in enumerate(far) if now and not (number and far[number - 1])]


def _judged(
    series: Series, rule: str, threshold: float, opened: Sequence[int], *, armed: bool
) -> Watched:
    spans = [(series.starts[n], series.starts[n] + series.length) for n in opened]

    def meets(span: tuple[datetime, datetime], failure: tuple[datetime, datetime]) -> bool:
        return span[0] <= failure[1] and failure[0] <= span[1]

    wrong = [span for span in spans if not any(meets(span, each) for each in series.failures)]
    watched = series.starts[-1] + series.length - series.starts[0]
    usual = watched - sum((last - first for first, last in series.failures), timedelta())
    return Watched(
        series=series.name,
        rule=rule,
        threshold=threshold,
        failures=len(series.failures),
        found=sum(any(meets(span, each) for span in spans) for each in series.failures),
        false_a_month=len(wrong) / (usual / MONTH),
        armed=armed,
    )
