"""A sound card as the kernel has it: its driver without hardware, ``snd-aloop``."""

from __future__ import annotations

import json
import wave
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import Mosquitto
from support.agents import Collector
from support.sensor_bundles import sound_bundle
from support.units import Unit, run

from edgeml.telemetry import Topics

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
