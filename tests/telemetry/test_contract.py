"""Topics and messages: what is said arrives as it was said, and anything else is refused."""

from __future__ import annotations

import msgspec
import pytest

from edgeml.errors import TelemetryError
from edgeml.telemetry import (
    ActiveModel,
    Building,
    DeviceFacts,
    Event,
    ModelState,
    Reported,
    Status,
    Stored,
    Topic,
    Topics,
    Window,
    decode,
    encode,
    every_device,
    merge,
    parse_topic,
)

BUNDLE = "ab" * 32
WINDOW = Window(
    boot="boot-1",
    sequence=3,
    oldest=1,
    model="digits",
    version="1.0",
    bundle=BUNDLE,
    artifact="tflite-int8",
    start_ms=1_700_000_000_000,
    duration_ms=5000,
    rows=120,
    outcomes={"served": 120, "late": 1},
    baseline="0123456789abcdef",
    statistics=[b"\x04\x00\x00\x00\x64\x14\x00\x00\x00"],
)
MESSAGES = [
    WINDOW,
    Status(
        online=True,
        boot="b",
        agent="0.1.0",
        facts=DeviceFacts(machine="aarch64", cores=4),
        models=(ActiveModel(name="digits", version="1", bundle=BUNDLE, artifact="onnx-fp32"),),
    ),
    Reported(
        boot="b",
        models=(
            ModelState(
                name="m",
                version="1",
                bundle=BUNDLE,
                artifact="a",
                phase="active",
                building=Building(version="2", artifact="a", stage="loading", elapsed_s=42.5),
            ),
        ),
    ),
    Event(boot="b", kind="restart", time_ms=1, message="worker killed", details={"pid": 7}),
    Stored(boot="b", sequence=9),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_arrives_as_it_was_said(message):
    assert decode(encode(message), type(message)) == message


def test_a_state_of_an_earlier_agent_says_nothing_of_what_is_on_its_way():
    state = msgspec.json.decode(
        b'{"name": "m", "version": "1", "bundle": "", "artifact": "a", "phase": "active"}',
        type=ModelState,
    )
    assert state.building is None


@pytest.mark.parametrize("schema", [2, 3])
def test_a_window_of_an_earlier_agent_is_read_and_merges_to_one_of_today(schema):
    """In schema 2 all counts were packed plainly, in 3 some in Golomb codes."""
    earlier = msgspec.structs.replace(WINDOW, schema=schema)
    assert decode(encode(earlier), Window) == earlier
    assert merge(earlier, earlier) == merge(WINDOW, WINDOW)


def test_a_person_can_read_everything_but_windows():
    for message in MESSAGES[1:]:
        assert msgspec.json.decode(encode(message))["schema"] == 2


def test_a_stream_costs_its_packed_counts_and_two_bytes():
    """No name and no hash: the baseline has them, and the window names the baseline once."""
    packed = bytes(60)
    one, two = (encode(msgspec.structs.replace(WINDOW, statistics=[packed] * n)) for n in (1, 2))
    assert len(two) - len(one) == len(packed) + 2


def windows_with(**changes) -> bytes:
    fields = msgspec.structs.asdict(WINDOW) | changes
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "no Window"),
        (b"\x00garbage", "no Window"),
        (b'{"schema": 1}', "no Window"),
        (encode(WINDOW)[:-5], "no Window"),
        (windows_with(schema=1), "schema 1.*Expected schema 2 or 3 or 4"),
        (windows_with(sequence=0), "sequence"),
        (windows_with(boot="../up"), "boot"),
        (windows_with(rows=-1), "rows"),
        (windows_with(bundle="short"), "bundle"),
        (windows_with(statistics=[[1, 2, 3]]), "statistics"),
        (windows_with(statistics=["text"]), "statistics"),
        (windows_with(statistics=[b""]), "statistics"),
        (windows_with(statistics=[bytes(2**16 + 1)]), "statistics"),
        (windows_with(statistics=[b"\x00"] * 4097), "statistics"),
        (windows_with(baseline="not a baseline"), "baseline"),
        (b"\x91" * 100_000, "no Window"),
        (b"x" * (Window.MAX_BYTES + 1), "at most 1,048,576"),
    ],
)
def test_a_window_that_is_none_is_refused_with_the_reason(payload, words):
    with pytest.raises(TelemetryError, match=words):
        decode(payload, Window)


def test_a_message_too_long_is_not_sent_either():
    huge = msgspec.structs.replace(WINDOW, statistics=[bytes(2**16)] * 60)
    with pytest.raises(TelemetryError, match="at most"):
        encode(huge)


TOPICS = Topics("hall-3", "cam.7")


@pytest.mark.parametrize(
    ("topic", "parsed"),
    [
        (TOPICS.status, Topic("hall-3", "cam.7", "status")),
        (TOPICS.stats("digits"), Topic("hall-3", "cam.7", "stats", "digits")),
        (TOPICS.event("restart"), Topic("hall-3", "cam.7", "event", "restart")),
        (TOPICS.stored, Topic("hall-3", "cam.7", "stored")),
        (TOPICS.leaf("cmd/result"), Topic("hall-3", "cam.7", "cmd/result")),
    ],
)
def test_a_topic_comes_apart_as_it_was_put_together(topic, parsed):
    assert parse_topic(topic) == parsed


@pytest.mark.parametrize(
    "topic",
    [
        "edgeml/v2/site/device/status",
        "edgeml/v1/site/device",
        "edgeml/v1/site/device/stats",
        "edgeml/v1/site/device/status/extra",
        "edgeml/v1/site/de vice/status",
        "edgeml/v1/site//status",
        "edgeml/v1/site/device/unknown",
        "elsewhere/v1/site/device/status",
        "",
    ],
)
def test_any_other_topic_is_refused(topic):
    with pytest.raises(TelemetryError):
        parse_topic(topic)


def test_another_version_is_named():
    with pytest.raises(TelemetryError, match="'v2'.*Expected v1"):
        parse_topic("edgeml/v2/site/device/status")


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "x" * 65, "ü"])
def test_no_name_hides_a_wildcard(name):
    with pytest.raises(TelemetryError, match="plain name"):
        Topics("site", name)


def test_one_subscription_takes_all_devices():
    assert every_device("stats") == "edgeml/v1/+/+/stats/+"
    assert every_device("status") == "edgeml/v1/+/+/status"
