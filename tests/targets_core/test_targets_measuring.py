"""What a measurement is of: a process of its own, on one core."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.bundles import MODELS
from support.weights import images

from edgeml.targets.measuring import MeasureJob, measure

PINNED = """
import os
import threading

from edgeml.targets.measuring import pin

cores = pin(1)
found = []
thread = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
thread.start()
thread.join()
print(cores, len(os.sched_getaffinity(0)), len(found[0]))
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are bound on Linux alone")
def test_one_thread_is_one_core_for_whatever_the_runtime_starts():
    done = subprocess.run(
        [sys.executable, "-c", PINNED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "1", "1"]


SLOW = """
import sys
import time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            time.sleep(2)

sys.meta_path.insert(0, Slow())
"""


def test_load_time_is_the_artifacts_and_not_the_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    np.savez(tmp_path / "samples.npz", image=images(4))
    began = time.monotonic()
    found = measure(_tiny(tmp_path))
    assert time.monotonic() - began > 2
    assert 0 < found.load_ms < 2000


def test_what_we_hold_ourselves_is_in_no_measurement(tmp_path: Path):
    held = np.ones(60_000_000)  # 480 MB, all touched
    np.savez(tmp_path / "samples.npz", image=images(4))
    found = measure(_tiny(tmp_path))
    assert held.nbytes == 480_000_000
    assert 20 < found.peak_rss_mb < 300
    assert found.cores == 1
    assert 0 < found.p50_ms <= found.p99_ms
    assert found.load_ms > 0
    assert found.turns_ms == ()


def _tiny(folder: Path) -> MeasureJob:
    return MeasureJob(
        target="onnx",
        entry=MODELS / "tiny.onnx",
        inputs={"image": "image"},
        outputs={"scores": "scores"},
        samples=folder / "samples.npz",
        options={},
    )
