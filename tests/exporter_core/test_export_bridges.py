"""Toolchains on a conversion's way: asked for where one is needed, and no end of the export."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml.exporter.bridges import bridges
from edgeml.exporter.events import Event, Note, Stage
from edgeml.toolchain import store


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Toolchains can neither be found nor made."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(store.HOME_VARIABLE, str(tmp_path / "file" / "below"))


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(("target", "kind"), [("tflite", "torch"), ("openvino", "onnx")])
def test_a_conversion_that_needs_none_asks_for_none(target: str, kind) -> None:
    events: list[Event] = []
    with bridges([target], kind, events.append) as found:
        assert found == {}
    assert events == []


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("kind", ["onnx", "classical"])
def test_one_that_cannot_be_made_is_told_and_left_out(kind) -> None:
    """The other targets are exported all the same."""
    events: list[Event] = []
    with bridges(["tflite", "onnx"], kind, events.append) as found:
        assert found == {}
    stage, note = events
    assert isinstance(stage, Stage)
    assert stage.title == "Installing the toolchain onnx2tf"
    assert isinstance(note, Note)
    assert store.HOME_VARIABLE in note.text
