"""The bounds of a monitor, in one typed place, each with its default and its reason."""

from __future__ import annotations

from math import ceil

import msgspec

from edgeml.collector.drift.peers import slot_length
from edgeml.collector.drift.season import HOUR_MS, SPAN_HOURS, Season
from edgeml.collector.drift.track import TrackPolicy

RUNGS = (1, 4, 16, 64)
SEASONS_SEEN = 2
"""Times that the longest reference reaches over what the season needs: as a stream of five-minute
windows reaches over four weeks."""
LEAST_REFERENCE = 32
"""Merged windows before a rung above the first is armed, at least."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a monitor, each with its reason."""

    reference: int = TrackPolicy().reference
    longest_reference: int = TrackPolicy().longest_reference
    season: Season = TrackPolicy().season
    min_rows: int = 30
    """Rows of a test window at least: fewer say too little about a distribution."""
    min_effect: float = 0.05
    """Excess JS divergence in bits that is worth an alarm: a shift of about half a standard
    deviation of a normal variable (JS ≈ 0.18·δ² bits)."""
    close_after: int = 10
    """Windows that have to look like the reference again before an alarm closes."""

    def windows_of(self, length_ms: int) -> int:
        """Device windows of a length that a test window is made of, at least: so many that the
        longest reference reaches over the season. In shorter ones it never would, and no such
        stream would ever be armed."""
        reach_ms = SEASONS_SEEN * SPAN_HOURS[self.season] * HOUR_MS
        # To the nearest number, so that it does not hang on a window's last milliseconds.
        return max(ceil(reach_ms / self.longest_reference / max(length_ms, 1) - 0.5), 1)

    def test_ms(self, length_ms: int) -> int:
        """How long a test window of such device windows is, at least."""
        return self.windows_of(length_ms) * length_ms

    def slot_ms(self, length_ms: int) -> int:
        """The usual length next to that: peers' test windows are compared by slots of it."""
        return slot_length(self.test_ms(length_ms))

    def of_rung(self, length: int) -> TrackPolicy:
        """What a track of windows merged by ``length`` is bound by."""
        if length == 1:
            least = self.reference
        else:
            least = max(self.reference // length, min(LEAST_REFERENCE, self.reference))
        return TrackPolicy(
            reference=least,
            longest_reference=max(self.longest_reference // length, least),
            season=self.season,
        )
