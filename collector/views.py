"""What the collector says of itself: the structs behind the REST API and the pages.

Times are Unix milliseconds, divergences bits, evidence and thresholds plain numbers.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from edgeml.telemetry import Building


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all views."""


class ModelView(View, frozen=True, kw_only=True):
    """A model on a device."""

    name: str
    version: str
    bundle: str
    artifact: str
    phase: str = ""
    error: str = ""
    memory_limit: str = ""
    building: Building | None = None
    """What is on its way to serve on the device."""


class DeviceView(View, frozen=True, kw_only=True):
    """A device as the fleet table has it."""

    site: str
    device: str
    online: bool
    first_seen_ms: int
    last_seen_ms: int | None
    agent: str
    machine: str
    system: str
    cores: int
    memory_mb: int
    started_ms: int
    models: list[ModelView]
    outcomes: dict[str, int]
    """Requests by what became of them, since the device was first seen."""
    recent_outcomes: dict[str, int]
    """Those of this hour and the last."""
    state: str
    """``alarm``, ``refused`` (its last windows are), ``stuck``, ``armed``, ``not armed`` or
    ``unknown``."""
    reason: str
    streams: int
    armed: int
    alarms: int
    worst: str
    """The stream whose evidence is nearest to its threshold."""
    worst_relative_evidence: float | None


class StreamView(View, frozen=True, kw_only=True):
    """Where one statistic of one device stands."""

    id: int
    site: str
    device: str
    model: str
    version: str
    artifact: str
    stream: str
    bundle: str
    phase: str
    """``collecting``, ``armed`` or ``alarm``."""
    armed: bool
    reason: str
    """Why it is not armed."""
    reference: int
    """Test windows in the reference."""
    offset_js: float | None
    """How far the reference itself lies from the training data, excess JS divergence in bits."""
    evidence: float
    threshold: float
    last_ms: int
    alarm_ms: int | None
    """Since when it is in alarm."""
    stuck: str
    """Why it is stuck, in a sentence; empty while it is not."""
    unjudged: int
    """Windows of it that are counted and whose evaluation failed, see :class:`FaultView`."""
    last: dict[str, Any] | None
    """The last test window against the training data: ``excess_js``, ``js``, ``psi``, ``w1``,
    ``ks``, ``chi2``, ``dof``, ``p``, ``n``, ``m``, ``effect``, ``detectable``, ``mean``,
    ``start_ms``."""

    @property
    def relative_evidence(self) -> float:
        """log evidence / log threshold: 0 none, 1 an alarm. An open alarm ranks above all."""
        if self.phase == "alarm":
            return 1.0 + (self.last or {}).get("excess_js", 0.0)
        if self.evidence <= 1 or self.threshold <= 1:
            return 0.0
        return math.log(self.evidence) / math.log(self.threshold)


class Point(View, frozen=True, kw_only=True):
    """One test window of a stream."""

    index: int
    start_ms: int
    role: str
    js: float
    excess_js: float
    """``js`` less what so few rows show where nothing has changed, at least 0."""
    psi: float
    w1: float | None
    ks: float | None
    chi2: float
    dof: int
    p: float
    n: int
    m: int
    effect: float
    detectable: float
    mean: float | None
    evidence: float | None
    threshold: float


class Histogram(View, frozen=True, kw_only=True):
    """Shares of a stream's cells in the last test window, in the training data and in the device's
    own past, and how far the window lies from either: excess Jensen-Shannon divergence in bits."""

    kind: str
    centres: list[float]
    names: list[str]
    """Of the cells where they lie on no line: categories, *other* and *missing*."""
    window: list[float]
    rows: int
    baseline: list[float]
    baseline_rows: int
    skew: float | None
    """From the training data; None of what training samples, which have no order, cannot tell."""
    past: list[float]
    """Of the reference; empty before there is one."""
    past_rows: int
    change: float | None
    """From the device's own past."""
    new: dict[str, int] = {}
    """Categories that the training data did not have, and at most how many rows had each: in the
    last hour, or day where hours are merged."""


class AlarmView(View, frozen=True, kw_only=True):
    """An alarm."""

    id: int
    site: str
    device: str
    model: str
    version: str
    artifact: str
    stream: str
    open: bool
    opened_ms: int
    since_ms: int
    """Start of the first drifted window, as estimated, by the device's clock."""
    closed_ms: int | None
    reason: str = ""
    """Why it closed, where it did not by itself: ``retracted`` or ``re-baselined``."""
    effect: float
    """Of the windows since then against the device's own reference."""
    effect_name: str = "excess JS divergence (bits)"
    evidence: float
    threshold: float
    windows: int
    """Test windows since the estimated change, when it was raised."""


