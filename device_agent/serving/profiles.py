"""What each artifact costs on this very device: measured at install, kept, and kept up to date.

A bundle tells what an artifact cost on the exporter's machine. Admission, the ladder and the choice
between a swap side by side and one that unloads first go by what it costs here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

import msgspec

from edgeml.bundle import Bundle, Golden
from edgeml.decoding import from_json
from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.snapshot import Profile

RUNS = 100
"""Inferences of a measurement: the least that a 99th percentile stands for something."""

SPAN_S = 2.0
"""A measurement ends after this, however many there were: one of a slow model is no reason to be
without it for a minute."""


def measure(runner: Runner, golden: Golden, *, timeout_s: float) -> Profile:
    """Run the golden inputs again and again. The variant's latency learns from it.

    Raises:
        WorkerError: the worker did not survive it.
    """
    variant = runner.variant
    feeds = [
        {name: array[index : index + 1] for name, array in golden.inputs.items()}
        for index in range(len(golden))
    ]
    times: list[float] = []
    begin = time.monotonic()
    for given in itertools.islice(itertools.cycle(feeds), RUNS):
        before = time.monotonic()
        runner.worker.run(given, timeout_s=timeout_s)
        now = time.monotonic()
        times.append(now - before)
        if now - begin > SPAN_S:
            break
    variant.latency.clear()
    for seconds in times:
        variant.latency.add(seconds)
    return Profile(
        bundle=variant.bundle.sha256,
        artifact=variant.artifact.id,
        runs=len(times),
        p50_ms=variant.latency.p50 * 1000,
        p99_ms=variant.latency.p99 * 1000,
        max_ms=max(times) * 1000,
        load_ms=runner.start_ms,
        first_load_ms=runner.start_ms,
        peak_mb=(runner.worker.peak_bytes() or 0) / 1e6,
    )


def renewed(profile: Profile, runner: Runner, *, served: int) -> Profile:
    """A profile with what serving has shown since.

    Args:
        profile: until now.
        runner: of the same variant, in use.
        served: requests since.
    """
    latency = runner.variant.latency
    return msgspec.structs.replace(
        profile,
        runs=profile.runs + served,
        p50_ms=latency.p50 * 1000,
        p99_ms=latency.p99 * 1000,
        max_ms=max(profile.max_ms, latency.quantile(1.0) * 1000),
        load_ms=runner.start_ms,
        peak_mb=max(profile.peak_mb, (runner.worker.peak_bytes() or 0) / 1e6),
    )


class Profiles:
    """A file for each artifact. Losing one costs a measurement, so nothing here is fatal.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, bundle: str, artifact: str) -> Profile | None:
        """What is known of an artifact, or None."""
        try:
            found = from_json(self._path(bundle, artifact).read_bytes(), Profile)
        except (OSError, msgspec.DecodeError):
            return None
        return found if (found.bundle, found.artifact) == (bundle, artifact) else None

    def save(self, profile: Profile) -> None:
        """Keep it, in place of what was known. A power cut leaves the one or the other."""
        path = self._path(profile.bundle, profile.artifact)
        draft = path.with_suffix(".draft")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(profile))
            os.replace(draft, path)  # noqa: PTH105 - the atomic one
        except OSError as error:
            logs.warn("profile not kept", artifact=profile.artifact, reason=error)
            with contextlib.suppress(OSError):
                draft.unlink()

    def forget(self, bundle: Bundle) -> None:
        """Measure all artifacts of a bundle anew when they are brought up."""
        for artifact in bundle.manifest.artifacts:
            with contextlib.suppress(OSError):
                self._path(bundle.sha256, artifact.id).unlink()

    def _path(self, bundle: str, artifact: str) -> Path:
        return self._folder / f"{bundle[: bounds.BUNDLE_DIGITS]}-{artifact}.json"


class Upkeep:
    """Writes what serving has shown of an artifact to its profile, now and then.

    Args:
        profiles: of this device.
        now: monotonic, seconds.
    """

    def __init__(self, profiles: Profiles, *, now: float) -> None:
        self._profiles = profiles
        self._at = now
        self._served = 0

    def begin(self, served: int, *, now: float) -> None:
        """Another runner serves; ``served`` requests were before it."""
        self._at, self._served = now, served

    def look(self, runner: Runner, served: int, *, now: float) -> None:
        """Keep it if that was long ago."""
        if now - self._at >= bounds.PROFILE_KEEP_S:
            self.keep(runner, served, now=now)

    def keep(self, runner: Runner | None, served: int, *, now: float) -> None:
        """Keep it now.

        Args:
            runner: that serves.
            served: requests since the start.
            now: monotonic, seconds.
        """
        more = served - self._served
        self.begin(served, now=now)
        if runner is None or runner.variant.profile is None or not more:
            return
        runner.variant.profile = renewed(runner.variant.profile, runner, served=more)
        self._profiles.save(runner.variant.profile)
