"""A camera that shows one digit after another to a device's agent, until somebody breaks it."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from edgeml.device_agent.local.client import Client
from edgeml.errors import EdgemlError

Images = NDArray[np.float32]

DARKENED = 0.5
"""What is left of the light when the camera is broken."""


def darken_and_blur(images: Images) -> Images:
    """Half the light, and a 3x3 box blur, of images [n, 1, h, w]."""
    h, w = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    shifted = [padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return (DARKENED * np.mean(shifted, axis=0)).astype(np.float32)


class Camera:
    """Sends digits, drawn at random from ``images``, to the local API of an agent at a steady rate.

    Args:
        url: base address of the agent's local API.
        model: name of the model there: ``image`` in, one output, a score for each class.
        images: [n, 1, 8, 8] float32.
        labels: [n]; what the digits really are.
        per_second: images a second.
        seed: of the order in which they come.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        images: Images,
        labels: NDArray[np.int64],
        per_second: float,
        seed: int,
    ) -> None:
        self._client = Client(url, model)
        self._good, self._bad = images, darken_and_blur(images)
        self._labels = labels
        self._period = 1 / per_second
        self._random = np.random.default_rng(seed)
        self._broken = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera of {url}", daemon=True)
        self.outcomes: Counter[str] = Counter()
        """``right`` and ``wrong`` answers, and what went wrong otherwise."""

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def break_it(self) -> None:
        """From now on all images are dark and blurred."""
        self._broken.set()

    def stop(self) -> None:
        """Send no more; returns when the last image was answered."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            row = int(self._random.integers(len(self._labels)))
            images = self._bad if self._broken.is_set() else self._good
            try:
                outputs = self._client.infer({"image": images[row : row + 1]})
            except EdgemlError as error:
                self.outcomes[type(error).__name__] += 1
                continue
            (scores,) = outputs.values()
            right = int(scores.argmax()) == self._labels[row]
            self.outcomes["right" if right else "wrong"] += 1
