"""From the fleet's budget of false alarms to a threshold for each stream.

The budget is linear. With thresholds c_s = T/(B·w_s) and Σ w_s = 1, where T is the number of
windows that a stream sees in the budget's period and B the false alarms allowed in it, each stream
expects at most T/c_s = B·w_s of them, and expectation adds under any dependence between streams:
the whole fleet expects at most B. No independence is assumed, and nothing is lost by correlation.

The weights: half of the budget goes to the devices' own streams, the rest to what sites, model
versions and the whole fleet have in common. There are few of those, and they see common drift
soonest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

MS_A_DAY = 86_400_000

Scope = Literal["device", "site", "version", "fleet"]
SHARES: Mapping[Scope, float] = {"device": 0.5, "site": 0.2, "version": 0.1, "fleet": 0.2}
"""Of the budget, as long as there is a stream of that scope."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``false_alarms`` expected, for the whole fleet, in the period."""

    false_alarms: float = 1.0
    per_days: float = 365.0
    per_windows: int = 0
    """The period in windows of each stream instead of in days; 0 means days."""

    def windows(self, duration_ms: int) -> float:
        """T: windows of this length that a stream closes in the period."""
        if self.per_windows:
            return float(self.per_windows)
        return max(self.per_days * MS_A_DAY / max(duration_ms, 1), 1.0)

    def threshold(
        self, scope: Scope = "device", *, streams: Mapping[Scope, int], duration_ms: int
    ) -> float:
        """c of a stream.

        Args:
            scope: whose the stream is.
            streams: how many there are of each scope; they share that scope's part evenly.
            duration_ms: of a window.
        """
        alike = max(streams.get(scope, 0), 1)
        shared = sum(share for name, share in SHARES.items() if name == scope or streams.get(name))
        weight = SHARES[scope] / shared / alike
        return self.windows(duration_ms) / (self.false_alarms * weight)

    def describe(self) -> str:
        """The promise in words."""
        alarms = f"{self.false_alarms:g} expected false alarm" + "s" * (self.false_alarms != 1)
        period = f"{self.per_windows:,} windows" if self.per_windows else f"{self.per_days:g} days"
        return f"at most {alarms} in {period} for the whole fleet"
