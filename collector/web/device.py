"""A device's page: what it is, what it runs, and the drift of each statistic over time."""

from __future__ import annotations

from html import escape
from typing import Any, cast

from nicegui import run, ui

from edgeml.collector.api.routes import Backend
from edgeml.collector.store.selection import StreamSelection
from edgeml.collector.views import (
    AlarmView,
    DeviceView,
    EstimateView,
    EventView,
    FaultView,
    Histogram,
    Point,
    StreamView,
    View,
)
from edgeml.collector.web import charts
from edgeml.collector.web.frame import badge, page
from edgeml.collector.web.words import (
    ago,
    at,
    building,
    count,
    evidence,
    probability,
    reason,
    statistic,
)

REFRESH_S = 2.0
POINTS = 300
EVENTS = 8
FAULTS = 8
NEW_SHOWN = 4


class StreamData(View, frozen=True, kw_only=True):
    """What the card of one statistic shows."""

    stream: StreamView
    points: list[Point]
    histogram: Histogram | None
    alarms: list[AlarmView]


class DeviceData(View, frozen=True, kw_only=True):
    """All that the page shows."""

    now_ms: int
    device: DeviceView | None
    streams: list[StreamData]
    events: list[EventView]
    faults: list[FaultView]
    estimates: list[EstimateView]
    health: dict[str, Any]


def read(backend: Backend, site: str, device: str) -> DeviceData:
    """Read it, in a thread that may wait."""
    now_ms = backend.now_ms()
    reader = backend.reader
    found = reader.device(site, device, now_ms=now_ms)
    streams = reader.streams(site=site, device=device) if found else []
    if found:
        current = {(m.name, m.version, m.artifact) for m in found.models}
        streams = [s for s in streams if (s.model, s.version, s.artifact) in current] or streams
    alarms = reader.alarms(site=site, device=device)
    chosen = StreamSelection(site=site, device=device)
    return DeviceData(
        now_ms=now_ms,
        device=found,
        streams=[
            StreamData(
                stream=stream,
                points=reader.history(stream.id, limit=POINTS),
                histogram=reader.histogram(stream.id),
                alarms=[
                    a
                    for a in alarms
                    if (a.stream, a.model, a.version, a.artifact)
                    == (stream.stream, stream.model, stream.version, stream.artifact)
                ],
            )
            for stream in streams
        ],
        events=reader.events(site=site, device=device, limit=EVENTS),
        faults=reader.faults(site=site, device=device)[:FAULTS],
        estimates=backend.fleet.estimates(chosen) if found else [],
        health=backend.health(),
    )


async def device_page(backend: Backend, site: str, device: str) -> None:
    """Build the page, and keep it fresh."""
    data = await run.io_bound(read, backend, site, device)
    if data is None:  # the collector is stopping
        return
    with page(f"{device} · edgeml fleet", data.health):
        if data.device is None:
            with ui.element("div").classes("card"):
                ui.label(f"No device {device} of site {site} has reported.").classes("title")
                ui.html('<a class="plain" href="/">All devices</a>', sanitize=False)
            return
        head = ui.html("", sanitize=False).style("width:100%")
        faults = ui.html("", sanitize=False).style("width:100%")
        cards: dict[int, _Card] = {}
        over = ui.label("").classes("muted")
        grid = ui.element("div").classes("statistics")
        events = ui.html("", sanitize=False).style("width:100%")

        def show(shown: DeviceData) -> None:
            if shown.device is not None:
                head.set_content(_head(shown.device, shown.estimates, shown.now_ms))
            faults.set_content(_faults(shown.faults, shown.now_ms))
            faults.set_visibility(bool(shown.faults))
            over.set_text(_over(shown))
            over.set_visibility(bool(over.text))
            grid.classes(replace="statistics over" if over.text else "statistics")
            for stream in sorted(shown.streams, key=_calm):
                if stream.stream.id not in cards:
                    with grid:
                        cards[stream.stream.id] = _Card(stream)
                cards[stream.stream.id].show(stream)
            events.set_content(_events(shown.events, shown.now_ms))

        show(data)

        async def refresh() -> None:
            if (newer := await run.io_bound(read, backend, site, device)) is not None:
                show(newer)

        ui.timer(REFRESH_S, refresh, immediate=False)


def _calm(data: StreamData) -> tuple[bool, bool]:
    """Alarms first, then what is stuck; the others as they come."""
    return data.stream.phase != "alarm", not data.stream.stuck


