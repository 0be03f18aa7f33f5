"""A bundle's baseline beside samples of its input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.bundles import images, tiny_bundle

import edgeml
from edgeml.errors import SourceError, UsageError


def test_frames_that_became_brighter(tmp_path: Path) -> None:
    bundle, usual, bright = tiny_bundle(tmp_path), tmp_path / "usual.npz", tmp_path / "bright.npz"
    np.savez(usual, image=images(400, seed=2))
    np.savez(bright, image=images(400, seed=2) + np.float32(0.4))
    assert not edgeml.drift(bundle, usual).drift
    result = edgeml.drift(bundle, bright)
    assert result.drift
    assert "image.luma_mean" in {one.name for one in result.columns if one.verdict == "drift"}
    assert all(one.column == "image" for one in result.columns)
    with pytest.raises(UsageError, match="needs a table"):
        edgeml.drift(bundle, bright, time="when")


def test_a_bundle_without_calibration_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "frames.npz", image=images(10, seed=1))
    with pytest.raises(SourceError, match="no statistics baseline"):
        edgeml.drift(tiny_bundle(tmp_path, calibration=0), tmp_path / "frames.npz")
