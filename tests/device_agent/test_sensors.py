"""Frames of a camera and sound of a microphone as requests."""

from __future__ import annotations

import json
import os
import time
import urllib.request
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rtsp
from support.agents import PATIENCE_S, SUPPORT, AgentProcess, Collector, StartAgent
from support.bundles import tiny_bundle
from support.sensor_bundles import image_bundle, sound_bundle

from edgeml.bundle import open_bundle
from edgeml.device_agent.inputs.sensors import Cutter, ImageInput, image_input, mono, sound_input
from edgeml.errors import SourceError, UsageError

# What a frame and samples mean: pure.

BLUE, GREEN, RED = [255, 0, 0], [0, 255, 0], [0, 0, 255]
"""As OpenCV has them."""


def frame(color: list[int], height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), color, dtype=np.uint8)


@pytest.mark.parametrize(
    ("order", "first", "red"),
    [
        ("rgb", False, [255, 0, 0]),
        ("bgr", False, [0, 0, 255]),
        ("grey", False, [76]),
        ("rgb", True, [255, 0, 0]),
    ],
)
def test_a_frame_in_the_models_order(order: str, first: bool, red: list[int]):
    wanted = ImageInput("photo", 4, 6, order, channels_first=first)
    (image,) = wanted.of(frame(RED)).values()
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    if first:
        image = image.transpose(0, 2, 3, 1)
    assert image.shape == (1, 4, 6, len(red))
    assert (image == red).all()


def test_a_frame_of_another_size_is_no_input():
    with pytest.raises(SourceError, match="has 8x4 pixels. Expected 6x4"):
        ImageInput("photo", 4, 6, "rgb", channels_first=False).of(frame(RED, width=8))


def test_the_manifest_says_how_a_sensor_fills_it(tmp_path: Path):
    manifest = open_bundle(image_bundle(tmp_path, height=4, width=6)).manifest
    assert image_input(manifest) == ImageInput("sensor", 4, 6, "rgb", channels_first=False)
    assert image_input(manifest, "bgr").order == "bgr"
    manifest = open_bundle(sound_bundle(tmp_path, samples=100, rate=8000)).manifest
    assert (sound_input(manifest).samples, sound_input(manifest).rate) == (100, 8000)


def test_what_nobody_says_is_not_guessed(tmp_path: Path):
    silent = open_bundle(image_bundle(tmp_path, height=4, width=6, order="")).manifest
    with pytest.raises(UsageError, match="in the order 'unknown'"):
        image_input(silent)
    with pytest.raises(UsageError, match="has 3 channels, in the order 'grey'"):
        image_input(silent, "grey")
    scaled = open_bundle(tiny_bundle(tmp_path)).manifest
    with pytest.raises(UsageError, match="Put the preprocessing into the artifact"):
        image_input(scaled, "rgb")
    with pytest.raises(UsageError, match="Expected one audio input"):
        sound_input(scaled, 8000)


def test_several_channels_become_one_as_somebody_says():
    both = np.array([[100, 201], [-100, -200]], dtype=np.int16)
    assert mono(both, "first").tolist() == [100, -100]
    assert mono(both, "average").tolist() == [150, -150]
    assert mono(both[:, :1], "refuse").tolist() == [100, -100]
    with pytest.raises(SourceError, match="The sound has 2 channels"):
        mono(both, "refuse")


@given(
    blocks=st.lists(st.integers(0, 40), max_size=12),
    length=st.integers(1, 20),
    hop=st.integers(0, 50),
)
def test_a_stream_is_cut_alike_however_it_comes(blocks: list[int], length: int, hop: int):
    whole = np.arange(sum(blocks), dtype=np.int16)
    cutter = Cutter(length, hop)
    ends = np.cumsum(blocks, dtype=int)
    found = [
        p.tolist() for b in np.split(whole, ends[:-1] if blocks else []) for p in cutter.cut(b)
    ]
    step = hop or length
    starts = range(0, len(whole) - length + 1, step)
    assert found == [whole[start : start + length].tolist() for start in starts]


# For real: agents that read files and devices.


@pytest.fixture(autouse=True)
def _meter(monkeypatch: pytest.MonkeyPatch) -> None:
    path = [str(SUPPORT / "meter"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))


def video(path: Path, colors: list[list[int]], *, height: int = 32, width: int = 48) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (width, height))
    for color in colors:
        writer.write(frame(color, height, width))
    writer.release()
    return path