class BundleView(View, frozen=True, kw_only=True):
    """A bundle whose statistics are known, or wanted."""

    sha256: str
    name: str
    version: str
    known: bool
    waiting: int
    """Windows that are stored and not evaluated yet."""
    added_ms: int | None = None
    streams: int = 0


class GroupView(View, frozen=True, kw_only=True):
    """What all devices of a site, or of a version, have in common in one statistic."""

    id: int
    scope: str
    """``site`` or ``version``."""
    site: str
    model: str
    version: str
    stream: str
    phase: str
    armed: bool
    reason: str
    reference: int
    devices: int
    """That reported in the last slot."""
    evidence: float
    threshold: float
    last_ms: int


class BudgetView(View, frozen=True, kw_only=True):
    """What of the budget of false alarms is spent."""

    promise: str
    allowed: float
    """B: expected false alarms in the period, at most."""
    expected: float
    """Expected so far, at most: Σ 1/c over the windows that were watched."""
    windows: int
    alarms: int
    """Raised in the period, false ones and true ones."""


class DriftingView(View, frozen=True, kw_only=True):
    """A stream on the list of what drifts now."""

    scope: str
    """Whose it is: ``device``, ``site`` or ``version``."""
    id: int
    """Of the device's stream, or of the group."""
    site: str
    """Empty for a version."""
    device: str
    """Empty for a group."""
    model: str
    version: str
    stream: str
    e_value: float


class FeedbackView(View, frozen=True, kw_only=True):
    """A batch of labels that was handed in."""

    sha256: str
    new: bool
    rows: int


class AccuracyView(View, frozen=True, kw_only=True):
    """How right a model version was, as far as labels came back."""

    model: str
    version: str
    part: str
    """``site/device``, the start of an hour or day in Unix milliseconds, a group, or empty."""
    n: int
    accuracy: float
    low: float
    high: float
    """Of its 95 % interval."""
    calibration_error: float | None
    """Expected calibration error; None where no label came with a confidence."""
    calibration_error_by_chance: float | None
    gap: dict[str, Any] | None
    """The most and the least right group, and the difference with its interval."""


class EstimateView(View, frozen=True, kw_only=True):
    """How right a model probably is on a device, by its confidences of the last day: without
    labels, and only as long as its calibration did not move."""

    model: str
    version: str
    site: str
    device: str
    n: int
    """Requests."""
    accuracy: float
    low: float
    high: float
    """Of its 95 % interval."""


class RetractionView(View, frozen=True, kw_only=True):
    """Windows that were taken back."""

    id: int
    at_ms: int
    by: str
    why: str
    selection: dict[str, Any]
    windows: int
    rows: int
    devices: int
    undone_ms: int | None
    undone_by: str
    resolution_ms: int = 0
    """When it is made: of the windows that were merged, the longest time that one of those that
    were taken stands for; 0: each was taken as it came …"""
    across: int = 0
    """… and how many were left, since they reach across the span's beginning or end."""


class RebaselineView(View, frozen=True, kw_only=True):
    """Streams that started anew."""

    at_ms: int
    by: str
    streams: int
    closed: int
    """Alarms that were open."""


class EventView(View, frozen=True, kw_only=True):
    """Something that a device told."""

    site: str
    device: str
    kind: str
    boot: str
    time_ms: int
    received_ms: int
    model: str
    message: str
    details: dict[str, str | int | float]


class FaultView(View, frozen=True, kw_only=True):
    """Windows of a device that were not taken, or not judged, for one and the same reason."""

    site: str
    device: str
    model: str
    version: str
    kind: str
    """``refused``: their counts do not fit the bundle, and count nowhere. ``not judged``: they
    count, and their evaluation failed; it is tried again at each start."""
    stream: str
    """The statistic; empty where it is all of them."""
    reason: str
    windows: int
    first_ms: int
    last_ms: int
    """When the collector took in the first and the last one."""


class KeptView(View, frozen=True, kw_only=True):
    """How long what is kept, and what retention did since the collector's start."""

    windows_days: float
    hours_days: float
    days_days: float
    """How long each is kept; 0 is for ever."""
    oldest_ms: dict[str, int]
    """When the oldest came in of the ``windows``, ``hours`` and ``days`` that there are."""
    merged: int
    """Windows that others stand for now."""
    gone: int
    waiting: int
    """Pieces of the pass that is going on; 0 between two."""
    held: bool
    """The clock jumped: nothing is merged or deleted until it has gone on for a day."""
    bytes: int
    free_bytes: int
    """Of an SQLite file, and of it what is free; 0 of another database."""
