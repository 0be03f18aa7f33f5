"""The plots as ECharts options: drift and evidence over time, and the last window beside its two
baselines. Pure."""

from __future__ import annotations

from typing import Any

from edgeml.collector.views import AlarmView, Histogram, Point

# Each can be read on a white card and on a dark one: the browser knows which it is, we do not.
MUTED = "#7a8393"
LINE = "rgba(128, 136, 149, 0.28)"
DRIFT = "#3b82f6"
EVIDENCE = "#8b5cf6"
ALARM = "#dc2626"
BASELINE = "#9ca3af"
PAST = "#d97706"

_TEXT = {"color": MUTED, "fontSize": 11, "fontFamily": "inherit"}


def timeline(points: list[Point], threshold: float, alarms: list[AlarmView]) -> dict[str, Any]:
    """Drift above, evidence below, on one axis of time (the device's clock, UTC)."""
    ordered = any(point.w1 is not None for point in points)
    drift = [
        [point.start_ms, _rounded(point.w1 if ordered else point.excess_js)] for point in points
    ]
    proof = [
        (point.start_ms, float(f"{max(point.evidence, 1.0):.4g}"))
        for point in points
        if point.evidence is not None
    ]
    name = "W1, sd" if ordered else "excess JS, bits"
    span = [point.start_ms for point in points]
    top = max([threshold, *(value for _, value in proof)])
    return {
        "useUTC": True,
        "animation": False,
        "grid": [
            {"left": 52, "right": 16, "top": 26, "height": 82},
            {"left": 52, "right": 16, "top": 146, "height": 68},
        ],
        "tooltip": {"trigger": "axis", "confine": True},
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "xAxis": [
            _time_axis(0, span, labels=False),
            _time_axis(1, span, labels=True),
        ],
        "yAxis": [
            {
                **_axis(0),
                "name": f"drift ({name})",
                "min": 0,
                "splitNumber": 3,
            },
            {
                **_axis(1),
                "name": "evidence (log)",
                "type": "log",
                "min": 1,
                "max": 10 ** len(str(int(top))),
                "splitNumber": 2,
                "axisLabel": {
                    **_TEXT,
                    ":formatter": "v => v >= 1e4 ? '1e' + Math.round(Math.log10(v)) : v",
                },
            },
        ],
        "series": [
            {
                "name": f"drift ({name})",
                "type": "line",
                "data": drift,
                "showSymbol": False,
                "lineStyle": {"width": 2, "color": DRIFT},
                "itemStyle": {"color": DRIFT},
                "areaStyle": {"color": DRIFT, "opacity": 0.08},
                "markArea": _alarm_areas(alarms, points),
            },
            {
                "name": "evidence",
                "type": "line",
                "xAxisIndex": 1,
                "yAxisIndex": 1,
                "data": proof,
                "showSymbol": False,
                "lineStyle": {"width": 2, "color": EVIDENCE},
                "itemStyle": {"color": EVIDENCE},
                "markLine": {
                    "silent": True,
                    "symbol": "none",
                    "data": [{"yAxis": threshold}],
                    "lineStyle": {"color": ALARM, "type": "dashed", "width": 1.5},
                    "label": {
                        "formatter": "alarm",
                        "position": "insideStartTop",
                        "color": ALARM,
                        "fontSize": 11,
                    },
                },
                "markArea": _alarm_areas(alarms, points),
            },
        ],
    }


def histogram(found: Histogram) -> dict[str, Any]:
    """Shares of the training data as bars; of the device's own past and of the last window as lines
    over them."""
    ordered = found.kind == "numeric"
    cells = len(found.centres)
    top = _top(max([*found.baseline, *found.past, *found.window]))
    names = {"training data": found.baseline, "own past": found.past, "last window": found.window}
    labels = list(map(_number, found.centres)) if ordered else found.names
    if ordered:
        labels[0], labels[-1] = "below", "above"
    return {
        "animation": False,
        "grid": {"left": 52, "right": 16, "top": 26, "bottom": 26},
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            ":valueFormatter": "v => (100 * v).toFixed(1) + ' %'",
        },
        "xAxis": {
            "type": "category",
            "data": labels,
            "axisTick": {"show": False},
            "axisLine": {"lineStyle": {"color": LINE}},
            "axisLabel": {**_TEXT, "interval": max(cells // 4, 0) if ordered else "auto"},
        },
        "yAxis": {
            "type": "value",
            "max": top,
            "interval": top / 2,
            "axisLabel": {**_TEXT, ":formatter": "v => (100 * v).toFixed(0) + ' %'"},
            "splitLine": {"lineStyle": {"color": LINE}},
        },
        "legend": {
            "top": 0,
            "right": 8,
            "itemWidth": 12,
            "itemHeight": 8,
            "textStyle": _TEXT,
            "data": [name for name, shares in names.items() if shares],
        },
        "series": [
            {
                "name": "training data",
                "type": "bar",
                "barCategoryGap": "8%",
                "data": [_rounded(v) for v in found.baseline[:cells]],
                "itemStyle": {"color": BASELINE, "opacity": 0.55},
            },
            _outline("own past", found.past[:cells], PAST, ordered=ordered),
            _outline("last window", found.window[:cells], DRIFT, ordered=ordered),
        ],
    }


def _outline(name: str, shares: list[float], colour: str, *, ordered: bool) -> dict[str, Any]:
    """Along a line as steps, of categories as points."""
    past = name == "own past"
    return {
        "name": name,
        "type": "line" if ordered else "scatter",
        "step": "middle" if ordered else False,
        "symbol": "diamond" if past else "circle",
        "symbolSize": 9,
        "showSymbol": not ordered,
        "data": [_rounded(v) for v in shares],
        "lineStyle": {"color": colour, "width": 1.5 if past else 2},
        "itemStyle": {"color": colour},
    }


def _axis(index: int) -> dict[str, Any]:
    return {
        "type": "value",
        "gridIndex": index,
        "nameTextStyle": {**_TEXT, "align": "left", "padding": [0, 0, 0, -44]},
        "nameGap": 12,
        "axisLabel": _TEXT,
        "splitLine": {"lineStyle": {"color": LINE}},
    }


def _time_axis(index: int, span: list[int], *, labels: bool) -> dict[str, Any]:
    ends = {"min": min(span), "max": max(span)} if span else {}
    return {
        **ends,
        "type": "time",
        "gridIndex": index,
        "axisLabel": {**_TEXT, "show": labels, "hideOverlap": True},
        "axisTick": {"show": False},
        "axisLine": {"lineStyle": {"color": LINE}},
    }


def _alarm_areas(alarms: list[AlarmView], points: list[Point]) -> dict[str, Any]:
    """Red from the estimated change to the end of the alarm."""
    last = points[-1].start_ms if points else 0
    ends = [
        (
            alarm.since_ms,
            last if alarm.closed_ms is None else alarm.since_ms + alarm.closed_ms - alarm.opened_ms,
        )
        for alarm in alarms
    ]
    return {
        "silent": True,
        "itemStyle": {"color": ALARM, "opacity": 0.10},
        "data": [[{"xAxis": start}, {"xAxis": max(end, start)}] for start, end in ends],
    }


def _top(share: float) -> float:
    """The end of an axis of shares: some room above, and never above all."""
    return next((end for end in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8) if share <= 0.95 * end), 1.0)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _number(value: float) -> str:
    return f"{value:.3g}"
