"""What versions leave in the state folder beside their bundles, and how it goes with them:
extracted artifacts, what those cost here, and TensorRT's engines.

All of it can be had again from a bundle, so that a fault here costs time and disk, and no version.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgeml.bundle import read_manifest
from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.install.disk import Disk
from edgeml.errors import BundleError
from edgeml.targets.tensorrt import caches


class Remains:
    """Args:
    disk: to remove with.
    artifacts: has a folder for each bundle, with those of its artifacts that were extracted.
    profiles: has a file for each artifact of a bundle, and what it costs here.
    engines: see :mod:`edgeml.targets.tensorrt.caches`.
    """

    def __init__(self, disk: Disk, *, artifacts: Path, profiles: Path, engines: Path) -> None:
        self._disk = disk
        self._artifacts = artifacts
        self._profiles = profiles
        self._engines = engines

    def sweep(self, bundles: Mapping[str, Path], *, settled: bool) -> None:
        """Remove what is of no version that is installed. What resists stays for next time.

        Args:
            bundles: SHA-256 of each that is → its file.
            settled: see :func:`edgeml.targets.tensorrt.caches.surplus`.
        """
        named = {sha256[: bounds.BUNDLE_DIGITS] for sha256 in bundles}
        for folder, remove in (
            (self._artifacts, self._disk.remove_tree),
            (self._profiles, self._disk.remove),
        ):
            for path in list(folder.iterdir()) if folder.exists() else []:
                if path.name[: bounds.BUNDLE_DIGITS] not in named:
                    with contextlib.suppress(OSError):
                        remove(path)
        if self._engines.exists():
            try:
                self._sweep_engines(bundles, settled=settled)
            except (OSError, BundleError) as error:  # all may be of a bundle that cannot be read
                logs.warn("engines not removed", reason=error)

    def _sweep_engines(self, bundles: Mapping[str, Path], *, settled: bool) -> None:
        artifacts = [
            artifact
            for path in bundles.values()
            for artifact in read_manifest(path).artifacts
            if artifact.target == "tensorrt"
        ]
        models = Counter(caches.model_of(artifact.files[0].sha256) for artifact in artifacts)
        caches.sweep(self._engines, models, settled=settled, remove=self._remove_engine)

    def _remove_engine(self, folder: Path) -> None:
        logs.info("engine removed", folder=folder)
        self._disk.remove_tree(folder)
