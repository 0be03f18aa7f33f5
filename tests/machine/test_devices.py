"""A camera and a sound card as the kernel has them: drivers without hardware, ``vivid`` and
``snd-aloop``."""

from __future__ import annotations

import json
import wave
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.agents import Collector
from support.brokers import Mosquitto
from support.sensor_bundles import image_bundle, sound_bundle
from support.units import Unit, run

from edgeml.telemetry import Topics

DRIVER = Path("/sys/bus/platform/drivers/vivid")
RATE = 8000
SAMPLES = 1000


@pytest.fixture
def collector(mosquitto: Mosquitto) -> Iterator[Collector]:
    found = Collector(mosquitto.host, mosquitto.port, Topics("plant", "cam"))
    yield found
    found.close()


def config(mosquitto: Mosquitto, bundle: Path, *source: str) -> str:
    """Of an agent whose answers go to ``results/x``."""
    lines = [
        *('site = "plant"', 'device = "cam"'),
        *("[broker]", f'host = "{mosquitto.host}"', f"port = {mosquitto.port}"),
        *("[[model]]", f'bundle = "{bundle}"', "window_s = 1", "deadline_ms = 30000"),
        *("statistics_share = 1", *source, 'results = "results/x"'),
    ]
    return "\n".join(lines) + "\n"


def answers(collector: Collector) -> list[list[float]]:
    """What the model made of what it was given, in that order."""
    found = [json.loads(payload) for topic, payload in collector.other if topic == "results/x"]
    return [document["outputs"][0]["data"] for document in found]


@pytest.fixture
def camera() -> Iterator[None]:
    run("modprobe", "vivid", "n_devs=1", "node_types=0x1")
    run("udevadm", "settle")
    yield
    run("modprobe", "--remove", "vivid")


def fill(color: str) -> None:
    """What the camera sees from now on: one colour, and none of the text that the driver adds."""
    menus = run("v4l2-ctl", "--device=/dev/video0", "--list-ctrls-menus")
    entries = [line.strip().split(": ", 1) for line in menus.splitlines()]
    (pattern,) = (entry[0] for entry in entries if entry[-1] == f"100% {color}")
    plain = f"--set-ctrl=test_pattern={pattern},osd_text_mode=2"
    run("v4l2-ctl", "--device=/dev/video0", plain)


def sees(collector: Collector, *color: int) -> None:
    """Wait for frames, from now on, that have this mean by channel, in the model's order."""
    past = len(answers(collector))

    def seen(collector: Collector) -> bool:
        frames = np.array(answers(collector)[past:]).reshape(-1, 3)
        return bool((np.abs(frames - color) < 5).all(axis=1).sum() >= 3)

    try:
        collector.wait_for(seen, "")
    except AssertionError:
        pytest.fail(f"no frames of {color}, the last are {answers(collector)[past:][-5:]}")


def test_a_camera_of_v4l2_is_read_and_may_go_and_come(
    camera: None, unit: Unit, place: Path, mosquitto: Mosquitto, collector: Collector
):
    bundle = image_bundle(place, height=180, width=320, calibration=20)
    source = ("[[model.camera]]", 'source = "/dev/video0"', "every_s = 0.3")
    fill("Red")
    unit.install(config(mosquitto, bundle, *source), user="edgeml", target="meter")
    unit.start()
    sees(collector, 255, 0, 0)  # of RGB, as the bundle says; OpenCV gives BGR
    fill("Blue")
    sees(collector, 0, 0, 255)
    collector.wait_for(lambda c: c.rows >= 3, "statistics of frames")

    (DRIVER / "unbind").write_text("vivid.0")  # as if somebody pulled it out
    unit.journal.wait_for("/dev/video0 gives no more frames")
    assert unit.status().models[0].phase == "active"
    (DRIVER / "bind").write_text("vivid.0")
    run("udevadm", "settle")
    fill("Green")
    sees(collector, 0, 255, 0)
    run("systemctl", "stop", "edgeml-agent")


@pytest.fixture
def sound_card() -> Iterator[None]:
    """What is played on device 0 of ``Loopback`` is heard on its device 1."""
    run("modprobe", "snd-aloop", "pcm_substreams=1")
    run("udevadm", "settle")
    yield
    run("modprobe", "--remove", "snd-aloop")


def test_sound_of_alsa_is_heard_to_the_sample(
    sound_card: None, unit: Unit, place: Path, mosquitto: Mosquitto, collector: Collector
):
    played = np.random.default_rng(0).integers(-(2**15), 2**15, 12 * RATE).astype("<i2")
    with wave.open(str(place / "noise.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(played.tobytes())
    bundle = sound_bundle(place, samples=SAMPLES, rate=RATE)
    source = ("[[model.audio]]", 'source = "alsa:hw:Loopback,1,0"')
    unit.install(config(mosquitto, bundle, *source), user="edgeml", target="meter")
    unit.start()
    # Its buffer is long enough for a machine that stands still for a moment.
    buffer = "--buffer-time=2000000"
    said = run("aplay", "-q", buffer, "-D", "hw:Loopback,0,0", place / "noise.wav")
    run("systemctl", "stop", "edgeml-agent")
    assert int(unit.show("NRestarts")) == 0

    # Each answer is the mean of a thousand samples, which tells where in the noise they may be.
    # Where the emulated machine was too slow for its sound card there is a gap, and one piece fits
    # nowhere; else each begins at the sample behind the piece before.
    sums = np.concatenate([[0], np.cumsum(played, dtype=np.int64)])
    begins: dict[int, set[int]] = defaultdict(set)
    for begin, total in enumerate((sums[SAMPLES:] - sums[:-SAMPLES]).tolist()):
        begins[total].add(begin)
    heard = np.array(answers(collector)).reshape(-1).tolist()
    found = [begins[round(mean * SAMPLES)] for mean in heard if mean]
    follow = [
        any(begin + SAMPLES in after for begin in before) for before, after in pairwise(found)
    ]
    assert sum(follow) > 60, "\n".join([str(found), said, *unit.journal.lines])
