"""The fleet page: incidents on top, then the budget, the devices, and what sites have in common."""

from __future__ import annotations

import time
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
from edgeml.collector.web.frame import page
from edgeml.collector.web.incidents import (
    show_budget,
    show_groups,
    show_incidents,
    show_stuck,
)
from edgeml.collector.web.table import DeviceTable
from edgeml.collector.web.words import count

REFRESH_S = 2.0
RESTS = 10
"""A large fleet takes longer to read: so many times that long is waited before it is read again."""


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
        devices=backend.reader.standings(),
        incidents=backend.fleet.incidents(now_ms=now_ms),
        groups=backend.fleet.groups(),
        budget=backend.fleet.budget(now_ms=now_ms),
        drifting=backend.fleet.drifting(now_ms=now_ms),
        bundles=backend.reader.bundles(),
        health=backend.health(),
        counters=backend.counters(),
    )


async def fleet_page(backend: Backend) -> None:
    """Build the page, and keep it fresh."""
    began = time.monotonic()
    data = await run.io_bound(read, backend)
    if data is None:  # the collector is stopping
        return
    with page("edgeml fleet", data.health):

        @ui.refreshable
        def above(shown: FleetData) -> None:
            _summary(shown)
            if shown.devices:
                show_incidents(shown.incidents, shown.now_ms)
                show_stuck(shown.devices)
                show_budget(shown.budget, shown.drifting)
            else:
                _nobody(shown)

        @ui.refreshable
        def below(shown: FleetData) -> None:
            show_groups(shown.groups)
            _missing_bundles(shown)

        above(data)
        table = DeviceTable(backend.reader)
        below(data)

        async def show(shown: FleetData) -> None:
            changed = [incident for incident in shown.incidents if incident.open]
            await table.show(shown.devices, changed, shown.now_ms)
            timer.interval = max(REFRESH_S, RESTS * (time.monotonic() - began))

        async def refresh() -> None:
            nonlocal began
            began = time.monotonic()
            if (newer := await run.io_bound(read, backend)) is not None:
                above.refresh(newer)
                below.refresh(newer)
                await show(newer)

        timer = ui.timer(REFRESH_S, refresh, immediate=False)
        await show(data)


def _summary(data: FleetData) -> None:
    opened = sum(incident.open for incident in data.incidents)
    streams = sum(device.streams for device in data.devices)
    armed = sum(device.armed for device in data.devices)
    online = sum(device.online for device in data.devices)
    refused = sum(data.counters["refused"].values())
    unjudged = data.counters["unjudged"]
    figures = (
        ("Devices online", f"{online:,} of {len(data.devices):,}", ""),
        ("Open incidents", count(opened), "alarm" if opened else ""),
        ("Statistics armed", f"{armed:,} of {streams:,}", ""),
        ("Windows since start", count(data.counters["accepted"]), ""),
        ("Messages refused", count(refused), ""),
        *([("Windows not judged", count(unjudged), "alarm")] if unjudged else []),
    )
    with ui.element("div").classes("figures"):
        for name, figure, style in figures:
            with ui.element("div").classes("card"):
                ui.label(name).classes("muted small")
                ui.label(figure).classes(f"figure {style}")


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
