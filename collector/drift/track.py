"""One series of scores: collecting a reference, learning it, and gathering evidence against it.

A track knows no counts: a device's windows, merged ones, and what a whole site has in common are
tracks alike. It is armed when its own reference shows that the promise would hold on it:

1. enough windows, over enough days for the season that is to be taken out;
2. a memory that is short beside the reference (:data:`MEMORIES` of them fit into it);
3. windows whose innovations do not visibly depend on each other any more;
4. on the reference itself, evidence that stays below what chance allows.

Until then it says which of these is missing, and tries again with a quarter more windows. Once
armed it learns again each time its history has doubled, up to ``longest_reference``; where that
history does not carry the promise, it stays with what it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite, nan

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.evidence import Detector
from edgeml.collector.drift.ranks import CELLS, cells_of, p_values, rehearsed, ties
from edgeml.collector.drift.reference import Learned, Model, Usual, gaps_of, learn
from edgeml.collector.drift.season import HOUR_MS, SEASONS, SPAN_HOURS, Season
from edgeml.collector.drift.whitening import Whitener, lag_one

Floats = NDArray[np.float64]
Directions = tuple[tuple[int, int], ...]
"""Index of the score, and +1 or −1 for the way it may move."""

MEMORIES = 40
"""Times that a wander has to come and go within the reference: n·(1 − φ) windows."""
COVERED = 0.8
"""Share of the reference's windows with peers that makes a track relative to them; the others are
left out of it."""
CHANCE = 100.0
"""Evidence on the reference of more than so many times its windows has a probability below 1 in so
many (Markov): the reference is not what it is taken for."""
SHORT_GAP = 0.05
"""Quantile of the windows' distances that a window's length is read off: where windows are missing
most distances are longer, and the wander is counted in windows' time."""
GROWTH = 1.25
"""After a failed attempt the next one comes with so many times the windows."""


class TrackPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a track."""

    reference: int = 48
    """Windows before it is armed, at least: four hours of five-minute windows."""
    longest_reference: int = 8064
    """Windows that are learned from, at most: four weeks of five-minute windows."""
    season: Season = "week"
    """The longest season that is expected, and waited for before the track is armed."""


class Point(msgspec.Struct, kw_only=True):
    """One window of a track, as it is stored."""

    index: int
    start_ms: int
    seed: int
    """Draws the ties' ranks, the same in every replay."""
    scores: list[float]
    common: list[float] | None = None
    """What peers' scores were in the same window."""
    innovations: list[float] | None = None
    """Of the scores, in standard deviations; only once armed."""
    evidence: float | None = None


class TrackState(msgspec.Struct, kw_only=True):
    """All that a track is, for the store."""

    count: int = 0
    """Windows so far."""
    through: int | None = None
    """Index of the last window in it; None of a state that is stored with each window."""
    next_attempt: int = 0
    reason: str = ""
    models: list[Model] = []
    relative: bool = False
    last_ms: int = 0
    windows: int = 0
    """Since the evidence began."""
    before: int = 0
    """Windows in the bags."""
    bags: bytes = b""
    filter_state: list[float] = []
    filter_variance: list[float] = []
    starts: list[list[float]] = []
    wealth: bytes = b""


