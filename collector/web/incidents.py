"""The upper part of the fleet page: incidents in sentences, the budget, and what is stuck."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from nicegui import ui

from edgeml.collector.drift.blame import Incident, Moved, movement
from edgeml.collector.views import BudgetView, DeviceView, DriftingView, GroupView
from edgeml.collector.web.frame import badge
from edgeml.collector.web.words import ago, evidence, reason, statistic

SHOWN = 8
"""Incidents at a time, and statistics of one: the rest is counted."""

GROUPS = 12
"""Sites and versions likewise."""

_SCOPES = {"device": "device", "site": "site", "version": "version", "fleet": "fleet"}


def link(site: str, device: str) -> str:
    """The device's page."""
    return f"/device/{quote(site)}/{quote(device)}"


def show_incidents(found: list[Incident], now_ms: int) -> None:
    """A card for each open incident, and a line for those that ended."""
    opened = [incident for incident in found if incident.open]
    for incident in opened[:SHOWN]:
        with ui.element("div").classes("card alarm"):
            ui.html(_incident(incident, now_ms), sanitize=False)
    if len(opened) > SHOWN:
        with ui.element("div").classes("card"):
            ui.label(f"{len(opened) - SHOWN} more open incidents.").classes("muted")
    ended = [incident for incident in found if not incident.open]
    if not opened or ended:
        with ui.element("div").classes("card"):
            if not opened:
                ui.label("No open incidents.").classes("title")
            for incident in ended[:SHOWN]:
                ui.label(f"Ended: {incident.sentence}").classes("muted small")


def _incident(incident: Incident, now_ms: int) -> str:
    chips = "".join(_chip(m) for m in incident.moved[:SHOWN])
    more = len(incident.moved) - SHOWN
    chips += f"<div class='chip muted'>{more} more</div>" if more > 0 else ""
    where = ""
    if incident.scope == "device":
        where = (
            f"<a class='plain' href='{link(incident.site, incident.device)}'>"
            f"{escape(incident.device)}</a> <span class='muted'>in {escape(incident.site)}</span>"
        )
    elif incident.scope == "site":
        where = f"<b>{escape(incident.site)}</b>"
    elif incident.scope == "version":
        where = f"<b>{escape(incident.model)} {escape(incident.version)}</b>"
    taken = len(incident.devices)
    note = (
        f" · {taken} device{'s' * (taken != 1)} with alarms of their own"
        if (taken and incident.scope != "device")
        else ""
    )
    return (
        f"<div class='small' style='margin-bottom:6px'><span class='badge alarm'>"
        f"{_SCOPES[incident.scope].upper()}</span> &nbsp;{where}"
        f"<span class='muted'> · began {ago(incident.since_ms, now_ms)}{note}</span></div>"
        f"<div class='sentence'>{escape(incident.sentence)}</div><div class='chips'>{chips}</div>"
    )


def _chip(m: Moved) -> str:
    name, tensor = statistic(m.statistic)
    verb, size, unit = movement(m)
    size += " sd" if unit.endswith("deviations") else unit
    return (
        f"<div class='chip'><b>{escape(name)}</b> <span class='muted'>{escape(tensor)}</span><br>"
        f"{verb} by {size}</div>"
    )


def show_budget(budget: BudgetView, drifting: list[DriftingView]) -> None:
    """How much of the promise is spent, and the list of what drifts now."""
    share = min(budget.expected / budget.allowed, 1.0) if budget.allowed else 0.0
    over = " alarm" if budget.expected > budget.allowed else ""
    of_one: dict[str, list[str]] = {}
    for d in drifting:  # the surest first
        of_one.setdefault(_whose(d), []).append(statistic(d.stream)[0])
    names = [
        f"{whose} <span class='muted'>{escape(_some(statistics))}</span>"
        for whose, statistics in list(of_one.items())[:SHOWN]
    ]
    left = len(of_one) - SHOWN
    more = f" <span class='muted'>and {left} more</span>" * (left > 0)
    listed = (
        f"<div class='small' style='margin-top:10px'><span class='muted'>Drifts now (at most 5 % "
        f"of this list is wrong):</span> {'; '.join(names)}{more}</div>"
        if names
        else ""
    )
    with ui.element("div").classes("card"):
        ui.html(
            f"<div style='display:flex;gap:20px;align-items:center;flex-wrap:wrap'>"
            f"<span class='title'>Budget of false alarms</span>"
            f"<div class='bar wide' title='expected false alarms so far, of those allowed'>"
            f"<div class='{over.strip()}' style='width:{100 * share:.1f}%'></div></div>"
            f"<span class='small'>at most <b>{budget.expected:.2g}</b> of {budget.allowed:g} "
            f"expected so far, in {budget.windows:,} watched windows; <b>{budget.alarms}</b> "
            f"alarm{'s' * (budget.alarms != 1)} raised</span></div>"
            f"<div class='muted small' style='margin-top:6px'>The promise: "
            f"{escape(budget.promise)}.</div>{listed}",
            sanitize=False,
        )


