"""What an artifact costs on this very device: measured at install, kept, kept up to date."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import sleeper_bundle
from support.services import serving
from support.sleeper.sleeper_runtime import NAP, NAP_S

from edgeml.device_agent import config as bounds
from edgeml.device_agent.serving.profiles import Profiles


def test_an_artifacts_cost_here_is_measured_once_and_kept(tmp_path: Path):
    bundle = sleeper_bundle(tmp_path, options={"slow_s": "0.005"})
    with serving(bundle, tmp_path) as desk:
        profile = desk.service.snapshot().profile
        assert profile is not None
        assert profile.runs >= 8
        assert 5 <= profile.p50_ms <= profile.p99_ms <= profile.max_ms
        assert profile.load_ms > 0
        assert profile.peak_mb > 5
        sha256 = desk.service.state.bundle
        desk.call()
    kept = Profiles(tmp_path / "profiles").load(sha256, "sleeper-fp32")
    assert kept is not None
    assert kept.runs == profile.runs + 1  # the end of a service keeps what serving has shown
    with serving(bundle, tmp_path) as desk:
        assert desk.service.snapshot().profile == kept


def test_a_profile_that_is_damaged_is_measured_again(tmp_path: Path):
    bundle = sleeper_bundle(tmp_path)
    with serving(bundle, tmp_path):
        pass
    (path,) = (tmp_path / "profiles").iterdir()
    path.write_bytes(b"{")
    with serving(bundle, tmp_path) as desk:
        assert desk.service.snapshot().profile is not None


def test_a_profile_follows_what_serving_shows_while_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On the disk too, before any end: a device may be killed at any time."""
    monkeypatch.setattr(bounds, "PROFILE_KEEP_S", 0.0)
    with serving(sleeper_bundle(tmp_path), tmp_path, deadline_ms=60_000) as desk:
        first = desk.service.snapshot().profile
        assert first is not None
        assert first.max_ms < NAP_S * 1000, "or the naps show nothing"
        for _ in range(3):
            assert desk.call(NAP).outcome == "served"
        kept = Profiles(tmp_path / "profiles")

        def followed() -> bool:
            found = kept.load(desk.service.state.bundle, "sleeper-fp32")
            return found is not None and found.runs == first.runs + 3

        desk.wait_until(followed, "profile that follows")
        now = desk.service.snapshot().profile
        assert now is not None
        assert now == kept.load(desk.service.state.bundle, "sleeper-fp32")
        assert now.max_ms >= NAP_S * 1000
        assert now.p99_ms >= NAP_S * 1000
        assert now.p50_ms < NAP_S * 1000
