"""Who is to blame: this device, this site, this model version, or the world; in a sentence.

Pure. What comes in are the alarms of single devices and of groups with how far each statistic moved
(:class:`Moved`), and how large the fleet is (:class:`Census`); what comes out are *incidents*:
alarms that belong together, the widest scope that explains them first.

Rules
    1. Alarms belong together when they are of the same scope and place and overlap in time.
    2. A version's alarm and those of its sites, a site's and those of its devices: the wider scope
       takes in a narrower one that began while it lasted (or :data:`SLACK_MS` before: estimates of
       a beginning scatter) in one of its statistics.
    3. A version whose median moved while one of its sites stood still did not move: the others did.
    4. A version alone, while another one of the same model stood still: the version is to blame.
       All versions, or the only one there is: the world.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Literal

import msgspec

Scope = Literal["device", "site", "version", "fleet"]

SLACK_MS = 3_600_000
"""Beginnings that lie so far apart may be one: an estimated change is some windows off."""

NAMED = 3
"""Statistics that a sentence names; the others it counts."""

SHIFT_SD = 0.1
"""A mean that moved less, in standard deviations of the training data, is not called moved."""

VISIBLE_SD = 0.5
"""A mean that moved so far is what is said of a statistic, whatever its spread did."""

SPREAD = 0.1
"""Likewise for the logarithm of the spread."""

FOREVER = 2**62


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm: a statistic of a device, or of a group, that moved."""

    alarm: int
    """Its number among the alarms of its kind (devices' or groups')."""
    scope: Scope
    """``device``, ``site`` or ``version`` (all devices of it); ``fleet`` is for the judge alone."""
    site: str = ""
    device: str = ""
    model: str
    version: str
    statistic: str
    since_ms: int
    closed_ms: int | None = None
    mean: float | None = None
    """How far the mean moved, in standard deviations of the training data."""
    spread: float | None = None
    """By how much the logarithm of the standard deviation moved."""
    distance: float = 0.0
    """How far the distribution moved, in bits."""
    relative_evidence: float = 1.0
    """log evidence / log threshold when it was raised; 1 or more."""

    @property
    def weight(self) -> float:
        """Sorts what moved farthest first. A spread counts up to a factor of e: one that shrank to
        nothing has no end on a logarithm."""
        return max(abs(self.mean or 0.0), min(abs(self.spread or 0.0), 1.0), 2 * self.distance)


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices there are to have moved, all of them live."""

    sites: Mapping[str, int] = {}
    """Devices by site."""
    versions: Mapping[tuple[str, str], int] = {}
    """Devices by model and version."""
    watched: frozenset[tuple[str, str]] = frozenset()
    """Versions (model, version) that have an armed stream for all their devices, so that one that
    did not move is known to have stood still."""
    watched_sites: frozenset[tuple[str, str, str]] = frozenset()
    """Likewise sites: model, version, site."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Alarms that belong together."""

    scope: Scope
    site: str
    device: str
    model: str
    version: str
    since_ms: int
    open: bool
    sentence: str
    moved: list[Moved]
    """What makes it, farthest first."""
    devices: list[str]
    """``site/device`` of the single devices whose alarms it takes in."""

    @property
    def statistics(self) -> list[str]:
        """Which moved, farthest first, each once."""
        return list(dict.fromkeys(m.statistic for m in self.moved))


_WIDEST = ("version", "site", "device")


def incidents(moved: Iterable[Moved], census: Census) -> list[Incident]:
    """Group alarms into incidents, open and widest first, then the youngest."""
    told = list(moved)
    told = [m for m in told if not _only_some_sites(m, told, census)]
    heaps: list[list[Moved]] = []
    for scope in _WIDEST:
        wider = list(heaps)
        at: dict[tuple[str, ...], list[list[Moved]]] = {}
        for alarm in sorted((m for m in told if m.scope == scope), key=lambda m: m.since_ms):
            there = at.setdefault(_place(alarm), [])
            home = next((h for h in wider if _takes_in(h, alarm)), None)
            if home is None:
                home = next((h for h in there if _overlap(h, alarm)), None)
            if home is None:
                there.append([alarm])
                heaps.append(there[-1])
            else:
                home.append(alarm)
    heaps = _across_versions(heaps)
    beside: dict[tuple[str, str], list[list[Moved]]] = {}
    for heap in heaps:
        beside.setdefault(_neighbourhood(heap), []).append(heap)
    found = [_judge(heap, beside[_neighbourhood(heap)], census) for heap in heaps]
    rank = {"fleet": 0, "version": 1, "site": 2, "device": 3}
    return sorted(found, key=lambda i: (not i.open, rank[i.scope], -i.since_ms))


