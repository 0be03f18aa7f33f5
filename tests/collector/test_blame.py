"""Who is to blame, as a table: alarms in, sentences out."""

from __future__ import annotations

import msgspec
import pytest

from edgeml.collector.drift.blame import Census, Moved, incidents
from edgeml.collector.drift.ebh import ebh

AT = 1_800_000_000_000  # 15 Jan 2027, 08:00 UTC
MIN = 60_000
WASHER = ("washer", "1.2.0")
OLDER = ("washer", "1.1.0")
FLEET = Census(
    sites={"hall-3": 12, "hall-4": 8, "yard": 6},
    versions={WASHER: 20, OLDER: 6},
    watched=frozenset({WASHER, OLDER}),
)
ALONE = Census(sites={"hall-3": 12}, versions={WASHER: 12}, watched=frozenset({WASHER}))


def moved(
    scope: str = "device",
    statistic: str = "input.image.luma_mean",
    *,
    mean: float = -1.8,
    spread: float = 0.0,
    distance: float = 0.3,
    site: str = "hall-3",
    device: str = "cam-7",
    version: str = "1.2.0",
    since: int = 5,
    closed: int | None = None,
) -> Moved:
    return Moved(
        alarm=1,
        scope=scope,  # type: ignore[arg-type]
        site="" if scope == "version" else site,
        device=device if scope == "device" else "",
        model="washer",
        version=version,
        statistic=statistic,
        since_ms=AT + since * MIN,
        closed_ms=None if closed is None else AT + closed * MIN,
        mean=mean,
        spread=spread,
        distance=distance,
    )


SHARP = "input.image.sharpness"

CASES: dict[str, tuple[Census, list[Moved], list[str]]] = {
    "one device": (
        FLEET,
        [moved(), moved(statistic=SHARP, mean=-0.9)],
        [
            "Only cam-7 (hall-3) changed: luma_mean fell by 1.8 standard deviations, sharpness by "
            "0.9, since 08:05 UTC on 15 Jan; its 11 peers did not move."
        ],
    ),
    "no peers": (
        Census(sites={"hall-3": 1}, versions={WASHER: 1}),
        [moved(mean=0.6)],
        [
            "cam-7 (hall-3) changed: luma_mean rose by 0.6 standard deviations, since 08:05 UTC on "
            "15 Jan; it has no peers on its site."
        ],
    ),
    "two of a kind": (
        FLEET,
        [moved(), moved(device="cam-8", since=9)],
        [
            "cam-8 (hall-3) changed: luma_mean fell by 1.8 standard deviations, since 08:09 UTC on "
            "15 Jan; 1 of its 11 peers moved too.",
            "cam-7 (hall-3) changed: luma_mean fell by 1.8 standard deviations, since 08:05 UTC on "
            "15 Jan; 1 of its 11 peers moved too.",
        ],
    ),
    "a site takes its devices in": (
        FLEET,
        [moved("site"), moved(), moved(device="cam-8"), moved(device="cam-1", statistic=SHARP)],
        [
            "All of site hall-3 changed: luma_mean fell by 1.8 standard deviations, since 08:05 "
            "UTC on 15 Jan; the 2 other sites did not move.",
            "Only cam-1 (hall-3) changed: sharpness fell by 1.8 standard deviations, since 08:05 "
            "UTC on 15 Jan; its 11 peers did not move.",
        ],
    ),
    "a version": (
        FLEET,
        [moved("version", mean=0.0, spread=0.7), moved("site"), moved(site="hall-4", device="x")],
        [
            "All devices on washer 1.2.0 (20) changed: luma_mean spread wider by a factor of 2.0, "
            "since 08:05 UTC on 15 Jan; those on 1.1.0 did not move: it came with the version."
        ],
    ),
    "the world": (
        FLEET,
        [moved("version"), moved("version", version="1.1.0", since=20, mean=-1.5)],
        [
            "The whole fleet on washer (26 devices) changed: luma_mean fell by 1.8 standard "
            "deviations, since 08:05 UTC on 15 Jan: the world, not a version, since 1.1.0 and "
            "1.2.0 moved alike."
        ],
    ),
    "a large site is not its version": (
        msgspec.structs.replace(
            FLEET, watched_sites=frozenset({(*WASHER, "hall-3"), (*WASHER, "hall-4")})
        ),
        [moved("version"), moved("site"), moved(since=6)],
        [
            "All of site hall-3 changed: luma_mean fell by 1.8 standard deviations, since 08:05 "
            "UTC on 15 Jan; the 2 other sites did not move."
        ],
    ),
    "one version only": (
        ALONE,
        [moved("version", mean=0.0, distance=0.21)],
        [
            "The whole fleet on washer (12 devices) changed: luma_mean changed shape by 0.21 bits, "
            "since 08:05 UTC on 15 Jan: the world, or washer 1.2.0 itself: no other version is "
            "watched beside it."
        ],
    ),
    "long past is another incident": (
        FLEET,
        [moved(closed=60), moved(since=600)],
        [
            "Only cam-7 (hall-3) changed: luma_mean fell by 1.8 standard deviations, since 18:00 "
            "UTC on 15 Jan; its 11 peers did not move.",
            "Only cam-7 (hall-3) changed: luma_mean fell by 1.8 standard deviations, since 08:05 "
            "UTC on 15 Jan; its 11 peers did not move.",
        ],
    ),
    "many statistics": (
        FLEET,
        [moved(statistic=f"input.x.s{n}", mean=2.0 - n / 10) for n in range(6)],
        [
            "Only cam-7 (hall-3) changed: s0 rose by 2.0 standard deviations, s1 by 1.9, s2 by 1.8 "
            "and 3 more, since 08:05 UTC on 15 Jan; its 11 peers did not move."
        ],
    ),
    "names with braces are text": (
        FLEET,
        [moved(device="{moved}", mean=1.0)],
        [
            "Only {moved} (hall-3) changed: luma_mean rose by 1.0 standard deviations, since 08:05 "
            "UTC on 15 Jan; its 11 peers did not move."
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_blame(case: str) -> None:
    census, alarms, sentences = CASES[case]
    for order in (alarms, alarms[::-1]):
        assert [i.sentence for i in incidents(order, census)] == sentences


def test_an_incident_lists_what_it_takes_in() -> None:
    (site, device) = incidents(
        [moved("site"), moved(), moved(device="cam-8"), moved(statistic=SHARP, closed=30)], FLEET
    )
    assert (site.scope, site.devices) == ("site", ["hall-3/cam-7", "hall-3/cam-8"])
    assert site.statistics == ["input.image.luma_mean"]
    assert (site.open, device.open) == (True, False)
    assert device.statistics == [SHARP]


def test_ebh_rejects_the_largest_k() -> None:
    # 4 hypotheses at .1: one alone needs 40, two need 20 each, three 13.3.
    assert ebh([39, 1, 1, 0], 0.1).tolist() == []
    assert ebh([1, 40, 1, 0], 0.1).tolist() == [1]
    assert ebh([20, 1, 25, 0], 0.1).tolist() == [2, 0]
    assert ebh([14, 14, 14, 0], 0.1).tolist() == [0, 1, 2]
    assert ebh([], 0.1).tolist() == []
