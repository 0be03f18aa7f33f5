"""The fleet page: incidents on top, then the budget, every device in a row, and the groups."""

from __future__ import annotations

from html import escape
from typing import Any

from nicegui import run, ui

from edgeml.collector.api.routes import Backend
from edgeml.collector.drift.blame import Incident
from edgeml.collector.views import (
    BudgetView,
    BundleView,
    DeviceView,
    DriftingView,
    GroupView,
    View,
)
from edgeml.collector.web.frame import badge, page
from edgeml.collector.web.incidents import (
    link,
    show_budget,
    show_groups,
    show_incidents,
    show_stuck,
)
from edgeml.collector.web.words import ago, count, statistic

REFRESH_S = 2.0


class FleetData(View, frozen=True, kw_only=True):
    """All that the page shows."""

    now_ms: int
    devices: list[DeviceView]
    incidents: list[Incident]
    groups: list[GroupView]
    budget: BudgetView
    drifting: list[DriftingView]
    bundles: list[BundleView]
    health: dict[str, Any]
    counters: dict[str, Any]


def read(backend: Backend) -> FleetData:
    """Read it, in a thread that may wait."""
    now_ms = backend.now_ms()
    return FleetData(
        now_ms=now_ms,
        devices=backend.reader.devices(now_ms=now_ms),
        incidents=backend.fleet.incidents(now_ms=now_ms),
        groups=backend.fleet.groups(),
        budget=backend.fleet.budget(now_ms=now_ms),
        drifting=backend.fleet.drifting(),
        bundles=backend.reader.bundles(),
        health=backend.health(),
        counters=backend.counters(),
    )


async def fleet_page(backend: Backend) -> None:
    """Build the page, and keep it fresh."""
    data = await run.io_bound(read, backend)
    if data is None:  # the collector is stopping
        return
    with page("edgeml fleet", data.health):

        @ui.refreshable
        def content(shown: FleetData) -> None:
            _summary(shown)
            if shown.devices:
                show_incidents(shown.incidents, shown.now_ms)
                show_stuck(shown.devices)
                show_budget(shown.budget, shown.drifting)
                _devices(shown)
                show_groups(shown.groups)
            else:
                _nobody(shown)
            _missing_bundles(shown)

        content(data)

        async def refresh() -> None:
            if (newer := await run.io_bound(read, backend)) is not None:
                content.refresh(newer)

        ui.timer(REFRESH_S, refresh, immediate=False)


def _summary(data: FleetData) -> None:
    opened = sum(incident.open for incident in data.incidents)
    streams = sum(device.streams for device in data.devices)
    armed = sum(device.armed for device in data.devices)
    online = sum(device.online for device in data.devices)
    refused = sum(data.counters["refused"].values())
    figures = (
        ("Devices online", f"{online} of {len(data.devices)}", ""),
        ("Open incidents", str(opened), "alarm" if opened else ""),
        ("Statistics armed", f"{armed} of {streams}", ""),
        ("Windows since start", count(data.counters["accepted"]), ""),
        ("Messages refused", count(refused), ""),
    )
    with ui.element("div").style(
        "display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:16px;width:100%"
    ):
        for name, figure, style in figures:
            with ui.element("div").classes("card"):
                ui.label(name).classes("muted small")
                ui.label(figure).classes(f"figure {style}")


def _devices(data: FleetData) -> None:
    ranked = sorted(data.devices, key=lambda d: (-d.alarms, d.site, d.device))
    heads = (
        *("State", "Device", "Last contact", "Model", "Artifact"),
        *('<span class="right">Requests</span>', "Nearest to an alarm"),
    )
    rows = "".join(_row(device, data.now_ms) for device in ranked)
    with ui.element("div").classes("card").style("overflow-x:auto"):
        head = "".join(f"<th>{name}</th>" for name in heads)
        ui.html(
            f'<table class="fleet"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>',
            sanitize=False,
        )


def _row(device: DeviceView, now_ms: int) -> str:
    models = "<br>".join(f"{escape(m.name)} {escape(m.version)}" for m in device.models) or "–"
    artifacts = "<br>".join(escape(m.artifact) or "–" for m in device.models) or "–"
    served = device.outcomes.get("served", 0)
    others = ", ".join(
        f"{count(number)} {escape(name)}"
        for name, number in sorted(device.outcomes.items())
        if name != "served" and number
    )
    trouble = [f"{m.name}: {m.error}" for m in device.models if m.error]
    note = escape(
        "; ".join(trouble) or (device.reason if device.state in {"not armed", "stuck"} else "")
    )
    online = "online" if device.online else "offline"
    offline = "" if device.online else ' <span class="muted">· offline</span>'
    below = f'<div class="muted small">{others}</div>' if others else ""
    return (
        f'<tr data-device="{escape(device.device)}"><td>{badge(device.state)}</td>'
        f'<td><a href="{link(device.site, device.device)}">{escape(device.device)}</a>'
        f'<div class="muted small">{escape(device.site)}</div></td>'
        f'<td><span class="dot {"on" if device.online else "off"}" title="{online}"></span> '
        f"{ago(device.last_seen_ms, now_ms)}"
        f"{offline}</td>"
        f"<td>{models}</td><td>{artifacts}</td>"
        f'<td class="number">{count(served)} served'
        f"{below}</td>"
        f"<td>{_nearest(device)}<div class='muted small'>{note}</div></td></tr>"
    )


def _nearest(device: DeviceView) -> str:
    if device.worst_relative_evidence is None:
        return '<span class="muted">–</span>'
    name, tensor = statistic(device.worst)
    share = min(max(device.worst_relative_evidence, 0.0), 1.0)
    style = "alarm" if device.alarms else ""
    return (
        f'{escape(name)} <span class="muted small">{escape(tensor)}</span>'
        f'<div class="bar" style="margin-top:5px" title="evidence on a logarithmic scale, '
        f'full at the alarm"><div class="{style}" style="width:{100 * share:.0f}%"></div></div>'
    )


def _nobody(data: FleetData) -> None:
    with ui.element("div").classes("card"):
        ui.label("No device has reported yet.").classes("title")
        ui.label("Start one against this broker, and it appears here within a window:").classes(
            "muted"
        ).style("margin:4px 0 12px")
        address = escape(data.health["broker"]["address"])
        ui.html(
            f'<code class="line">edgeml agent run --bundle MODEL.edgeml --broker {address} '
            "--site SITE --device NAME</code>",
            sanitize=False,
        )


def _missing_bundles(data: FleetData) -> None:
    missing = [bundle for bundle in data.bundles if not bundle.known]
    if not missing:
        return
    with ui.element("div").classes("card"):
        ui.label("Windows wait for their bundle").classes("title")
        ui.label(
            "They are stored, and compared with the training data as soon as the bundle is here."
        ).classes("muted small")
        for bundle in missing:
            ui.html(
                f'<div style="margin-top:10px">{escape(bundle.name)} {escape(bundle.version)} '
                f'<span class="muted small">{bundle.sha256[:12]}… · {count(bundle.waiting)} '
                "windows</span></div>"
                '<code class="line" style="margin-top:6px">edgeml fleet add '
                f"{escape(bundle.name)}-{escape(bundle.version)}.edgeml</code>",
                sanitize=False,
            )
