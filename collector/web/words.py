"""Numbers and times as people read them. Pure."""

from __future__ import annotations

from datetime import datetime, timezone

from edgeml.telemetry import Building


def ago(time_ms: int | None, now_ms: int) -> str:
    """How long ago: ``just now``, ``42 s ago``, ``5 min ago``, ``3 days ago``, ``never``."""
    if time_ms is None:
        return "never"
    seconds = max(now_ms - time_ms, 0) / 1000
    if seconds < 2:
        return "just now"
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def at(time_ms: int) -> str:
    """A moment in UTC, ``12 Mar, 14:05:09``."""
    moment = datetime.fromtimestamp(time_ms / 1000, timezone.utc)
    return f"{moment.day} {moment:%b, %H:%M:%S}"


def building(found: Building) -> str:
    """How far an artifact is that a device makes ready, when it was last heard of."""
    before = "" if found.expected_s is None else f"; last time it took {found.expected_s:.0f} s"
    return f"{found.stage} {found.artifact} of {found.version} for {found.elapsed_s:.0f} s{before}"


def count(number: int) -> str:
    """``812``, ``12,400``, ``3.2 M``."""
    return f"{number / 1e6:.1f} M" if number >= 1_000_000 else f"{number:,}"


def evidence(value: float) -> str:
    """Evidence and thresholds, which span many orders: ``3.1``, ``48,000``, ``2 × 10⁹``."""
    if value < 10:
        return f"{value:.1f}"
    if value < 1e6:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.0e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa} × 10{raised}"


def probability(p: float) -> str:
    """``0.42``, ``0.003``, ``0.00002``, ``< 10⁻⁶``."""
    if p < 1e-6:
        return "< 10⁻⁶"
    return f"{p:.2f}" if p >= 0.095 else f"{float(f'{p:.1g}'):.6f}".rstrip("0")


def statistic(stream: str) -> tuple[str, str]:
    """``input.image.luma_mean`` → ``("luma mean", "input image")``."""
    *tensor, name = stream.split(".")
    return name.replace("_", " "), " ".join(tensor)


def reason(text: str) -> str:
    """``input.image.luma_mean and 3 more: stuck`` → ``luma mean and 3 more: stuck``; what begins
    with no statistic stays."""
    named, colon, why = text.partition(": ")
    stream, *more = named.split(" ", 1)
    if not colon or stream.count(".") < 2:
        return text
    return f"{' '.join((statistic(stream)[0], *more))}: {why}"