def _over(data: DeviceData) -> str:
    """What cards of a device mean that nothing is taken of any more; empty of another one."""
    if data.device is None or data.device.state != "refused" or not data.streams:
        return ""
    last = max((p.start_ms for s in data.streams for p in s.points), default=None)
    until = "" if last is None else f", until {at(last)} UTC"
    return f"Below is what was last taken of it{until}. It says nothing of how it is now."


class _Card:
    """One statistic. Charts stay, only their data change."""

    def __init__(self, data: StreamData) -> None:
        self._last = -1
        with ui.element("div").classes("card") as self._card:
            self._title = ui.html("", sanitize=False)
            self._timeline = ui.echart(_timeline(data)).style("height:244px;width:100%")
            self._histogram = ui.echart({"series": []}).style("height:150px;width:100%")

    def show(self, data: StreamData) -> None:
        """Show newer data."""
        self._title.set_content(_stream_head(data))
        in_alarm = data.stream.phase == "alarm"
        self._card.classes(replace="card drifted" if in_alarm else "card")
        newest = data.points[-1].index if data.points else -1
        if newest == self._last:
            return
        self._last = newest
        _replace(self._timeline, _timeline(data))
        if data.histogram is not None:
            _replace(self._histogram, charts.histogram(data.histogram))


def _replace(chart: ui.echart, options: dict[str, Any]) -> None:
    shown = cast("dict[str, Any]", cast("Any", chart).options)
    shown.clear()
    shown.update(options)
    chart.update()


def _timeline(data: StreamData) -> dict[str, Any]:
    return charts.timeline(data.points, max(data.stream.threshold, 1.0), data.alarms)


def _head(device: DeviceView, estimates: list[EstimateView], now_ms: int) -> str:
    models = "".join(
        f"<div><span class='muted small'>Model</span><br><b>{escape(m.name)} {escape(m.version)}"
        f"</b> <span class='muted small'>{escape(m.artifact)}"
        f"{' · ' + escape(m.phase) if m.phase else ''}</span>"
        f"{f'<div class=error>{escape(m.error)}</div>' if m.error else ''}"
        f"{f'<div class=small>{escape(building(m.building))}</div>' if m.building else ''}</div>"
        for m in device.models
    )
    memory = f", {device.memory_mb / 1000:.1f} GB" if device.memory_mb else ""
    cores = f", {device.cores} cores" if device.cores else ""
    machine = f"{escape(device.machine)}{cores}{memory}" if device.machine else "–"
    outcomes = sorted(device.outcomes.items(), key=lambda item: -item[1])
    requests = ", ".join(f"{count(n)} {escape(name)}" for name, n in outcomes if n)
    online = "online" if device.online else "offline"
    facts = (
        ("Contact", f"{online}, heard {ago(device.last_seen_ms, now_ms)}"),
        ("Machine", f"{machine} <span class='muted small'>{escape(device.system)}</span>"),
        ("Requests", requests or "–"),
        ("Statistics", f"{device.armed} of {device.streams} armed"),
        *_accuracy(device, estimates),
    )
    cells = "".join(
        f"<div><span class='muted small'>{name}</span><br>{value}</div>" for name, value in facts
    )
    why = reason(device.reason) if device.state in {"not armed", "unknown", "stuck"} else ""
    return (
        "<div class='small' style='margin-bottom:8px'><a class='plain' href='/'>← All devices</a>"
        f"</div><div class='card{' alarm' if device.alarms else ''}'>"
        f"<div style='display:flex;gap:12px;align-items:center;flex-wrap:wrap'>"
        f"<span style='font-size:22px;font-weight:650'>{escape(device.device)}</span>"
        f"<span class='muted'>in {escape(device.site)}</span>{badge(device.state)}"
        f"<span class='muted small'>{escape(why)}</span></div>"
        "<div style='display:flex;gap:14px 36px;flex-wrap:wrap;margin-top:14px'>"
        f"{models}{cells}</div></div>"
    )


def _accuracy(device: DeviceView, estimates: list[EstimateView]) -> list[tuple[str, str]]:
    """What the confidences of the last day say of what it runs now."""
    running = {(model.name, model.version) for model in device.models}
    several = len(running) > 1
    return [
        (
            f"Accuracy, estimated{f', {escape(e.model)} {escape(e.version)}' if several else ''}",
            "<span title='from the confidences of its last day, without labels: right as long as "
            f"confidence means what it meant'>{e.accuracy:.3f} <span class='muted small'>"
            f"{e.low:.3f} to {e.high:.3f}, {count(e.n)} requests</span></span>",
        )
        for e in estimates
        if (e.model, e.version) in running
    ]


