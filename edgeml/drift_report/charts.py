"""The report's charts as SVG text: a histogram of both sides, and an effect over time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from itertools import pairwise

from edgeml.drift_report.result import Bars, Moment

WIDTH, HEIGHT = 232, 74
APART = 10
"""Room between the bars on the line and those that are apart from it."""
TIME_WIDTH, TIME_HEIGHT = 720, 120
LEFT, BOTTOM = 42, 18


def histogram(bars: Bars) -> str:
    """The baseline as filled bars, the data as a line of steps over them (over categories, as bars
    beside them): two sides that a printer without colours keeps apart."""
    count = len(bars.labels)
    top = max([*bars.baseline, *bars.data, 1e-9])
    gap = APART if 0 < bars.ordered < count else 0
    step = (WIDTH - gap) / max(count, 1)
    floor = HEIGHT - 12

    def x(index: int) -> float:
        return index * step + (gap if index >= bars.ordered > 0 else 0)

    def height(share: float) -> float:
        return share / top * (floor - 2)

    parts = [_open(WIDTH, HEIGHT, "hist")]
    side_by_side = range(bars.ordered, count)
    for index, share in enumerate(bars.baseline):
        width = step * (0.46 if index in side_by_side else 1.0)
        parts.append(_bar("was", x(index), width, floor, height(share), _tip(bars, index)))
    for index in side_by_side:
        left = x(index) + step * 0.48
        tip = _tip(bars, index)
        parts.append(_bar("is", left, step * 0.46, floor, height(bars.data[index]), tip))
    if bars.ordered:
        steps = [f"M{x(0):.1f},{floor}"]
        for index in range(bars.ordered):
            y = floor - height(bars.data[index])
            steps.append(f"V{y:.1f}H{x(index) + step:.1f}")
        parts.append(f'<path class="line" d="{"".join(steps)}V{floor}"/>')
    parts.append(f'<path class="axis" d="M0,{floor}.5H{WIDTH}"/>')
    ends = (0, bars.ordered - 1) if bars.ordered else (0, count - 1)
    parts += _ends(bars, ends, x(ends[1]) + step)
    return "".join(parts) + "</svg>"


def _ends(bars: Bars, ends: tuple[int, int], right: float) -> list[str]:
    first, last = (_cut(bars.labels[index]) for index in ends)
    found = [f'<text x="0" y="{HEIGHT - 1}">{escape(first)}</text>']
    if ends[0] != ends[1]:
        text = f'<text x="{right:.1f}" y="{HEIGHT - 1}" class="end">{escape(last)}</text>'
        found.append(text)
    return found


def _cut(label: str) -> str:
    return label if len(label) <= 14 else label[:13] + "…"


def _tip(bars: Bars, index: int) -> str:
    shares = f"{100 * bars.baseline[index]:.3g} % → {100 * bars.data[index]:.3g} %"
    return f"{bars.labels[index]}: {shares}"


def _bar(look: str, x: float, width: float, floor: float, height: float, tip: str) -> str:
    drawn = max(height, 0.0)
    return (
        f'<rect class="{look}" x="{x:.1f}" y="{floor - drawn:.1f}" width="{max(width, 0.5):.1f}" '
        f'height="{drawn:.1f}"><title>{escape(tip)}</title></rect>'
    )


def timeline(moments: Sequence[Moment], *, least: float) -> str:
    """The effect of each window of time, with the least that matters as a dashed line; windows
    without rows are gaps."""
    first, last = moments[0].start_ms, moments[-1].start_ms
    top = max([least * 1.3, *(moment.effect for moment in moments)]) * 1.05
    floor = TIME_HEIGHT - BOTTOM
    span = max(last - first, 1)

    low = least / top * (floor - 8)  # too near the axis for a label of its own below it?

    def x(moment: Moment) -> float:
        return LEFT + (moment.start_ms - first) / span * (TIME_WIDTH - LEFT - 6)

    def y(effect: float) -> float:
        return floor - effect / top * (floor - 8)

    usual = min((b.start_ms - a.start_ms for a, b in pairwise(moments)), default=0)
    path = ""
    for before, moment in zip([None, *moments], moments, strict=False):
        joined = before is not None and moment.start_ms - before.start_ms <= 1.5 * usual
        path += f"{'L' if joined else 'M'}{x(moment):.1f},{y(moment.effect):.1f}"
    dots = "".join(
        f'<circle cx="{x(moment):.1f}" cy="{y(moment.effect):.1f}" r="'
        f'{2.2 if moment.effect >= least else 1.1}" '
        f'class="{"over" if moment.effect >= least else "under"}">'
        f"<title>{moment_words(moment)}</title></circle>"
        for moment in moments
    )
    return "".join(
        [
            _open(TIME_WIDTH, TIME_HEIGHT, "time"),
            f'<path class="axis" d="M{LEFT},{floor}.5H{TIME_WIDTH}"/>',
            f'<path class="least" d="M{LEFT},{y(least):.1f}H{TIME_WIDTH}"/>',
            f'<text x="{LEFT - 5}" y="{y(least) + 3:.1f}" class="end">{least:g}</text>',
            f'<text x="{LEFT - 5}" y="12" class="end">{top:.2g}</text>',
            f'<text x="{LEFT - 5}" y="{floor + 1}" class="end">0</text>' if low > 12 else "",
            f'<path class="line" d="{path}"/>',
            dots,
            f'<text x="{LEFT}" y="{TIME_HEIGHT - 3}">{moment_name(first)}</text>',
            f'<text x="{TIME_WIDTH}" y="{TIME_HEIGHT - 3}" class="end">{moment_name(last)}</text>',
            "</svg>",
        ]
    )


def moment_name(start_ms: int) -> str:
    """A time as people write it, in UTC."""
    try:
        return datetime.fromtimestamp(start_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):  # a year that the calendar does not have
        return f"{start_ms / 1000:.6g} s"


def moment_words(moment: Moment) -> str:
    """What a window shows."""
    size = f"{moment.effect:.3f} bits"
    w1 = "" if moment.w1 is None else f", W1 {moment.w1:.2f} sd"
    return f"{moment_name(moment.start_ms)}: {size}{w1}, {moment.n:,} rows"


def _open(width: int, height: int, look: str) -> str:
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="{look}" {box} role="img" xmlns="http://www.w3.org/2000/svg">'
