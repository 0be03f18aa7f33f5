"""The fleet that ``collector.py`` measures: what its devices send, minute by minute."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeml.bundle import Tensor
from edgeml.statistics import Baseline, Observer, fit_baseline, pack
from edgeml.telemetry import DeviceFacts, Status, Topics, Window, encode

NUMBERS, CLASSES = 15, 4
ROWS, POOL, A_SITE = 60, 200, 10
LENGTH_MS = 60_000
START_MS = 1_800_000_000_000
BUNDLE = "b" * 64
Arrays = dict[str, np.ndarray]


def samples(random: np.random.Generator, rows: int) -> tuple[Arrays, Arrays]:
    """What goes into a model, and what comes out of it."""
    numbers = random.normal(size=(rows, NUMBERS)).astype(np.float32)
    codes = random.integers(0, 6, (rows, 2))
    scores = np.exp(random.normal(size=(rows, CLASSES)))
    scores /= scores.sum(axis=1, keepdims=True)
    return {"numbers": numbers, "codes": codes}, {"scores": scores.astype(np.float32)}


class Fleet:
    """Windows of so many devices, as they come from the broker."""

    def __init__(self, devices: int) -> None:
        random = np.random.default_rng(0)
        inputs, outputs = samples(random, 2000)
        tensors = (
            Tensor(name="numbers", shape=(1, NUMBERS), dtype="float32", meaning="features"),
            Tensor(name="codes", shape=(1, 2), dtype="int64", meaning="features"),
            Tensor(name="scores", shape=(1, CLASSES), dtype="float32", meaning="scores"),
        )
        fitted = fit_baseline(
            inputs, outputs, input_tensors=tensors[:2], output_tensors=tensors[2:]
        )
        self.baseline = Baseline.decode(fitted.encode())
        self.streams = len(self.baseline.streams)
        self.topics = [Topics(f"site-{n // A_SITE}", f"device-{n}") for n in range(devices)]
        self._random = random
        observer = Observer(self.baseline)
        self._pool: list[list[bytes]] = []
        for _ in range(POOL):
            observer.observe(*samples(random, ROWS))
            self._pool.append([pack(counts) for counts in observer.take().values()])

    def slot(self, number: int) -> Iterator[tuple[str, bytes]]:
        """Topic and payload of each device's window of a minute."""
        chosen: list[int] = self._random.integers(POOL, size=len(self.topics)).tolist()
        for at, (topics, statistics) in enumerate(zip(self.topics, chosen, strict=True)):
            window = Window(
                boot="boot-1",
                sequence=number + 1,
                oldest=number + 1,
                model="model",
                version="1.0",
                bundle=BUNDLE,
                artifact="onnx-fp32",
                start_ms=START_MS + number * LENGTH_MS + at,
                duration_ms=LENGTH_MS,
                rows=ROWS,
                outcomes={"served": ROWS},
                baseline=self.baseline.hash,
                statistics=self._pool[statistics],
            )
            yield topics.stats("model"), encode(window)

    def births(self) -> Iterator[tuple[str, bytes]]:
        """Topic and payload of what each device says of itself: every tenth has other firmware."""
        facts = DeviceFacts(machine="aarch64", system="Linux 6.6", cores=4, memory_mb=4096)
        for at, topics in enumerate(self.topics):
            status = Status(
                online=True,
                boot="boot-1",
                started_ms=START_MS,
                agent="0.2.0" if at % 10 == 9 else "0.1.0",
                facts=facts,
            )
            yield topics.status, encode(status)
