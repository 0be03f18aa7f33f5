"""Whether the alarms' promise holds, and how soon a change is found: series of scores, windows that
depend on each other among them.

Each row is so many series of one kind, each with a reference of its own, watched by the
collector's own :class:`~edgeml.collector.drift.track.Track` (all series of a kind as one track, so
that the same code runs on them at once). False alarms are counted at a threshold that allows some,
c = 10,000 over 2,000 windows: .2 a series. Delays are in windows at the threshold of a fleet of
20,000 streams that may raise one false page a year.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from page import setting, table, write_section

from edgeml.collector.drift.budget import Budget
from edgeml.collector.drift.reference import learn
from edgeml.collector.drift.season import Season
from edgeml.collector.drift.track import Directions, Point, Track, TrackPolicy, unfit

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
Bools = NDArray[np.bool_]

MINUTES_5, MINUTES_15 = 300_000, 900_000
DAY_MS = 86_400_000
WINDOWS = 2000
THRESHOLD = 10_000.0
DELAYS = 600
DILUTION = 10
"""A stream's evidence is the average of four rungs with five directions each, a series' here of two
directions. Where one direction of one rung bears it, c is as good as ten times as high."""


def autoregressive(phi: float) -> Callable[[np.random.Generator, Times, int], Floats]:
    """AR(1) of variance 1."""

    def draw(random: np.random.Generator, times: Times, series: int) -> Floats:
        noise = random.standard_normal((times.size, series)) * np.sqrt(1 - phi**2)
        noise[0] /= np.sqrt(1 - phi**2)
        for at in range(1, times.size):
            noise[at] += phi * noise[at - 1]
        return noise

    return draw


def independent(random: np.random.Generator, times: Times, series: int) -> Floats:
    return random.standard_normal((times.size, series))


def heavy(random: np.random.Generator, times: Times, series: int) -> Floats:
    return random.standard_t(3, (times.size, series)) / np.sqrt(3)


def wander(random: np.random.Generator, times: Times, series: int) -> Floats:
    """A slow AR(1), φ = .95, half of the variance, under independent noise."""
    slow = autoregressive(0.95)(random, times, series)
    return (slow + independent(random, times, series)) / np.sqrt(2)


def daily(random: np.random.Generator, times: Times, series: int) -> Floats:
    """A day's cycle of three deviations up and down."""
    cycle = 3 * np.sin(2 * np.pi * times / DAY_MS)
    return independent(random, times, series) + cycle[:, None]


def daily_and_dependent(random: np.random.Generator, times: Times, series: int) -> Floats:
    cycle = 3 * np.sin(2 * np.pi * times / DAY_MS)
    return autoregressive(0.9)(random, times, series) + cycle[:, None]