class Track:
    """Args:
    directions: what may drift, and which way.
    policy: the bounds.
    state: what :meth:`save` gave, to go on from there.
    """

    def __init__(
        self, directions: Directions, policy: TrackPolicy, state: TrackState | None = None
    ) -> None:
        self._directions = directions
        self._which = np.array([which for which, _ in directions])
        self._way = np.array([way for _, way in directions])
        self._policy = policy
        self.state = state or TrackState(next_attempt=policy.reference, through=-1)
        if self.armed:
            self._load()

    @property
    def armed(self) -> bool:
        """Whether evidence is gathered."""
        return bool(self.state.models)

    @property
    def evidence(self) -> float:
        """R, averaged over the directions: of mean at most t after t windows without a change."""
        return self._detector.mean if self.armed else 0.0

    @property
    def by_direction(self) -> Floats:
        """R of each direction."""
        return self._detector.values if self.armed else np.zeros(len(self._directions))

    def clear(self, directions: NDArray[np.bool_]) -> None:
        """Let the evidence of some directions begin anew."""
        self._detector.clear(directions)

    @property
    def windows_since_change(self) -> int:
        """As the strongest direction has it, the first drifted window included."""
        if not self.armed:
            return 0
        return self._detector.windows_since_change(int(self._detector.values.argmax()))

    def step(self, point: Point, history: Callable[[], Sequence[Point]]) -> bool:
        """Take in a window, and note in it what came of it.

        Args:
            point: the window.
            history: windows to learn from, this one included, the oldest first: at most
                ``Policy.longest_reference`` of them, without those that are known to be bad. Asked
                for only when it is time to learn.

        Returns:
            Whether it learned, or tried to.
        """
        state = self.state
        self._take(point)
        due = state.count >= state.next_attempt
        if due and self.evidence <= CHANCE * max(state.windows, 1):
            self.learn(history())
            return True
        return False

    def replay(self, points: Sequence[Point]) -> None:
        """Take in the windows since a state was saved, in none of which it learned."""
        for point in points:
            self._take(point)

    def _take(self, point: Point) -> None:
        self.state.count += 1
        self.state.through = point.index
        if self.armed:
            self._watch(point)

    def learn(self, points: Sequence[Point]) -> None:
        """Learn anew from these windows, with evidence starting from nothing."""
        state = self.state
        wanted = self._policy.reference
        season = self._policy.season
        state.next_attempt = max(int(state.count * GROWTH), state.count + 1)
        if len(points) < wanted:
            state.reason = f"{len(points)} of {wanted} reference windows"
            state.next_attempt = state.count + wanted - len(points)
            return
        times = np.array([p.start_ms for p in points])
        length = max(int(np.quantile(np.diff(times), SHORT_GAP)), 1)
        span = (times.max() - times.min() + length) / HOUR_MS
        if span < SPAN_HOURS[season]:
            state.reason = (
                f"{span / 24:.1f} of the {SPAN_HOURS[season] / 24:.0f} days that show what a "
                f"{season} does to it"
            )
            missing = (SPAN_HOURS[season] - span) * HOUR_MS / length
            state.next_attempt = state.count + min(max(int(missing), 1), wanted)
            return
        relative = sum(p.common is not None for p in points) >= COVERED * len(points)
        values = np.array([differences(p, relative=relative) for p in points], dtype=np.float64)
        usable = np.isfinite(values).all(axis=1) & (np.diff(times, prepend=times[0] - 1) > 0)
        if usable.sum() < COVERED * wanted:
            state.reason = f"{int(usable.sum())} of {wanted} usable reference windows"
            return
        self._fit(times[usable], values[usable], length, relative=relative)

    def _fit(
        self, times: NDArray[np.int64], values: Floats, length: int, *, relative: bool
    ) -> None:
        state = self.state
        seasons = SEASONS[1 : SEASONS.index(self._policy.season) + 1]
        learned = learn(times, values, length_ms=length, seasons=seasons)
        why = unfit(learned.models, learned.innovations)
        if why:
            state.reason = why
            return
        bags, largest = self._rehearse(learned)
        if largest > CHANCE * len(times):
            state.reason = (
                f"evidence of {largest:,.0f} on its own reference, at most "
                f"{CHANCE * len(times):,.0f} is taken"
            )
            return
        state.models, state.relative, state.reason = learned.models, relative, ""
        state.windows, state.before = 0, len(times)
        self._bags, self._detector = bags, self._new_detector(learned.models)
        state.next_attempt = 2 * state.count
        if state.count >= self._policy.longest_reference:
            state.next_attempt = state.count + self._policy.longest_reference
        self._warm_up(times, values)

    def _new_detector(self, models: Sequence[Model]) -> Detector:
        v = np.array([model.caution for model in models])
        return Detector(len(self._directions), v[self._which])

    def _rehearse(self, learned: Learned) -> tuple[NDArray[np.int32], float]:
        """The bags that the reference fills, and the largest evidence on the way."""
        cells = cells_of(learned.innovations)
        counted = [np.bincount(column, minlength=CELLS) for column in cells.T]
        bags = np.array(counted, dtype=np.int32)
        detector = self._new_detector(learned.models)
        largest = 0.0
        for at, ranks in enumerate(rehearsed(cells)):
            detector.update(self._p_values(ranks), at)
            largest = max(largest, detector.mean)
        return bags, largest

    def _warm_up(self, times: NDArray[np.int64], values: Floats) -> None:
        """Let the filter see the reference, so that the next window is foretold from its end."""
        models = self.state.models
        self._whitener = Whitener([m.phi for m in models], [m.share for m in models])
        self._usual = Usual(models)
        residuals = self._usual.residuals(times, values).tolist()
        gaps = gaps_of(times, models[0].length_ms).tolist()
        for gap, row in zip(gaps, residuals, strict=True):
            self._whitener.step(gap, row)
        self.state.last_ms = int(times[-1])

    def residuals(self, point: Point) -> list[float]:
        """How far the scores lie from what is usual at that hour, in their usual deviations."""
        values = differences(point, relative=self.state.relative)
        return self._usual.residual(point.start_ms, values)

    def _watch(self, point: Point) -> None:
        state = self.state
        gap = (point.start_ms - state.last_ms) / state.models[0].length_ms
        innovations = self._whitener.step(gap if gap > 0 else 1.0, self.residuals(point))
        state.last_ms = max(point.start_ms, state.last_ms)
        if not any(map(isfinite, innovations)):
            return
        # A score that is not there bets nothing: it is put into the middle of its bag.
        innovations = [each if isfinite(each) else 0.0 for each in innovations]
        self._detector.update(self._rank(innovations, point.seed), state.before)
        state.before += 1
        state.windows += 1
        point.innovations = innovations
        point.evidence = self.evidence

    def _rank(self, innovations: Sequence[float], seed: int) -> Floats:
        """The p-value of each direction; the window joins the bags."""
        cells = cells_of(innovations)
        ranks = p_values(self._bags, cells, ties(seed, len(cells)))
        self._bags[np.arange(len(cells)), cells] += 1
        return self._p_values(ranks)

    def _p_values(self, ranks: Floats) -> Floats:
        """Of each direction, from those of the scores."""
        p = ranks[self._which]
        return np.where(self._way > 0, p, 1 - p)

    def save(self) -> TrackState:
        """The state, complete."""
        if not self.armed:
            return self.state
        starts, wealth = self._detector.save()
        return msgspec.structs.replace(
            self.state,
            bags=self._bags.astype("<u4").tobytes(),
            filter_state=list(self._whitener.state),
            filter_variance=list(self._whitener.variance),
            starts=starts,
            wealth=wealth,
        )

    def _load(self) -> None:
        state = self.state
        models = state.models
        self._usual = Usual(models)
        self._bags = np.frombuffer(state.bags, "<u4").astype(np.int32).reshape(-1, CELLS)
        self._whitener = Whitener([m.phi for m in models], [m.share for m in models])
        self._whitener.state = list(state.filter_state)
        self._whitener.variance = list(state.filter_variance)
        self._detector = self._new_detector(models)
        self._detector.load(state.starts, state.wealth)
        # Kept once: in memory they are kilobytes a stream.
        state.bags, state.starts, state.wealth = b"", [], b""


def differences(point: Point, *, relative: bool) -> list[float]:
    """The scores, less what peers' were where the track is relative to them; NaN where that is not
    known."""
    if not relative:
        return point.scores
    if not point.common:
        return [nan] * len(point.scores)
    return [own - common for own, common in zip(point.scores, point.common, strict=True)]


def unfit(models: Sequence[Model], innovations: Floats) -> str:
    """Why a reference cannot carry the promise, or an empty string."""
    count = len(innovations)
    phi = max((model.phi for model in models if model.share > 0), default=0.0)
    if phi and count * (1 - phi) < MEMORIES:
        return (
            f"it wanders slowly (a window keeps {phi:.2f} of the one before): "
            f"{MEMORIES / (1 - phi):,.0f} windows would show how far, {count} are there"
        )
    worst = float(np.abs(lag_one(innovations)).max())
    limit = max(0.1, 4 / count**0.5)
    if worst > limit:
        return (
            f"the windows depend on each other (lag-1 correlation {worst:.2f} after whitening, at "
            f"most {limit:.2f} is taken)"
        )
    return ""
