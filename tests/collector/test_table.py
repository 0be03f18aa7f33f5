"""The table of devices: trouble first, and what one looks for."""

from __future__ import annotations

from edgeml.collector.views import DeviceView, ModelView
from edgeml.collector.web.table import matching, ranked


def device(
    name: str,
    state: str = "armed",
    *,
    online: bool = True,
    nearest: float = 0.0,
    version: str = "1",
) -> DeviceView:
    return DeviceView(
        site="hall",
        device=name,
        online=online,
        first_seen_ms=0,
        last_seen_ms=0,
        agent="0.1.0",
        machine="",
        system="",
        cores=0,
        memory_mb=0,
        started_ms=0,
        models=[ModelView(name="washer", version=version, bundle="", artifact="onnx-fp32")],
        outcomes={},
        recent_outcomes={},
        state=state,
        reason="",
        streams=1,
        armed=1,
        alarms=int(state == "alarm"),
        worst="",
        worst_relative_evidence=nearest,
    )


def test_trouble_comes_first_then_who_is_off_line_then_who_is_near_an_alarm() -> None:
    fleet = [
        device("calm"),
        device("near", nearest=0.9),
        device("away", online=False),
        device("new", "not armed"),
        device("mute", "unknown"),
        device("frozen", "stuck"),
        device("drifted", "alarm"),
    ]
    order = ["drifted", "frozen", "mute", "new", "away", "near", "calm"]
    assert [each.device for each in ranked(fleet)] == order


def test_each_word_is_looked_for_in_names_models_and_contact() -> None:
    fleet = [
        device("cam-1"),
        device("cam-2", version="2.0"),
        device("mic-1", online=False),
        device("cam-3", "alarm"),
    ]

    def found(text: str, state: str = "") -> list[str]:
        return [each.device for each in matching(fleet, text=text, state=state)]

    assert found("") == ["cam-1", "cam-2", "mic-1", "cam-3"]
    assert found("CAM hall") == ["cam-1", "cam-2", "cam-3"]
    assert found("washer 2.0") == ["cam-2"]
    assert found("offline") == ["mic-1"]
    assert found("cam", "alarm") == ["cam-3"]
    assert found("dog") == []
