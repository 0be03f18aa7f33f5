"""The demo's story, in five steps: train, export, start a fleet, break a camera, find it.

Everything is real: the digits, the training, the converters, the processes, the broker. Only the
clock is compressed: windows close each second, where a fleet in the field would take minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import numpy as np

from edgeml.bundle import Bundle, open_bundle
from edgeml.decoding import from_plain
from edgeml.demo.camera import Camera
from edgeml.demo.programs import Program, running
from edgeml.demo.telling import Telling
from edgeml.errors import EdgemlError

T = TypeVar("T")

MODEL = "digits"
VERSION = "1.0.0"
SITE = "demo"
TARGETS = ("tflite", "openvino", "onnx")
DEVICES = {"mast-cam": "tflite", "hall-cam": "openvino", "gate-cam": "onnx"}
"""Device → the target whose artifact it runs."""
BROKEN = "mast-cam"

WINDOW_S = 1.0
IMAGES_PER_S = 40.0
DEADLINE_MS = 250.0
MEMORY_MB = 400.0

BUDGET_WINDOWS = 2000
"""One false alarm of the whole fleet is expected in so many windows of each stream, at most."""

REFERENCE_WINDOWS = 24
"""Half the collector's default: enough for evidence, and nobody waits twice as long."""

READY_S = 60.0
ARMED_S = 120.0
ARMED_SHARE = 0.7
"""Of each device's streams, which is when the demo goes on."""
ALARM_S = 60.0


class Alarm(msgspec.Struct, frozen=True):
    """What the collector says of an alarm, as far as the demo prints it."""

    device: str
    stream: str
    effect: float
    effect_name: str
    evidence: float
    threshold: float


class Stream(msgspec.Struct, frozen=True):
    """A statistic of a device, as far as the demo waits for it."""

    device: str
    armed: bool


