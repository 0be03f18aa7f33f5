"""The baseline of a bundle as the evaluator has it: decoded once, shared by all devices."""

from __future__ import annotations

from edgeml.collector.drift.scores import Scorers
from edgeml.statistics import Baseline, Stream


class Known:
    """The baseline of a bundle; one without statistics has no streams and no hash."""

    def __init__(self, baseline: Baseline | None = None) -> None:
        self.hash = baseline.hash if baseline else ""
        self.streams: dict[str, Stream] = baseline.streams if baseline else {}
        self.counts = {name: stream.baseline() for name, stream in self.streams.items()}
        """One object a stream, that all its devices share …"""
        self.scorers = {
            name: Scorers(stream.grid, self.counts[name]) for name, stream in self.streams.items()
        }
        """… and what is made of it."""
