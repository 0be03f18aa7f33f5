"""The demo's story: what it refuses, and its fleet from the first window to the alarm.

Training and export need the converters; `make demo` itself is their test.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from support.agents import is_gone
from support.bundles import tiny_bundle
from support.processes import descendants
from support.weights import images, scores

from edgeml.bundle import open_bundle
from edgeml.cli import demo as verb
from edgeml.cli import main
from edgeml.demo import story
from edgeml.demo.story import BROKEN, DEVICES, MODEL, TARGETS, VERSION, Demo
from edgeml.demo.telling import Telling
from edgeml.errors import EdgemlError


def test_a_folder_that_holds_something_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_outside_a_checkout_the_demo_says_where_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "SAMPLE", tmp_path / "sample")
    assert main(["demo", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"the sample model is not at {tmp_path / 'sample'}" in said
    assert "make demo" in said
    assert not (tmp_path / "out").exists()


def demo(folder: Path, sample: Path) -> Demo:
    return Demo(
        folder=folder,
        sample=sample,
        converters=lambda: nullcontext(Path(sys.executable)),
        telling=Telling(),
    )


def test_a_training_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys; sys.exit('these are no digits')")
    with pytest.raises(EdgemlError, match="exit status 1: these are no digits") as error:
        demo(tmp_path, tmp_path).train()
    assert str(tmp_path / "train.py") in error.value.remedy


def test_a_fleet_is_silent_until_a_camera_breaks_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same number of windows and images as in the demo, in half the time.
    monkeypatch.setattr(story, "WINDOW_S", story.WINDOW_S / 2)
    monkeypatch.setattr(story, "IMAGES_PER_S", story.IMAGES_PER_S * 2)
    bundle = open_bundle(tiny_bundle(tmp_path, targets=TARGETS, name=MODEL, version=VERSION))
    frames = images(360, seed=9)
    np.savez(tmp_path / "evaluation.npz", image=frames, labels=scores(frames).argmax(axis=1))

    others = descendants(os.getpid())
    with demo(tmp_path, tmp_path).fleet(bundle) as fleet:
        armed, streams = fleet.wait_until_armed()
        assert streams == 17 * len(DEVICES)
        assert armed >= 0.7 * streams
        fleet.expect_silence()
        fleet.cameras[BROKEN].break_it()
        alarm = fleet.wait_for_alarm(BROKEN)
        assert alarm.evidence >= alarm.threshold
        assert alarm.effect > 0.05
        fleet.expect_silence(but=BROKEN)
        with pytest.raises(EdgemlError, match=f"a false alarm on {BROKEN}"):
            fleet.expect_silence()
        pids = [pid for pid in descendants(os.getpid()) if pid not in others]
        assert len(pids) >= 1 + 2 * len(DEVICES)  # each agent has a worker

    assert [pid for pid in pids if not is_gone(pid)] == []
    for name, camera in fleet.cameras.items():
        answered = camera.outcomes["right"] + camera.outcomes["wrong"]
        assert answered > 0.9 * camera.outcomes.total(), (name, camera.outcomes)
        if name != BROKEN:
            assert camera.outcomes["right"] == answered  # the labels are the model's own
