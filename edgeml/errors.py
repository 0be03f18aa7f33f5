"""The exceptions that edgeml raises on purpose, and the shape of their message.

Every one says what was found, what was expected and what to do about it. The command line prints
that as one paragraph; anything that is not an :class:`EdgemlError` is a fault of ours and shows as
such.
"""

from __future__ import annotations


class EdgemlError(Exception):
    """Something that a person can act on.

    Args:
        found: what is wrong, with the names and numbers that were seen.
        expected: what would have been right; empty where ``found`` already says it.
        remedy: what to do next; empty only where nothing can be done.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str = "", remedy: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.found]
        if self.expected:
            parts.append(f"Expected {self.expected}")
        if self.remedy:
            parts.append(self.remedy)
        return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts)


class UsageError(EdgemlError):
    """The command, its options or a configuration file were given wrongly."""

    exit_code = 2


class SourceError(EdgemlError):
    """A model or the data beside it cannot be used as given."""


class RefusedError(EdgemlError):
    """A target cannot make or run this model."""


class DoesNotRunError(RefusedError):
    """An artifact that was made, and that its runtime does not open or run."""


class BundleError(EdgemlError):
    """A bundle is damaged, forged, or of a kind that this version does not read."""


class StatisticsError(EdgemlError):
    """Counts or grids that do not belong together."""


class TelemetryError(EdgemlError):
    """A topic or a message that does not keep to the telemetry contract."""


class ToolchainError(EdgemlError):
    """A toolchain could not be made, or its program died."""


class AgentError(EdgemlError):
    """The device agent cannot do what it was told."""


class CollectorError(EdgemlError):
    """The collector cannot do what it was told."""
