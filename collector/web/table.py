"""The fleet's devices in a table: trouble first, so many at a time, and found by what they are
called or how they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any, cast

from nicegui import run, ui

from edgeml.collector.drift.blame import Incident
from edgeml.collector.store.queries import Reader
from edgeml.collector.views import DeviceView
from edgeml.collector.web.frame import STATES, badge
from edgeml.collector.web.incidents import link
from edgeml.collector.web.words import ago, count, reason, statistic

A_PAGE = 25
FEW = 12
"""Devices that one looks over without searching."""
_TROUBLE = ("alarm", "refused", "stuck", "unknown", "not armed", "armed")
"""States as they are sorted. Of equal ones those that are off line come first, then those nearest
to an alarm."""

_EXPLAINED = {"not armed", "stuck", "refused"}


def ranked(devices: Sequence[DeviceView]) -> list[DeviceView]:
    """Trouble first."""
    return sorted(devices, key=_trouble)


def _trouble(device: DeviceView) -> tuple[Any, ...]:
    nearest = -(device.worst_relative_evidence or 0.0)
    state = _TROUBLE.index(device.state)
    return state, -device.alarms, device.online, nearest, device.site, device.device


def matching(devices: Sequence[DeviceView], *, text: str, state: str) -> list[DeviceView]:
    """Those in a state (of any, where it is empty) that each word of a text is in the site, name,
    model, artifact or agent of."""
    words = text.lower().split()
    return [
        device
        for device in devices
        if (not state or device.state == state) and all(word in _names(device) for word in words)
    ]


def _names(device: DeviceView) -> str:
    models = " ".join(f"{m.name} {m.version} {m.artifact}" for m in device.models)
    online = "online" if device.online else "offline"
    return f"{device.site}/{device.device} {models} {device.agent} {online}".lower()


class DeviceTable:
    """The card with the table, what is looked for, and the page that one is on. These stay, only
    the rows change.

    Args:
        reader: of the devices' requests.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._devices: list[DeviceView] = []
        self._changed: Sequence[Incident] = ()
        self._now_ms = 0
        self._first = 0
        with ui.element("div").classes("card").style("overflow-x:auto") as self._card:
            with (
                ui.row()
                .classes("items-center")
                .style("width:100%;gap:16px;margin-bottom:12px") as self._controls
            ):
                self._text = ui.input(placeholder="Site, device, model …", on_change=self._search)
                self._text.props("dense outlined clearable debounce=300").style("width:260px")
                self._state = ui.select({"": "all states"}, value="", on_change=self._search)
                self._state.props("dense outlined").style("min-width:180px")
                ui.space()
                self._where = ui.label("").classes("muted small")
                self._back = ui.button(icon="chevron_left", on_click=lambda: self._turn(-1))
                self._on = ui.button(icon="chevron_right", on_click=lambda: self._turn(1))
                for button in (self._back, self._on):
                    button.props("flat dense round")
            self._rows = ui.html("", sanitize=False).style("width:100%")

    async def show(
        self, devices: Sequence[DeviceView], changed: Sequence[Incident], now_ms: int
    ) -> None:
        """Show the fleet as it is now, and of whom an open incident tells."""
        self._devices, self._changed, self._now_ms = ranked(devices), changed, now_ms
        self._card.set_visibility(bool(devices))
        self._controls.set_visibility(len(devices) > FEW)
        states = Counter(device.state for device in devices)
        names = {state: f"{STATES[state][1]} ({states[state]:,})" for state in _TROUBLE}
        options: dict[str, str] = {"": f"all states ({len(devices):,})", **names}
        cast("Any", self._state).set_options(options)
        await self._draw()

    async def _search(self) -> None:
        self._first = 0
        await self._draw()

    async def _turn(self, pages: int) -> None:
        self._first += pages * A_PAGE
        await self._draw()

    async def _draw(self) -> None:
        found = matching(self._devices, text=self._text.value or "", state=self._state.value or "")
        self._first = max(min(self._first, (len(found) - 1) // A_PAGE * A_PAGE), 0)
        chosen = found[self._first : self._first + A_PAGE]
        shown = await run.io_bound(self._reader.with_outcomes, chosen, now_ms=self._now_ms)
        if shown is None:  # the collector is stopping
            return
        last = self._first + len(shown)
        self._where.set_text(
            f"{self._first + 1:,} to {last:,} of {len(found):,}" if shown else "none"
        )
        self._back.set_enabled(self._first > 0)
        self._on.set_enabled(last < len(found))
        self._rows.set_content(_table(shown, self._changed, self._now_ms))


def _table(devices: Sequence[DeviceView], changed: Sequence[Incident], now_ms: int) -> str:
    heads = (
        *("State", "Device", "Last contact", "Model", "Artifact", "Requests"),
        "Nearest to an alarm",
    )
    head = "".join(f"<th>{name}</th>" for name in heads)
    rows = "".join(_row(device, changed, now_ms) for device in devices)
    return f'<table class="fleet"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(device: DeviceView, changed: Sequence[Incident], now_ms: int) -> str:
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
        "; ".join(trouble)
        or (reason(device.reason) if device.state in _EXPLAINED else "")
        or wider(device, changed)
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
        f"<td class='wide'>{_nearest(device)}<div class='muted small'>{note}</div></td></tr>"
    )


def wider(device: DeviceView, changed: Sequence[Incident]) -> str:
    """What changed for more than this device, which moves with it and so has no alarm itself."""
    for incident in changed:
        if incident.scope == "site" and incident.site == device.site:
            return "its whole site changed, see above"
        if incident.scope in {"version", "fleet"} and any(
            m.name == incident.model and incident.version in {"", m.version} for m in device.models
        ):
            return "all devices on its model changed, see above"
    return ""


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