def write_config(folder: Path, bundle: Path, table: str, **keys: object) -> Path:
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    path = folder / "agent.toml"
    path.write_text(
        f'[[model]]\nbundle = "{bundle}"\nwindow_s = 0.1\n[[model.{table}]]\n' + "\n".join(lines)
    )
    return path


def means(collector: Collector, count: int) -> list[list[float]]:
    """The model's answers on ``results/x``, in the order in which they came."""
    collector.wait_for(lambda c: len(c.other) >= count, f"{count} answers")
    documents = [json.loads(payload) for topic, payload in collector.other if topic == "results/x"]
    return [document["outputs"][0]["data"] for document in documents]


def test_every_frame_of_a_video(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    colors = [RED, GREEN, BLUE] * 4
    source = str(video(tmp_path / "video.avi", colors))
    bundle = image_bundle(tmp_path, height=32, width=48)
    config = write_config(
        tmp_path, bundle, "camera", source=source, newest=False, results="results/x"
    )
    agent = start_agent("--config", config, *at_plant)
    agent.wait_for("input ended")
    collector.wait_for(lambda c: c.outcomes.get("served") == 12, "twelve frames served")
    for found, (blue, green, red) in zip(means(collector, 1), colors, strict=False):
        np.testing.assert_allclose(found, [red, green, blue], atol=3)  # JPEG's
    assert agent.terminate() == 0


@pytest.mark.parametrize(("fit", "outcome"), [("refuse", "failed"), ("stretch", "served")])
def test_frames_of_another_size(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    at_plant: list[str],
    fit: str,
    outcome: str,
):
    source = str(video(tmp_path / "video.avi", [RED] * 5, height=64, width=64))
    bundle = image_bundle(tmp_path, height=32, width=48)
    config = write_config(tmp_path, bundle, "camera", source=source, newest=False, fit=fit)
    agent = start_agent("--config", config, *at_plant)
    agent.wait_for("input ended")
    collector.wait_for(lambda c: c.outcomes.get(outcome) == 5, f"five {outcome}")
    told = [line for line in agent.lines if "has 64x64 pixels. Expected 48x32" in line]
    assert len(told) == (fit == "refuse")


@pytest.mark.parametrize("source", ["/dev/video99", "rtsp://user:secret@127.0.0.1:9/stream"])
def test_a_camera_that_is_not_there_is_waited_for(
    start_agent: StartAgent, tmp_path: Path, source: str
):
    bundle = image_bundle(tmp_path, height=32, width=48)
    agent = start_agent("--config", write_config(tmp_path, bundle, "camera", source=source)).ready()
    line = agent.wait_for("cannot be opened. Expected a V4L2 device")
    assert "secret" not in line
    with agent.client("frames") as client:
        client.infer({"sensor": frame(RED, 32, 48)})
    assert agent.terminate() == 0


def test_a_camera_on_rtsp_to_the_pixel_and_again_when_it_has_gone(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (32, 48, 3)).astype(np.uint8) for _ in range(12)]
    bundle = image_bundle(tmp_path, height=32, width=48)
    with rtsp.camera(frames) as camera:
        config = write_config(
            tmp_path, bundle, "camera", source=camera.url(), newest=False, results="results/x"
        )
        agent = start_agent("--config", config, *at_plant)
        found = means(collector, 24)[:24]
        agent.wait_for("gives no more frames")
    shown = [image.mean(axis=(0, 1)) for image in frames * 2]
    np.testing.assert_allclose(found, shown, rtol=1e-5)
    assert agent.terminate() == 0
    assert not any(rtsp.PASSWORD in line for line in agent.lines)


def test_a_model_that_takes_no_frames_is_told_at_the_start(start_agent: StartAgent, tmp_path: Path):
    config = write_config(tmp_path, tiny_bundle(tmp_path), "camera", source="/dev/video0")
    agent = start_agent("--config", config)
    assert agent.end() == 2
    assert "Put the preprocessing into the artifact" in agent.lines[-1]


