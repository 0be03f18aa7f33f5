"""How right a model is: by labels that came back, and by its confidences without them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import RIGHT
from support.devices import START_MS, Source
from support.fleets import ALARMS, FleetStore

from edgeml.collector.store.feedback import Batch, Label, add_feedback
from edgeml.collector.store.fleet_queries import FleetReader
from edgeml.collector.store.selection import StreamSelection
from edgeml.errors import CollectorError


def labels(count: int, *, right: float, sure: float | None, group: str, device: str) -> list[Label]:
    """Of which that share was right."""
    return [
        Label(
            device=device,
            model="tiny",
            time_ms=START_MS + n * 1000,
            correct=n < right * count,
            confidence=sure,
            group=group,
        )
        for n in range(count)
    ]


def test_feedback_is_counted_once_and_says_how_right_the_model_was(
    store: FleetStore, bundle: Path
) -> None:
    store.send(*((f"hall/{name}", Source(bundle, seed=1).window()) for name in ("one", "two")))
    told = [
        *labels(400, right=0.9, sure=0.9, group="day", device="one"),
        *labels(400, right=0.6, sure=0.9, group="night", device="two"),
        *labels(200, right=0.5, sure=None, group="night", device="two"),
    ]

    def hand_in(sha256: str, *found: Label) -> bool:
        batch = Batch(sha256=sha256, labels=list(found))
        return store.intake.change(
            lambda connection, _: add_feedback(connection, batch, now_ms=START_MS)
        ).new

    fleet = FleetReader(store.engine, ALARMS.budget)
    assert hand_in("first", *told[:700])
    assert hand_in("second", *told[700:])
    once = fleet.accuracy(by="model")
    assert not hand_in("first", *told[:700])
    assert fleet.accuracy(by="model") == once
    (whole,) = once
    assert (whole.model, whole.version, whole.n) == ("tiny", "1.0", 1000)
    assert whole.accuracy == pytest.approx(0.7)
    assert whole.low < 0.7 < whole.high
    assert whole.gap is not None
    assert (whole.gap["best"], whole.gap["worst"]) == ("day", "night")
    assert whole.gap["low"] > 0.2
    devices = {found.part: found for found in fleet.accuracy(by="device")}
    assert devices["hall/one"].calibration_error == pytest.approx(0.0, abs=0.04)
    assert devices["hall/two"].calibration_error == pytest.approx(0.3, abs=0.04)
    assert sum(found.n for found in fleet.accuracy(by="hour")) == 1000


def test_confidences_say_how_right_a_model_probably_is_without_labels(
    store: FleetStore, bundle: Path
) -> None:
    usual, dark = Source(bundle, seed=1), Source(bundle, seed=2)
    store.send(*(("hall/usual", w) for w in usual.windows(10)))
    store.send(*(("hall/dark", w) for w in dark.windows(10, broken=True)))
    fleet = FleetReader(store.engine, ALARMS.budget)
    found = {estimate.device: estimate for estimate in fleet.estimates()}
    assert found["usual"].n == 400
    assert found["usual"].low < RIGHT < found["usual"].high
    assert found["usual"].accuracy == pytest.approx(RIGHT, abs=0.03)
    assert found["dark"].accuracy != pytest.approx(found["usual"].accuracy, abs=1e-6)
    assert fleet.estimates(StreamSelection(site="hall", device="dark")) == [found["dark"]]
    assert fleet.estimates(StreamSelection(site="yard", device="dark")) == []


def test_feedback_of_a_device_that_is_not_known_changes_nothing(
    store: FleetStore, bundle: Path
) -> None:
    store.send(("hall/one", Source(bundle, seed=1).window()))
    found = labels(3, right=1, sure=0.5, group="", device="one")
    found += labels(1, right=1, sure=0.5, group="", device="three")
    batch = Batch(sha256="x", labels=found)
    with pytest.raises(CollectorError, match="0 devices are called 'three'"):
        store.intake.change(lambda connection, _: add_feedback(connection, batch, now_ms=START_MS))
    assert FleetReader(store.engine, ALARMS.budget).accuracy(by="model") == []