def _whose(d: DriftingView) -> str:
    """Device, site or version, as HTML."""
    if d.scope == "device":
        return (
            f"<a class='plain' href='{link(d.site, d.device)}'>{escape(f'{d.site}/{d.device}')}</a>"
        )
    return (
        f"site <b>{escape(d.site)}</b>"
        if d.site
        else f"all of {escape(d.model)} {escape(d.version)}"
    )


def _some(names: list[str]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def show_stuck(devices: list[DeviceView]) -> None:
    """Devices that say the same for ever."""
    stuck = [device for device in devices if device.state == "stuck"]
    if not stuck:
        return
    rows = "".join(
        f"<div style='margin-top:8px'>{badge('stuck')} &nbsp;<a class='plain' "
        f"href='{link(d.site, d.device)}'>{escape(d.device)}</a> <span class='muted'>in "
        f"{escape(d.site)}</span> <span class='small'>{escape(reason(d.reason))}</span></div>"
        for d in stuck[:SHOWN]
    )
    with ui.element("div").classes("card"):
        more = f" ({len(stuck) - SHOWN} more)" if len(stuck) > SHOWN else ""
        ui.label(f"Stuck: the same for ever, which is no drift{more}").classes("title")
        ui.html(rows, sanitize=False)


def show_groups(groups: list[GroupView]) -> None:
    """A row a site or version: how many streams are armed, and what is nearest to an alarm."""
    heaps: dict[tuple[str, str, str], list[GroupView]] = {}
    for group in groups:
        heaps.setdefault((group.model, group.version, group.site), []).append(group)
    if not heaps:
        return
    ordered = sorted(heaps.values(), key=_group_trouble)
    rows = "".join(map(_group_row, ordered[:GROUPS]))
    more = len(ordered) - GROUPS
    heads = ("State", "Group", "Model", "Devices", "Statistics armed", "Nearest to an alarm")
    head = "".join(f"<th>{name}</th>" for name in heads)
    with ui.element("div").classes("card").style("overflow-x:auto"):
        ui.label("What sites and versions have in common").classes("title")
        ui.label("The median of their devices, monitored like a device's own statistics.").classes(
            "muted small"
        )
        ui.html(
            f"<table class='fleet' style='margin-top:8px'><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table>",
            sanitize=False,
        )
        if more > 0:
            ui.label(f"{more} more sites, farther from an alarm.").classes("muted small")


def _urgency(group: GroupView) -> tuple[bool, float]:
    return group.phase == "alarm", group.evidence / max(group.threshold, 1.0)


def _group_trouble(found: list[GroupView]) -> tuple[bool, bool, float, str, str, str]:
    """Alarms first, then versions, then sites that are nearest to an alarm."""
    head = found[0]
    alarm, nearest = max(map(_urgency, found))
    return not alarm, bool(head.site), -nearest, head.model, head.version, head.site


def _group_row(found: list[GroupView]) -> str:
    head = found[0]
    armed = [g for g in found if g.armed]
    devices = max(g.devices for g in found)
    phases = {g.phase for g in found}
    state = "alarm" if "alarm" in phases else "armed" if armed else "collecting"
    nearest = max(armed, key=_urgency, default=None)
    words = f"<span class='muted small'>{escape(head.reason)}</span>"
    if nearest is not None:
        how = f"evidence {evidence(nearest.evidence)} of {evidence(nearest.threshold)}"
        note = "in alarm" if nearest.phase == "alarm" else how
        words = f"{escape(statistic(nearest.stream)[0])} <span class='muted small'>{note}</span>"
    name = f"site <b>{escape(head.site)}</b>" if head.site else "all devices of the version"
    return (
        f"<tr><td>{badge(state)}</td><td>{name}</td><td>{escape(head.model)} "
        f"{escape(head.version)}</td><td class='number'>{devices} device{'s' * (devices != 1)}</td>"
        f"<td class='number'>{len(armed)} of {len(found)}<span class='muted'> armed</span></td>"
        f"<td class='wide'>{words}</td></tr>"
    )