def sound(path: Path, samples: np.ndarray, *, rate: int = 8000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def steps(count: int, length: int) -> np.ndarray:
    """Samples [n, 1] that stay at 0, 100, 200 … for ``length`` each."""
    return np.repeat(np.arange(count) * 100, length)[:, np.newaxis]


def test_a_wav_file_once_through(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    source = str(sound(tmp_path / "sound.wav", steps(20, 1000)))
    bundle = sound_bundle(tmp_path, samples=1000, rate=8000)
    config = write_config(tmp_path, bundle, "audio", source=source, hop=500, results="results/x")
    agent = start_agent("--config", config, *at_plant)
    agent.wait_for("input ended")
    collector.wait_for(lambda c: c.outcomes.get("served") == 39, "39 inputs, each half overlapping")
    for index, (found,) in enumerate(means(collector, 1)):
        assert found == index * 50
    assert agent.terminate() == 0


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (steps(2, 1000), 16000, "has 16 bits at 16000 Hz. Expected 16 bits at 8000 Hz"),
        (np.hstack([steps(2, 1000)] * 2), 8000, "The sound has 2 channels"),
    ],
)
def test_sound_that_does_not_fit(
    start_agent: StartAgent, tmp_path: Path, samples: np.ndarray, rate: int, message: str
):
    source = str(sound(tmp_path / "sound.wav", samples, rate=rate))
    bundle = sound_bundle(tmp_path, samples=1000, rate=8000)
    agent = start_agent("--config", write_config(tmp_path, bundle, "audio", source=source))
    agent.wait_for(message)
    agent.ready()
    assert agent.terminate() == 0


OVERRUNS = 30_000
"""A megabyte of words about them."""


class Alsa:
    """Stands in for ``arecord``: plays a file of raw samples, then stays silent, or ends."""

    def __init__(self, folder: Path, then: str) -> None:
        (folder / "bin").mkdir()
        self.samples = folder / "samples"
        self.samples.write_bytes(steps(3, 1000).astype("<i2").tobytes())
        self.called = folder / "called"
        program = folder / "bin" / "arecord"
        # More than a pipe holds, and in the language of the place.
        word = '$([ "$LC_ALL" = C ] && echo overrun || echo Überlauf)'
        warnings = f'yes "{word}!!! (at least 1.234 ms long)" | head -n {OVERRUNS} >&2'
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {self.called}\n{warnings}\ncat {self.samples}\n{then}\n'
        )
        program.chmod(0o755)


@pytest.fixture
def alsa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Alsa:
    alsa = Alsa(tmp_path, request.param)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return alsa


def record(start_agent: StartAgent, tmp_path: Path, *flags: str) -> AgentProcess:
    bundle = sound_bundle(tmp_path, samples=1000, rate=8000)
    config = write_config(tmp_path, bundle, "audio", source="alsa:hw:1,0", results="results/x")
    return start_agent("--config", config, *flags)


@pytest.mark.parametrize("alsa", ["exec sleep 600"], indirect=True)
def test_alsa_is_recorded_until_the_end(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    at_plant: list[str],
    alsa: Alsa,
):
    agent = record(start_agent, tmp_path, *at_plant)
    collector.wait_for(lambda c: c.outcomes.get("served") == 3, "three inputs")
    assert alsa.called.read_text() == "-q -D hw:1,0 -t raw -f S16_LE -c 1 -r 8000\n"
    assert agent.terminate() == 0


@pytest.mark.parametrize("alsa", ["exec sleep 600"], indirect=True)
@pytest.mark.usefixtures("alsa")
def test_sound_that_alsa_lost_is_counted_and_told_now_and_then(
    start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    agent = record(start_agent, tmp_path).ready()
    give_up = time.monotonic() + PATIENCE_S
    with agent.client() as client:
        while (model := client.get("/edgeml/v1/status")["models"][0])["overruns"] < OVERRUNS:
            assert time.monotonic() < give_up, f"only {model}"
    with urllib.request.urlopen(f"{agent.url}/metrics") as response:
        counted = f'edgeml_input_overruns_total{{model="{model["name"]}"}} {float(OVERRUNS)}'
        assert counted in response.read().decode()
    assert agent.terminate() == 0
    told = [line for line in agent.lines if " sound lost " in line]
    assert 1 <= len(told) <= OVERRUNS.bit_length()


@pytest.mark.parametrize("alsa", ["echo no such device >&2; exit 1"], indirect=True)
def test_a_microphone_that_goes_is_opened_again(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    at_plant: list[str],
    alsa: Alsa,
):
    agent = record(start_agent, tmp_path, *at_plant)
    agent.wait_for("gives no more sound: no such device")
    collector.wait_for(lambda c: c.outcomes.get("served", 0) >= 6, "what it gave twice")
    assert len(alsa.called.read_text().splitlines()) > 1
    told = [line for line in agent.lines if "gives no more sound" in line]
    assert len(told) == 1
    assert agent.terminate() == 0


def test_no_program_for_alsa(
    start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    agent = record(start_agent, tmp_path)
    assert agent.end() == 2
    assert "apt-get install alsa-utils" in agent.lines[-1]