def _stream_head(data: StreamData) -> str:
    stream, last = data.stream, data.stream.last
    name, tensor = statistic(stream.stream)
    note = ""
    if stream.stuck:
        note = escape(stream.stuck)
    elif stream.phase == "alarm" and stream.alarm_ms is not None:
        note = f"since {at(stream.alarm_ms)} UTC"
    elif not stream.armed:
        note = escape(stream.reason)
    if stream.unjudged:
        note += f"{' · ' if note else ''}{_windows(stream.unjudged)} not judged, see above"
    measures = ""
    if last is not None:
        sizes = _two_baselines(data.histogram)
        if last["w1"] is not None:
            sizes += [f"W1 <b>{last['w1']:.2f}</b> sd", f"KS <b>{last['ks']:.2f}</b>"]
        sizes += [
            f"χ² <b>{last['chi2']:.1f}</b> (dof {last['dof']}), p <b>{probability(last['p'])}</b>",
            f"<b>{count(last['n'])}</b> rows of {count(last['m'])}",
            f"evidence <b>{evidence(stream.evidence)}</b> of {evidence(stream.threshold)}",
            *new_values(data.histogram),
        ]
        title = f"smallest effect w that this test finds: {last['detectable']:.2f}; seen: "
        title += f"{last['effect']:.2f}"
        measures = f"<div class='measures' title='{title}'>"
        measures += "".join(f"<span>{size}</span>" for size in sizes) + "</div>"
    return (
        "<div style='display:flex;gap:10px;align-items:center;flex-wrap:wrap'>"
        f"<span class='title'>{escape(name)}</span>"
        f"<span class='muted small'>{escape(tensor)}</span>"
        f"{badge('stuck' if stream.stuck else stream.phase)}"
        f"<span class='muted small'>{note}</span></div>{measures}"
    )


def _two_baselines(found: Histogram | None) -> list[str]:
    """How far the last window lies from the training data, and from the device's own past."""
    if found is None:
        return []
    vectors = found.kind == "vector"
    unit, measure = ("", "MMD²") if vectors else (" bits", "excess JS divergence")
    skew = "–" if found.skew is None else f"<b>{found.skew:.3f}</b>{unit}"
    change = "not known yet" if found.change is None else f"<b>{found.change:.3f}</b>{unit}"
    return [
        f"<span title='skew: {measure}'>from training {skew}</span>",
        f"<span title='change: {measure}'>from own past {change}</span>",
    ]


def new_values(found: Histogram | None) -> list[str]:
    """Categories that the training data did not have, the most frequent first."""
    if found is None or not found.new:
        return []
    shown = [f"<b>{escape(name)}</b> (≤ {count(n)} rows)" for name, n in found.new.items()]
    more = f" and {len(shown) - NEW_SHOWN} more" if len(shown) > NEW_SHOWN else ""
    return [f"<span title='lately'>new: {', '.join(shown[:NEW_SHOWN])}{more}</span>"]


def _events(events: list[EventView], now_ms: int) -> str:
    if not events:
        return ""
    rows = "".join(
        f"<tr><td class='muted' style='white-space:nowrap'>{ago(e.received_ms, now_ms)}</td>"
        f"<td><b>{escape(e.kind)}</b></td><td>{escape(e.model)}</td><td>{escape(e.message)}</td></tr>"
        for e in events
    )
    table = f"<table class='fleet'>{rows}</table>"
    return f"<div class='card'><div class='title'>Events</div>{table}</div>"


def _faults(faults: list[FaultView], now_ms: int) -> str:
    """What was not taken, and what could not be judged; nothing where all was."""
    if not faults:
        return ""
    rows = "".join(
        f"<tr><td style='white-space:nowrap'><b>{_windows(f.windows)}</b></td>"
        f"<td style='white-space:nowrap'>{escape(f.kind)}</td>"
        f"<td style='white-space:nowrap'>{escape(f'{f.model} {f.version}')}</td>"
        f"<td>{escape(' · '.join(filter(None, (f.stream, f.reason))))}</td>"
        f"<td class='muted' style='white-space:nowrap'>{ago(f.last_ms, now_ms)}</td></tr>"
        for f in faults
    )
    return (
        "<div class='card'><div class='title'>Windows refused or not judged</div>"
        "<div class='muted small'>What is refused counts nowhere. What is not judged is counted, "
        "and judged again when the collector starts next.</div>"
        f"<table class='fleet'>{rows}</table></div>"
    )


def _windows(number: int) -> str:
    return f"{count(number)} window{'s' * (number != 1)}"
