"""The bounds of a monitor, in one typed place, each with its default and its reason."""

from __future__ import annotations

import msgspec

from edgeml.collector.drift.season import Season
from edgeml.collector.drift.track import TrackPolicy

RUNGS = (1, 4, 16, 64)
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
