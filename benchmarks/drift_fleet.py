"""A fleet over a simulated month, days and nights: false pages, and how soon what drifts is found.

1,000 devices at 50 sites with 20 statistics each, windows of 15 minutes with 200 rows. The mean of
a window follows the site's day (other sites, other hours), what all devices of the site see
alike (weather: a slow wander), and noise of the device's own. Two weeks are the reference. In the
third week 1 % of the devices begin to drift in all their statistics: half of them by one standard
deviation of the window's score (its noise around what peers see), half by two; no other does.

edgeml is its own :class:`~edgeml.collector.drift.track.Track`, one statistic of all devices as a
track, relative to the median of the site's other devices. Beside it, on the same windows, what
tests of rows against the reference do: p < .05, Bonferroni and Benjamini-Hochberg over all streams
of a window, and Evidently's default for numbers (a Kolmogorov-Smirnov test at .05 for at most 1,000
rows), where rows are drawn and tested for one device in twenty.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from drift_detectors import DILUTION, fit_columns
from numpy.typing import NDArray
from page import setting, table, write_section

from edgeml.collector.drift.budget import Budget, Scope
from edgeml.collector.drift.track import Directions, Point, Track, TrackPolicy

Floats = NDArray[np.float64]

SITES, A_SITE, STATISTICS = 50, 20, 20
DEVICES = SITES * A_SITE
LENGTH_MS = 900_000
A_DAY = 96
REFERENCE, WATCHED = 14 * A_DAY, 16 * A_DAY
BEGIN = REFERENCE + 3 * A_DAY
"""When drift begins."""
ROWS = 200
OWN = 0.1
"""Deviation of a device's own noise between windows; that of the rows in one is 1."""
DRIFTING = DEVICES // 100
STREAMS: dict[Scope, int] = {
    "device": DEVICES * STATISTICS,
    "site": SITES * STATISTICS,
    "version": STATISTICS,
    "fleet": STATISTICS,
}


special: Any = import_module("scipy.special")
stats: Any = import_module("scipy.stats")


class Fleet(NamedTuple):
    """One statistic of all devices: means of windows, and the deviation of the rows' mean."""

    means: Floats
    """[windows, devices]"""
    shifts: Floats
    """In deviations of the window's score, [devices]."""