class Demo:
    """One run of the demo.

    Args:
        folder: takes weights, data, bundle, the collector's database and all logs.
        sample: ``sample_models/digits`` of the checkout.
        converters: lends the toolchain's interpreter, to train with.
        telling: prints the story.
    """

    def __init__(
        self,
        *,
        folder: Path,
        sample: Path,
        converters: Callable[[], AbstractContextManager[Path]],
        telling: Telling,
    ) -> None:
        self.folder = folder
        self._sample = sample
        self._converters = converters
        self._telling = telling

    def run(self, *, keep: bool = False) -> None:
        """Tell the whole story.

        Args:
            keep: leave the fleet running, once the alarm is found, until Ctrl-C.

        Raises:
            EdgemlError: something did not go as it should, a false alarm included.
        """
        began = time.monotonic()
        tell = self._telling
        tell.step("Train a classifier of handwritten digits")
        self.train()
        tell.step(f"Export it to {', '.join(TARGETS)}, int8 with real calibration data")
        bundle = self.export()
        tell.step(f"Run it: a broker, the collector and {len(DEVICES)} devices")
        with self.fleet(bundle) as fleet:
            for device, target in DEVICES.items():
                tell.say(f"{device} runs {bundle.manifest.artifact(target).id}")
            tell.say(f"The fleet's page: {fleet.page}")
            tell.say(
                f"Each statistic first collects {REFERENCE_WINDOWS} windows of {WINDOW_S:g} s to "
                "compare later ones with …"
            )
            armed, streams = fleet.wait_until_armed()
            fleet.expect_silence()
            tell.say(f"{armed} of {streams} statistics are armed, and none is alarmed.")
            tell.step(f"Break a camera: the images of {BROKEN} go dark and blurred")
            fleet.cameras[BROKEN].break_it()
            broken = time.monotonic()
            alarm = fleet.wait_for_alarm(BROKEN)
            windows = (time.monotonic() - broken) / WINDOW_S
            tell.stress(f"ALARM on {alarm.device} after {windows:.0f} windows: {alarm.stream}")
            tell.say(f"Effect: {alarm.effect_name} {alarm.effect:.2f}")
            tell.say(f"Evidence: {alarm.evidence:,.0f}, threshold {alarm.threshold:,.0f}")
            fleet.expect_silence(but=BROKEN)
            if keep:
                tell.stress(f"The fleet goes on: {fleet.page}  (Ctrl-C ends it)")
                fleet.go_on_until_interrupted()
            tell.step("Stop everything")
        for device, camera in fleet.cameras.items():
            right, wrong = camera.outcomes["right"], camera.outcomes["wrong"]
            other = camera.outcomes.total() - right - wrong
            tell.say(
                f"{device}: {right + wrong:,} answers, {right / max(right + wrong, 1):.1%} right"
                + (f", {other} without an answer" if other else "")
            )
        tell.stress(
            f"From a trained model to a drift alarm in {time.monotonic() - began:.0f} s; "
            "nothing is left running."
        )

    def train(self) -> float:
        """Train the classifier; returns its accuracy on digits it has not seen."""
        # Held no longer than this: the export below wants the toolchain for itself.
        with self._converters() as python:
            command = [str(python), str(self._sample / "train.py"), str(self.folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise EdgemlError(
                f"the training ended with exit status {done.returncode}: {last[0]}",
                remedy=f"Try it alone: {' '.join(command)}",
            )
        result = json.loads(done.stdout)
        self._telling.say(
            f"Trained on {result['training_images']:,} handwritten digits in "
            f"{result['seconds']:.0f} s: {result['accuracy']:.1%} right on "
            f"{result['evaluation_images']} that it had not seen."
        )
        return float(result["accuracy"])

    def export(self) -> Bundle:
        """Export what was trained, for every target, through the command line."""
        path = self.folder / f"{MODEL}-{VERSION}.edgeml"
        command = [sys.executable, "-m", "edgeml", "export"]
        command += [f"{self._sample / 'model.py'}:trained"]
        for target in TARGETS:
            command += ["-t", target]
        command += ["--calibration", str(self.folder / "calibration.npz")]
        command += ["--evaluate", str(self.folder / "evaluation.npz")]
        command += ["--name", MODEL, "--version", VERSION, "-o", str(path)]
        command += ["--deadline-ms", f"{DEADLINE_MS:g}", "--memory-mb", f"{MEMORY_MB:g}"]
        environment = os.environ | {"DIGITS_WEIGHTS": str(self.folder / "weights.pt")}
        status = subprocess.run(command, env=environment, check=False).returncode
        if status != 0:
            raise EdgemlError(
                f"the export ended with exit status {status}",
                remedy="What it printed above says why.",
            )
        return open_bundle(path)

    @contextlib.contextmanager
    def fleet(self, bundle: Bundle) -> Generator[Fleet]:
        """Broker, collector, three agents and their cameras; all gone when the block ends."""
        with contextlib.ExitStack() as stack:
            collector = stack.enter_context(
                running(
                    "collector",
                    *("collector", "run", "--embedded-broker", "--http", "127.0.0.1:0"),
                    *("--database", str(self.folder / "collector.sqlite")),
                    *("--per-windows", str(BUDGET_WINDOWS)),
                    *("--reference-windows", str(REFERENCE_WINDOWS), "--season", "none"),
                    *("--bundle", str(bundle.path)),
                    folder=self.folder,
                )
            )
            ready = collector.wait_for(
                r"\bready page=(?P<page>\S+) broker=(?P<broker>\S+)", timeout_s=READY_S
            )
            agents: dict[str, Program] = {}
            cameras: dict[str, Camera] = {}
            with np.load(self.folder / "evaluation.npz") as data:
                images, labels = data["image"], data["labels"]
            for seed, (device, target) in enumerate(DEVICES.items()):
                agents[device] = stack.enter_context(
                    running(
                        f"agent {device}",
                        *("agent", "run", "--bundle", str(bundle.path), "--target", target),
                        *("--broker", ready["broker"], "--site", SITE, "--device", device),
                        *("--http", "127.0.0.1:0", "--state", str(self.folder / device)),
                        *("--window", f"{WINDOW_S:g}"),
                        folder=self.folder,
                    )
                )
                serving = agents[device].wait_for(r"\bready http=(?P<url>\S+)", timeout_s=READY_S)
                cameras[device] = Camera(
                    serving["url"],
                    model=MODEL,
                    images=images,
                    labels=labels,
                    per_second=IMAGES_PER_S,
                    seed=seed,
                )
            for camera in cameras.values():
                camera.start()
            fleet = Fleet(page=ready["page"], collector=collector, agents=agents, cameras=cameras)
            try:
                yield fleet
            finally:
                for camera in cameras.values():
                    camera.stop()
            # Only a fleet that did its work is stopped in order; a failed one just ends.
            for program in (*agents.values(), collector):
                program.stop()


class Fleet:
    """The running fleet, and what its collector says of it."""

    def __init__(
        self,
        *,
        page: str,
        collector: Program,
        agents: dict[str, Program],
        cameras: dict[str, Camera],
    ) -> None:
        self.page = page
        self.cameras = cameras
        self._programs = (collector, *agents.values())
        self._api = httpx.Client(base_url=f"{page.rstrip('/')}/api/v1", timeout=10)

    def wait_until_armed(self) -> tuple[int, int]:
        """Wait until the collector watches most streams of every device; returns how many it does
        and how many there are. A short reference does not convince it of each of them."""

        def armed() -> tuple[int, int] | None:
            streams = from_plain(self._get("drift")["streams"], list[Stream])
            watched = {
                device: [stream.armed for stream in streams if stream.device == device]
                for device in DEVICES
            }
            ready = all(sum(each) >= ARMED_SHARE * len(each) > 0 for each in watched.values())
            return (sum(map(sum, watched.values())), len(streams)) if ready else None

        return self._wait(armed, timeout_s=ARMED_S, what="most streams to be armed")

    def wait_for_alarm(self, device: str) -> Alarm:
        """Wait until the collector raises an alarm on ``device``."""

        def raised() -> Alarm | None:
            return next((alarm for alarm in self.alarms() if alarm.device == device), None)

        return self._wait(raised, timeout_s=ALARM_S, what=f"an alarm on {device}")

    def alarms(self) -> list[Alarm]:
        """All alarms so far, the first one first."""
        return from_plain(self._get("alarms")["alarms"], list[Alarm])

    def expect_silence(self, *, but: str = "") -> None:
        """Raise an EdgemlError if another device than ``but`` was alarmed."""
        false = [alarm for alarm in self.alarms() if alarm.device != but]
        if false:
            raise EdgemlError(
                f"a false alarm on {false[0].device}: {false[0].stream}, evidence "
                f"{false[0].evidence:,.0f} over {false[0].threshold:,.0f}",
                expected=f"none: one is expected in {BUDGET_WINDOWS:,} windows of the fleet",
                remedy="Chance allows it once in many demos; if it comes again, report it.",
            )

    def go_on_until_interrupted(self) -> None:
        """Watch the fleet until Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self.check()
                time.sleep(WINDOW_S)

    def check(self) -> None:
        """Raise an EdgemlError if a program of the fleet has ended."""
        for program in self._programs:
            program.check()

    def _get(self, path: str) -> dict[str, Any]:
        try:
            return self._api.get(path).raise_for_status().json()
        except httpx.HTTPError as error:
            self.check()
            raise EdgemlError(
                f"the collector does not answer on /api/v1/{path}: {error}"
            ) from error

    def _wait(self, look: Callable[[], T | None], *, timeout_s: float, what: str) -> T:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check()
            if (found := look()) is not None:
                return found
            time.sleep(WINDOW_S / 2)
        raise EdgemlError(f"waited {timeout_s:.0f} s in vain for {what}")
