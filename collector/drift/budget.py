"""From the fleet's budget of false alarms to a threshold for each stream.

The budget is linear. With thresholds c_s = T/(B·w_s) and Σ w_s = 1, where T is the number of
windows that a stream sees in the budget's period and B the false alarms allowed in it, each stream
expects at most T/c_s = B·w_s of them, and expectation adds under any dependence between streams:
the whole fleet expects at most B. Here all streams weigh the same, w_s = 1/S.
"""

from __future__ import annotations

import msgspec

MS_A_DAY = 86_400_000


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

    def threshold(self, *, streams: int, duration_ms: int) -> float:
        """c, the same for each of ``streams`` streams that share the budget."""
        return self.windows(duration_ms) * max(streams, 1) / self.false_alarms

    def describe(self) -> str:
        """The promise in words."""
        alarms = f"{self.false_alarms:g} expected false alarm" + "s" * (self.false_alarms != 1)
        period = f"{self.per_windows:,} windows" if self.per_windows else f"{self.per_days:g} days"
        return f"at most {alarms} in {period} for the whole fleet"
