"""How much memory an export takes whose calibration data does not fit into it.

    python benchmarks/calibration_memory.py [--count N] [--forms npy npz code] [--folder DIR]

Makes N samples of 3x224x224 float32 (10,000: 6 GB) in each of the forms of DATA, exports a small
net to ONNX with them, and watches every process of the export. Of fp32 and int8, which are both
made, int8 is checked in random order. Takes the disk about three times the samples, and some
minutes. Prints a Markdown table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from page import setting, table, write_section

from edgeml.columns import ColumnWriter

SHAPE = (3, 224, 224)
BATCH = 50
POLL_S = 0.05

NET = """
import numpy as np
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.Conv2d(8, 16, 3, 4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return net, torch.zeros(1, *{shape})

def samples():
    for seed in range({batches}):
        yield np.random.default_rng(seed).normal(size=({batch}, *{shape})).astype("float32")
"""


class Watch(threading.Thread):
    """Looks at a process and all its children until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self.largest = 0
        """Resident set of one process, bytes."""
        self.together = 0
        """Of all of them at a time: a page that several share, as copies of one process do, is
        counted once."""
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            with suppress(psutil.Error):
                resident, own = [0], [0]
                for each in (self._root, *self._root.children(recursive=True)):
                    with suppress(psutil.Error):
                        memory = each.memory_full_info()
                        resident.append(memory.rss)
                        own.append(memory.pss)
                self.largest = max(self.largest, *resident)
                self.together = max(self.together, sum(own))
            time.sleep(POLL_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--forms", nargs="+", default=["npy", "npz", "code"])
    parser.add_argument("--folder", type=Path, help="for everything that is written")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    for form in options.forms:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows.append(measure(Path(folder), form, options.count))
            print(rows[-1], flush=True)
    gigabytes = options.count * np.prod(SHAPE) * 4 / 1e9
    text = "\n\n".join(
        [
            f"{options.count:,} calibration samples of 3x224x224 float32 ({gigabytes:.1f} GB), a "
            "small net from PyTorch to ONNX, fp32 and int8. "
            + setting("numpy", "torch", "onnxruntime"),
            table(("DATA", "largest process, MB", "all processes, MB", "seconds"), rows),
        ]
    )
    print(text)
    if options.write:
        write_section("calibration memory", text)


def measure(folder: Path, form: str, count: int) -> tuple[object, ...]:
    net = folder / "net.py"
    net.write_text(NET.format(batches=count // BATCH, batch=BATCH, shape=SHAPE))
    data = {"npy": "samples.npy", "npz": "samples.npz", "code": "net.py:samples"}[form]
    if form != "code":
        write(folder / data, count)
    request = {
        "model": f"{net}:build",
        "targets": ["onnx"],
        "calibration": str(folder / data),
        "output": str(folder / "out"),
        "tolerances": {"int8": {"cosine": 0.5, "agreement": 0.1}},
        "cache": False,
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeml.exporter"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    watch = Watch(process.pid)
    watch.start()
    answer, _ = process.communicate(json.dumps(request).encode())
    watch.done.set()
    last = json.loads(answer.splitlines()[-1])
    if process.returncode:
        sys.exit(f"{form}: {last}")
    size = (watch.largest / 1e6, watch.together / 1e6, time.monotonic() - began)
    title = {"npz": ".npz, compressed", "npy": ".npy", "code": "FILE.py:ITERABLE"}[form]
    return (title, *(f"{value:,.0f}" for value in size))


def write(path: Path, count: int) -> None:
    """Noise, written as it is drawn; little of it, so that compressing takes no hours."""
    plain = path.with_suffix(".npy")
    with ColumnWriter(plain) as writer:
        for batch in batches(count):
            writer.append(batch)
    if path.suffix == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(plain, "input.npy")
        plain.unlink()


def batches(count: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    noise = random.integers(-3, 4, (BATCH, *SHAPE)).astype(np.float32)
    for start in range(0, count, BATCH):
        yield np.roll(noise, start, axis=3)[: count - start]


if __name__ == "__main__":
    main()