def _only_some_sites(alarm: Moved, moved: Sequence[Moved], census: Census) -> bool:
    """Whether an alarm of a version is that of some of its sites, large enough to move the median
    of all, while others stood still."""
    if alarm.scope != "version":
        return False
    sites = {
        m.site
        for m in moved
        if m.scope == "site"
        and (m.model, m.version, m.statistic) == (alarm.model, alarm.version, alarm.statistic)
        and _overlap([alarm], m)
    }
    version = (alarm.model, alarm.version)
    watched = {site for *of, site in census.watched_sites if tuple(of) == version}
    return bool(sites) and bool(watched - sites)


def _overlap(a: Sequence[Moved], b: Moved, slack_ms: int = SLACK_MS) -> bool:
    first = min(m.since_ms for m in a)
    last = max(FOREVER if m.closed_ms is None else m.closed_ms for m in a)
    end = FOREVER if b.closed_ms is None else b.closed_ms
    return b.since_ms <= last and first - slack_ms <= end


def _place(m: Moved) -> tuple[str, ...]:
    return (m.scope, m.site, m.device, m.model, m.version)


def _neighbourhood(heap: Sequence[Moved]) -> tuple[str, str]:
    """Heaps of which a sentence may say that they moved too: of a device those of its site."""
    head = heap[0]
    return head.scope, head.site if head.scope == "device" else ""


def _takes_in(heap: Sequence[Moved], alarm: Moved) -> bool:
    """Whether the wider heap explains a narrower alarm (rule 2)."""
    head = heap[0]
    return (
        (head.model, head.version) == (alarm.model, alarm.version)
        and (head.scope == "version" or head.site == alarm.site)
        and alarm.statistic in {m.statistic for m in heap if m.scope == head.scope}
        and _overlap(heap, alarm)
        and alarm.since_ms >= min(m.since_ms for m in heap) - SLACK_MS
    )


def _across_versions(heaps: list[list[Moved]]) -> list[list[Moved]]:
    """Versions of a model that moved at the same time, in a statistic in common, are one heap."""
    kept: list[list[Moved]] = []
    for heap in heaps:
        head = heap[0]
        names = {m.statistic for m in heap}
        home = next(
            (
                k
                for k in kept
                if head.scope == k[0].scope == "version"
                and head.model == k[0].model
                and names & {m.statistic for m in k}
                and _overlap(k, head)
            ),
            None,
        )
        if home is None:
            kept.append(heap)
        else:
            home.extend(heap)
    return kept


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """What a sentence is made of."""

    head: Moved
    what: str
    """What moved, how far and since when."""
    versions: list[str]
    still: list[str]
    """Versions of the model that are watched and did not move."""
    also: int
    """Other places of the same scope that moved too."""


def _judge(heap: list[Moved], beside: list[list[Moved]], census: Census) -> Incident:
    head = heap[0]
    own = sorted((m for m in heap if m.scope == head.scope), key=lambda m: -m.weight)
    taken = sorted({f"{m.site}/{m.device}" for m in heap if m.scope == "device"})
    versions = sorted({m.version for m in own})
    others = [h for h in beside if h is not heap and _alike(h, own)]
    elsewhere = {(h[0].model, m.version) for h in others for m in h}
    still = sorted(
        version
        for model, version in census.watched - elsewhere
        if model == head.model and version not in versions
    )
    scope: Scope = "fleet" if head.scope == "version" and not still else head.scope
    since = min(m.since_ms for m in own)
    places = {_place(h[0])[1:3] for h in others}
    case = _Case(
        head=head,
        what=f"{movements(own)}, since {moment(since)}",
        versions=versions,
        still=still,
        also=len(places),
    )
    return Incident(
        scope=scope,
        site=head.site,
        device=head.device,
        model=head.model,
        version=versions[0] if len(versions) == 1 else "",
        since_ms=since,
        open=any(m.closed_ms is None for m in own),
        sentence=_SENTENCES[scope](case, census),
        moved=own,
        devices=taken,
    )