def weekly(random: np.random.Generator, times: Times, series: int) -> Floats:
    """Other days at the end of the week: two deviations higher, and half as lively."""
    rest = np.isin(times // DAY_MS % 7, (2, 3))
    cycle = 2 * np.sin(2 * np.pi * times / DAY_MS) * np.where(rest, 0.5, 1.0) + 2 * rest
    return independent(random, times, series) + cycle[:, None]


class Kind(NamedTuple):
    """Series of one kind."""

    name: str
    draw: Callable[[np.random.Generator, Times, int], Floats]
    reference: int
    length_ms: int = MINUTES_5
    season: Season = "none"
    kept: float = 1.0
    """Share of the windows that come at all."""
    series: int = 1000


TWO_WEEKS_5, TWO_WEEKS_15 = 4032, 1344
KINDS = (
    Kind("independent", independent, 100),
    Kind("independent", independent, 300),
    Kind("independent", independent, 1500),
    Kind("AR(1), φ = .5", autoregressive(0.5), 300),
    Kind("AR(1), φ = .5", autoregressive(0.5), 1500),
    Kind("AR(1), φ = .9", autoregressive(0.9), 500),
    Kind("AR(1), φ = .9", autoregressive(0.9), 1500),
    Kind("slow wander under noise", wander, 1500),
    Kind("heavy tails (t with 3 degrees)", heavy, 300),
    Kind("three in four windows lost, φ = .9", autoregressive(0.9), 1500, kept=0.25),
    Kind("a day's cycle", daily, TWO_WEEKS_15, MINUTES_15, "week", series=300),
    Kind(
        "a day's cycle, φ = .9", daily_and_dependent, TWO_WEEKS_15, MINUTES_15, "week", series=300
    ),
    Kind("a week's cycle", weekly, TWO_WEEKS_15, MINUTES_15, "week", series=300),
    Kind("a week's cycle", weekly, TWO_WEEKS_5, MINUTES_5, "week", series=200),
)


class World(NamedTuple):
    times: Times
    scores: Floats


def world(kind: Kind, windows: int, *, series: int, seed: int) -> World:
    """The reference and ``windows`` more."""
    random = np.random.default_rng(seed)
    wanted = kind.reference + windows
    slots = int(wanted / kind.kept * 1.1) if kind.kept < 1 else wanted
    times = np.arange(slots, dtype=np.int64) * kind.length_ms
    scores = kind.draw(random, times, series)
    if kind.kept < 1:
        came = np.flatnonzero(random.random(slots) < kind.kept)[:wanted]
        times, scores = times[came], scores[came]
    return World(times, scores)


class Watched(NamedTuple):
    """A track over all series that are fit to be armed."""

    track: Track
    armed: Bools
    rest: World


def fit_columns(times: Times, scores: Floats, *, length_ms: int, season: Season) -> Bools:
    """Which series the collector would arm on this reference."""
    seasons: Sequence[Season] = () if season == "none" else ("day", "week")
    learned = learn(times, scores, length_ms=length_ms, seasons=seasons)
    columns = enumerate(learned.models)
    return np.array([not unfit([model], learned.innovations[:, [i]]) for i, model in columns])


def arm(kind: Kind, drawn: World) -> Watched:
    """Learn each series' reference, and leave out those that the collector would not arm."""
    n = kind.reference
    fit = fit_columns(
        drawn.times[:n], drawn.scores[:n], length_ms=kind.length_ms, season=kind.season
    )
    scores = drawn.scores[:, fit]
    directions: Directions = tuple((i, way) for i in range(scores.shape[1]) for way in (1, -1))
    policy = TrackPolicy(reference=n, longest_reference=10**9, season=kind.season)
    track = Track(directions, policy)
    track.state.count = n
    track.learn([_point(i, drawn.times[i], scores[i]) for i in range(n)])
    if not track.armed:
        raise RuntimeError(track.state.reason)
    return Watched(track, fit, World(drawn.times[n:], scores[n:]))


def _point(index: int, time_ms: int, scores: Floats) -> Point:
    return Point(index=index, start_ms=int(time_ms), seed=index, scores=scores.tolist())


def evidence(watched: Watched) -> Iterable[Floats]:
    """R of each series, the average of up and down, window by window."""
    for index, (time_ms, row) in enumerate(zip(*watched.rest, strict=True)):
        watched.track.state.next_attempt = 2**62  # what is measured is one reference's promise
        watched.track.step(_point(10**6 + index, time_ms, row), list)
        yield watched.track.by_direction.reshape(-1, 2).mean(axis=1)


def false_alarms(kind: Kind, *, seed: int = 1) -> tuple[float, Times]:
    """Share of the series that are armed, and the false alarms of each armed one."""
    watched = arm(kind, world(kind, WINDOWS, series=kind.series, seed=seed))
    alarms = np.zeros(int(watched.armed.sum()), dtype=np.int64)
    for found in evidence(watched):
        fired = found >= THRESHOLD
        alarms += fired
        if fired.any():
            watched.track.clear(np.repeat(fired, 2))
    return float(watched.armed.mean()), alarms


def most(alarms: Times) -> float:
    """An upper bound, of 95 % confidence, for the mean of which these are independent draws: by the
    bootstrap, since alarms of one series come in groups; where no series has any, by the rule of
    three."""
    if not alarms.any():
        return 3 / max(alarms.size, 1)
    draws = np.random.default_rng(0).integers(0, alarms.size, (2000, alarms.size))
    return float(np.quantile(alarms[draws].mean(axis=1), 0.95))


def delays(kind: Kind, shift: float, *, threshold: float, series: int = 200) -> Floats:
    """Windows until each armed series is over the threshold; infinite where it never is."""
    drawn = world(kind, DELAYS, series=series, seed=2)
    n = kind.reference
    steady = drawn.scores[:n]
    drawn.scores[n:] += shift  # all kinds have deviations of 1 around their cycles
    watched = arm(kind, World(drawn.times, np.concatenate([steady, drawn.scores[n:]])))
    found = np.full(int(watched.armed.sum()), np.inf)
    for index, values in enumerate(evidence(watched)):
        found[(values >= threshold) & np.isinf(found)] = index + 1
    return found


def text(*, quick: bool = False) -> str:
    """The section."""
    threshold = Budget().threshold(
        streams={"device": 20_000, "site": 1, "version": 1, "fleet": 1}, duration_ms=MINUTES_5
    )
    rows: list[tuple[object, ...]] = []
    for kind in KINDS[:3] if quick else KINDS:
        armed, alarms = false_alarms(kind)
        cells = [
            _delay(delays(kind, shift, threshold=DILUTION * threshold)) for shift in (0.5, 1.0, 2.0)
        ]
        told = f"{alarms.mean():.3f}", f"{most(alarms):.3f}"
        rows.append((kind.name, kind.reference, f"{armed:.0%}", *told, *cells))
    head = ("windows", "reference", "armed", "false alarms", "at most")
    return "\n\n".join(
        [
            setting("numpy"),
            table((*head, "found at .5σ", "1σ", "2σ"), rows),
            f"False alarms of one armed series in {WINDOWS:,} windows at c = {THRESHOLD:,.0f}; "
            f"promised are at most {WINDOWS / THRESHOLD}; *at most*: their upper bound of 95 % "
            "confidence. *Found*: median windows after a shift of "
            f"so many deviations of the score, at c = {threshold:.2g} (20,000 streams, one false "
            f"page a year) for a stream that only one of its twenty averaged detectors sees it in; "
            f"and the share that was not found within {DELAYS} windows, where that is not 0.",
        ]
    )


def _delay(found: Floats) -> str:
    missed = float(np.isinf(found).mean())
    middle = float(np.median(found))
    shown = "–" if np.isinf(middle) else f"{middle:.0f}"
    return shown + (f" ({missed:.0%} not)" if missed else "")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="False alarms and delays of the detectors.")
    parser.add_argument("--quick", action="store_true", help="the first rows only")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    found = text(quick=options.quick)
    print(found)
    if options.write:
        write_section("drift detectors", found)


if __name__ == "__main__":
    main()