def simulate(random: np.random.Generator) -> Fleet:
    """One statistic of the whole fleet."""
    slots = np.arange(REFERENCE + WATCHED)
    hour = 2 * np.pi * slots / A_DAY
    phase = random.uniform(0, 2 * np.pi, SITES)
    day = 0.5 * np.sin(hour[:, None] + phase)
    rest = np.isin(slots // A_DAY % 7, (2, 3))
    day += 0.3 * rest[:, None]
    weather = random.normal(0, 1, (slots.size, SITES)) * 0.3 * np.sqrt(1 - 0.99**2)
    for at in range(1, slots.size):
        weather[at] += 0.99 * weather[at - 1]
    means = np.repeat(day + weather, A_SITE, axis=1)
    noise = np.sqrt(OWN**2 + 1 / ROWS)
    means += random.normal(0, noise, means.shape)
    shifts = np.zeros(DEVICES)
    shifts[:: DEVICES // DRIFTING] = np.resize([1.0, 2.0], DRIFTING)
    means[BEGIN:] += shifts * noise
    return Fleet(means, shifts)


class Found(NamedTuple):
    """Of one statistic: when each device was first over the threshold, and false crossings."""

    delays: Floats
    false_pages: float
    armed: float
    """Share of the devices whose stream is armed."""


def watch(fleet: Fleet, threshold: float) -> Found:
    """Watch one statistic of all devices."""
    by_site = fleet.means.reshape(-1, SITES, A_SITE)
    common = np.stack(
        [np.median(np.delete(by_site, i, axis=2), axis=2) for i in range(A_SITE)], axis=2
    ).reshape(fleet.means.shape)
    armed = fit_columns(
        np.arange(REFERENCE, dtype=np.int64) * LENGTH_MS,
        (fleet.means - common)[:REFERENCE],
        length_ms=LENGTH_MS,
        season="week",
    )
    means, common, shifts = fleet.means[:, armed], common[:, armed], fleet.shifts[armed]
    directions: Directions = tuple((i, way) for i in range(len(shifts)) for way in (1, -1))
    track = Track(directions, TrackPolicy(reference=REFERENCE, longest_reference=10**9))
    points = [
        Point(
            index=i,
            start_ms=i * LENGTH_MS,
            seed=i,
            scores=means[i].tolist(),
            common=common[i].tolist(),
        )
        for i in range(len(means))
    ]
    track.state.count = REFERENCE
    track.learn(points[:REFERENCE])
    if not track.armed:
        raise RuntimeError(track.state.reason)
    delays = np.full(len(shifts), np.inf)
    pages = 0
    for at, point in enumerate(points[REFERENCE:], REFERENCE):
        track.state.next_attempt = 2**62
        track.step(point, list)
        fired = track.by_direction.reshape(-1, 2).mean(axis=1) >= threshold
        if fired.any():
            drifting = (shifts != 0) & (at >= BEGIN)
            pages += int((fired & ~drifting).sum())
            first = fired & drifting & np.isinf(delays)
            delays[first] = at - BEGIN + 1
            track.clear(np.repeat(fired, 2))
    everywhere = np.full(DEVICES, np.inf)
    everywhere[armed] = delays
    return Found(everywhere, pages, float(armed.mean()))


class Naive(NamedTuple):
    """What tests of each window's rows raise: in all, and in windows that drift."""

    false: int
    missed: int
    drifting: int


def row_tests(fleets: list[Fleet]) -> dict[str, Naive]:
    """Tests of rows, over all streams of a slot together, against the reference's mean."""
    counts = {name: [0, 0, 0] for name in ("p < .05", "Bonferroni .05", "Benjamini-Hochberg .05")}
    usual = np.stack([f.means[:REFERENCE].mean(axis=0) for f in fleets], axis=1)
    spread = np.sqrt(np.stack([f.means[:REFERENCE].var(axis=0) for f in fleets], axis=1) + 1)
    shifts = np.stack([f.shifts for f in fleets], axis=1)
    for at in range(REFERENCE, REFERENCE + WATCHED):
        values = np.stack([f.means[at] for f in fleets], axis=1)
        p: Floats = special.erfc(np.abs(values - usual) / spread * np.sqrt(ROWS / 2)).ravel()
        drifts = ((shifts != 0) & (at >= BEGIN)).ravel()
        ranked = np.sort(p)
        enough = np.flatnonzero(ranked <= 0.05 * np.arange(1, p.size + 1) / p.size)
        cut = ranked[enough[-1]] if enough.size else -1.0
        for name, fired in zip(counts, (p < 0.05, p < 0.05 / p.size, p <= cut), strict=True):
            counts[name][0] += int((fired & ~drifts).sum())
            counts[name][1] += int((~fired & drifts).sum())
            counts[name][2] += int(drifts.sum())
    return {name: Naive(*found) for name, found in counts.items()}


def evidently(fleet: Fleet, random: np.random.Generator) -> Naive:
    """Evidently's default test of a number's windows of at most 1,000 rows, on drawn rows of one
    device in twenty, against 1,000 rows of its reference."""
    false = missed = drifting = 0
    for device in range(0, DEVICES, A_SITE):
        centres = random.choice(fleet.means[:REFERENCE, device], 1000)
        reference = random.normal(centres, 1.0)
        for at in range(REFERENCE, REFERENCE + WATCHED, 4):
            rows = random.normal(fleet.means[at, device], 1.0, ROWS)
            fired = bool(stats.ks_2samp(rows, reference).pvalue < 0.05)
            drifts = bool(fleet.shifts[device]) and at >= BEGIN
            false += int(fired and not drifts)
            missed += int(drifts and not fired)
            drifting += int(drifts)
    return Naive(false, missed, drifting)


def text() -> str:
    """The section."""
    fleets = [simulate(np.random.default_rng([5, at])) for at in range(STATISTICS)]
    threshold = Budget().threshold(streams=STREAMS, duration_ms=LENGTH_MS)
    found = [watch(fleet, DILUTION * threshold) for fleet in fleets]
    delays = np.stack([f.delays for f in found])
    years = WATCHED * LENGTH_MS / (365 * 86_400_000)
    rows: list[tuple[object, ...]] = []
    for shift in (1.0, 2.0):
        those = delays[:, fleets[0].shifts == shift]
        rows.append(
            (
                f"{shift:g}",
                those.size,
                f"{np.median(those):.0f}",
                f"{np.quantile(those, 0.9):.0f}",
                f"{np.isinf(those).mean():.0%}",
            )
        )
    naive = row_tests(fleets)
    drawn = evidently(fleets[0], np.random.default_rng(6))
    all_tests = WATCHED * DEVICES * STATISTICS
    others = [
        (name, f"{n.false:,}", f"{1 - n.missed / n.drifting:.0%}") for name, n in naive.items()
    ]
    tested = (DEVICES // A_SITE) * (WATCHED // 4)
    others.append(
        (
            "Evidently's default (KS, .05)",
            f"{drawn.false / tested * all_tests:,.0f} ({drawn.false:,} of {tested:,} tested)",
            f"{1 - drawn.missed / max(drawn.drifting, 1):.0%}",
        )
    )
    pages = sum(f.false_pages for f in found)
    return "\n\n".join(
        [
            setting("numpy", "scipy"),
            f"edgeml, c = {threshold:.2g} for one of {STREAMS['device']:,} device streams and a "
            f"budget of one false page a year: **{pages:.0f} false pages** in "
            f"{WATCHED / A_DAY:.0f} days, {years:.3f} allowed. "
            f"{np.mean([f.armed for f in found]):.1%} of the streams are armed.",
            table(
                ("shift, σ of the score", "streams", "median windows", "90 % within", "not found"),
                rows,
            ),
            table(
                ("tests of each window's rows", "false alarms", "drifting windows found"), others
            ),
        ]
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="A fleet over a simulated month.")
    parser.add_argument("--write", action="store_true", help="put the tables into the docs")
    found = text()
    print(found)
    if parser.parse_args().write:
        write_section("drift fleet", found)


if __name__ == "__main__":
    main()
