"""What a device's peers saw: medians of the others, and one point a slot for the whole group."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeml.collector.drift.peers import (
    KEPT_SLOTS,
    SITE_PEERS,
    VERSION_PEERS,
    Device,
    Peers,
    Point,
    Scores,
    slot_length,
)

FLEET = [Device("hall", n) for n in range(4)] + [Device("yard", n) for n in range(4, 8)]

AHEAD = 5000
"""Slots that a wrong clock is ahead of the others."""

values = st.floats(-5, 5, allow_nan=False)


@st.composite
def reports(draw: st.DrawFn) -> list[tuple[Device, int, Scores]]:
    """Windows of a fleet in the order in which they arrive: each device in its own order, some
    late, some missing, few of a clock that is far ahead."""
    found: list[tuple[float, Device, int, Scores]] = []
    wrong = draw(st.sets(st.sampled_from(FLEET), max_size=SITE_PEERS - 1))
    for device in FLEET:
        ahead = AHEAD if device in wrong else 0
        for slot in draw(st.sets(st.integers(0, 9))):
            delay = draw(st.floats(0, 3, allow_nan=False))
            scores = (draw(values), draw(values))
            found.append((slot + delay, device, slot + ahead, scores))
    return [(device, slot, scores) for _, device, slot, scores in sorted(found, key=lambda f: f[0])]


def reported(windows: str) -> list[tuple[Device, int, Scores]]:
    """Devices of the fleet at slots, as they arrive."""
    pairs = (window.split("@") for window in windows.split())
    return [(FLEET[int(device)], int(slot), (0.0, 0.0)) for device, slot in pairs]


def at(site: str, slot: int, sent: list[tuple[Device, int, Scores]]) -> dict[int, Scores]:
    return {d.id: s for d, found, s in sent if found == slot and site in ("", d.site)}


def remembered(sent: list[tuple[Device, int, Scores]]) -> list[tuple[Device, int, Scores]]:
    """Of each device its last slots only: one that is ahead of all others leaves older ones."""
    slots: dict[Device, set[int]] = {}
    for device, slot, _ in sent:
        slots.setdefault(device, set()).add(slot)
    kept = {device: sorted(found)[-KEPT_SLOTS:] for device, found in slots.items()}
    return [one for one in sent if one[1] in kept[one[0]]]


def medians(scores: list[Scores]) -> Scores:
    return tuple(statistics.median(column) for column in zip(*scores, strict=True))


@given(reports())
def test_common_is_the_median_of_the_others(sent: list[tuple[Device, int, Scores]]) -> None:
    peers = Peers()
    newest = 0
    for n, (device, slot, scores) in enumerate(sent):
        newest = max(newest, slot % AHEAD)
        if (slot - 1) % AHEAD > newest - KEPT_SLOTS:  # what is older may have been forgotten
            others = {d.id for d, _, _ in sent[:n] if d.site == device.site} - {device.id}
            whole = len(others) >= SITE_PEERS
            site, least = (device.site, SITE_PEERS) if whole else ("", VERSION_PEERS)
            asked = [
                {k: v for k, v in at(site, when, sent[:n]).items() if k != device.id}
                for when in (slot, slot - 1)
            ]
            enough = next((list(o.values()) for o in asked if len(o) >= least), None)
            found = peers.common(device, slot)
            assert found == (enough and pytest.approx(medians(enough)))
        peers.add(device, slot, scores)


@given(reports())
@example(reported("0@0 1@0 2@0 3@0 0@1 2@1 0@2 2@2 0@3 0@4 1@4"))  # the first is ahead of them all
def test_a_group_has_one_point_a_slot_in_their_order(
    sent: list[tuple[Device, int, Scores]],
) -> None:
    peers = Peers()
    points: dict[str, list[Point]] = {}
    for n, (device, slot, scores) in enumerate(sent):
        for point in peers.add(device, slot, scores):
            points.setdefault(point.site, []).append(point)
            there = at(point.site, point.slot, remembered(sent[: n + 1]))
            assert point.devices >= (SITE_PEERS if point.site else VERSION_PEERS)
            assert point.devices == len(there)
            assert point.scores == pytest.approx(medians(list(there.values())))
    for found in points.values():
        slots = [point.slot for point in found]
        assert slots == sorted(set(slots))


@given(reports(), st.integers(0, 80))
def test_a_restart_changes_nothing(sent: list[tuple[Device, int, Scores]], cut: int) -> None:
    """What is stored, added again, answers and emits as if nothing had happened."""
    peers = Peers()
    for report in sent[:cut]:
        peers.add(*report)
    again = Peers(peers.emitted)
    again.restore(sent[:cut])
    assert again.frontier == peers.frontier
    for device, slot, scores in sent[cut:]:
        assert again.common(device, slot) == peers.common(device, slot)
        assert again.add(device, slot, scores) == peers.add(device, slot, scores)


@given(reports())
def test_memory_is_bounded(sent: list[tuple[Device, int, Scores]]) -> None:
    peers = Peers()
    for device, slot, scores in sent:
        peers.add(device, slot, scores)
        assert len(peers) <= KEPT_SLOTS * len(FLEET)


def test_a_slot_is_complete_when_all_that_were_there_are_there_again() -> None:
    peers = Peers()
    hall = FLEET[:4]
    for n, device in enumerate(hall):
        assert peers.add(device, 7, (float(n),)) == []  # nobody knows yet who is to come
    points = [peers.add(device, 8, (10.0 + n,)) for n, device in enumerate(hall)]
    assert points[:3] == [[], [], []]
    # The seventh has to wait for its time; the eighth has all of them. Points keep their order.
    assert points[3] == []
    later = [peers.add(device, 9, (20.0,)) for device in hall]
    assert [(p.slot, p.scores) for p in later[2]] == [(7, (1.5,)), (8, (11.5,))]
    assert [(p.slot, p.devices) for p in later[3]] == [(9, 4)]


def test_a_clock_that_is_ahead_takes_nobody_with_it() -> None:
    peers = Peers()
    for slot in range(3):
        for device in FLEET[:5]:
            peers.add(device, slot, (0.0,))
    peers.add(FLEET[5], 1_000_000, (9.0,))
    assert peers.frontier == 2
    assert peers.common(FLEET[0], 2) == (0.0,)


def test_a_site_that_falls_silent_is_not_replaced_by_the_version() -> None:
    """The version's median is another thing to be compared with: a shift, to who watches."""
    hall = [Device("hall", n) for n in range(4)]
    yard = [Device("yard", n) for n in range(10, 16)]
    peers = Peers()
    for device in [*hall, *yard]:
        peers.add(device, 1, (1.0,) if device in hall else (50.0,))
    assert peers.common(hall[0], 1) == (1.0,)
    for device in [hall[0], *yard]:
        peers.add(device, 9, (50.0,))
    assert peers.common(hall[0], 9) is None
    assert peers.common(Device("mast", 99), 9) == (50.0,)


def test_too_few_peers_are_none() -> None:
    peers = Peers()
    for device in FLEET[:3]:
        peers.add(device, 1, (1.0,))
    assert peers.common(FLEET[0], 1) is None
    assert peers.common(FLEET[3], 1) == (1.0,)
    assert peers.common(FLEET[3], 2) == (1.0,)  # as they were a moment ago
    assert peers.common(FLEET[3], 3) is None
    assert peers.common(FLEET[4], 1) is None  # another site, and not five in all


@pytest.mark.parametrize(
    ("measured", "usual"),
    [(60_003, 60_000), (59_400, 60_000), (299_870, 300_000), (1000, 1000), (37, 1000)],
)
def test_a_measured_length_is_a_usual_one(measured: int, usual: int) -> None:
    assert slot_length(measured) == usual