def _alike(heap: Sequence[Moved], own: Sequence[Moved]) -> bool:
    """Whether another heap moved in one of the same statistics, at the same time."""
    names = {m.statistic for m in own}
    return any(m.statistic in names and _overlap(own, m) for m in heap)


def _others(count: int, also: int, *, one: str, many: str) -> str:
    """What the others did: none of them moved, or some did too."""
    if count == 1:
        return f"{one} {'moved too' if also else 'did not move'}"
    if not also:
        return f"{many} did not move"
    return f"{min(also, count)} of {many} moved too"


def _of_device(case: _Case, census: Census) -> str:
    head = case.head
    peers = max(census.sites.get(head.site, 1) - 1, case.also)
    who = f"{head.device} ({head.site})"
    if not peers:
        return f"{who} changed: {case.what}; it has no peers on its site."
    others = _others(peers, case.also, one="its one peer", many=f"its {peers} peers")
    return f"{'' if case.also else 'Only '}{who} changed: {case.what}; {others}."


def _of_site(case: _Case, census: Census) -> str:
    count = len(census.sites.keys() - {case.head.site})
    others = _others(count, case.also, one="the other site", many=f"the {count} other sites")
    tail = f"; {others}" if count else ", the only one"
    return f"All of site {case.head.site} changed: {case.what}{tail}."


def _of_version(case: _Case, census: Census) -> str:
    model = case.head.model
    count = sum(census.versions.get((model, version), 0) for version in case.versions)
    return (
        f"All devices on {model} {' and '.join(case.versions)} ({count}) changed: {case.what}; "
        f"those on {' and '.join(case.still)} did not move: it came with the version."
    )


def _of_fleet(case: _Case, census: Census) -> str:
    model = case.head.model
    count = sum(n for (name, _), n in census.versions.items() if name == model)
    text = f"The whole fleet on {model} ({count} devices) changed: {case.what}: the world"
    if len(case.versions) > 1:
        return f"{text}, not a version, since {' and '.join(case.versions)} moved alike."
    return f"{text}, or {model} {case.versions[0]} itself: no other version is watched beside it."


_SENTENCES: dict[Scope, Callable[[_Case, Census], str]] = {
    "device": _of_device,
    "site": _of_site,
    "version": _of_version,
    "fleet": _of_fleet,
}


def movements(own: Sequence[Moved]) -> str:
    """``luma_mean fell by 1.8 standard deviations, sharpness by 0.9``, farthest first."""
    farthest: dict[str, Moved] = {}
    for m in own:
        farthest.setdefault(m.statistic, m)
    parts: list[str] = []
    said = ("", "")
    for name, m in list(farthest.items())[:NAMED]:
        verb, size, unit = movement(m)
        # What was said of the one before is understood of the next.
        verbed = "" if verb == said[0] else f" {verb}"
        measured = size if (verb, unit) == said else f"{size}{unit}"
        parts.append(f"{name.rsplit('.', 1)[-1]}{verbed} by {measured}")
        said = (verb, unit)
    more = len(farthest) - NAMED
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def movement(m: Moved) -> tuple[str, str, str]:
    """What a statistic did, by how much and in which unit: ``("fell", "1.8", " standard
    deviations")``."""
    mean, spread = m.mean or 0.0, m.spread or 0.0
    # A mean that visibly moved is said first, even where the spread moved farther.
    if abs(mean) >= max(SHIFT_SD, min(abs(spread), VISIBLE_SD)):
        return ("rose" if mean > 0 else "fell"), f"{abs(mean):.1f}", " standard deviations"
    if abs(spread) >= SPREAD:
        verb = "spread wider" if spread > 0 else "grew narrower"
        return verb, f"a factor of {math.exp(abs(spread)):.1f}", ""
    return "changed shape", f"{m.distance:.2f}", " bits"


def moment(time_ms: int) -> str:
    """``14:05 UTC on 12 Mar``."""
    when = datetime.fromtimestamp(time_ms / 1000, timezone.utc)
    return f"{when:%H:%M} UTC on {when.day} {when:%b}"
