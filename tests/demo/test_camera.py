"""The demo's camera, and how it breaks."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import numpy as np
import pytest
from support.weights import images

from edgeml.demo.camera import DARKENED, Camera, darken_and_blur

PATIENCE_S = 60.0
CLASSES = 5
VERDICTS = ("right", "wrong", "right", "refused")
LABELS = np.arange(CLASSES, dtype=np.int64)
DIGITS = np.broadcast_to(
    (0.2 * LABELS).astype(np.float32)[:, None, None, None], (CLASSES, 1, 8, 8)
).copy()
"""One plain image for each class; its light is its class."""


def test_a_broken_camera_keeps_shape_and_dtype_and_halves_the_light() -> None:
    good = images(50, seed=1)
    bad = darken_and_blur(good)
    assert (bad.shape, bad.dtype) == (good.shape, good.dtype)
    assert bad.mean() == pytest.approx(0.5 * good.mean(), rel=0.01)
    # Where there is nothing to blur, all that is left is the dark.
    assert darken_and_blur(DIGITS) == pytest.approx(0.5 * DIGITS)


def test_a_broken_camera_blurs_beyond_what_the_dark_explains() -> None:
    good = images(50, seed=1)
    steps = [np.abs(np.diff(batch, axis=3)).mean() for batch in (good, darken_and_blur(good))]
    assert steps[1] < 0.5 * DARKENED * steps[0]


def test_a_box_of_three_by_three_is_what_blurs() -> None:
    point = np.zeros((1, 1, 8, 8), dtype=np.float32)
    point[0, 0, 4, 4] = 1
    bad = darken_and_blur(point)
    assert bad[0, 0, 3:6, 3:6] == pytest.approx(np.full((3, 3), DARKENED / 9))
    assert np.count_nonzero(bad) == 9


class SmallAgent:
    """An HTTP server with an agent's local call that is right, wrong, or refuses, in turn."""

    def __init__(self) -> None:
        self.seen: Queue[tuple[str, float]] = Queue()
        """What it did with each image, and how bright that was."""
        agent, count = self, iter(range(10**9))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                image = body[int(self.headers["Inference-Header-Content-Length"]) :]
                light = float(np.frombuffer(image, dtype="<f4").mean())
                verdict = VERDICTS[next(count) % len(VERDICTS)]
                status, document = _answer(round(light / 0.2), verdict)
                payload = json.dumps(document).encode()
                agent.seen.put((verdict, light))
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, count: int) -> list[tuple[str, float]]:
        """What it did with the next images; waits for them."""
        return [self.seen.get(timeout=PATIENCE_S) for _ in range(count)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answer(label: int, verdict: str) -> tuple[int, dict[str, Any]]:
    if verdict == "refused":
        return 503, {"error": "the queue is full"}
    named = label if verdict == "right" else (label + 1) % CLASSES
    scores = [float(k == named) for k in range(CLASSES)]
    output = {"name": "scores", "datatype": "FP32", "shape": [1, CLASSES], "data": scores}
    return 200, {"model_name": "digits", "model_version": "1.0", "outputs": [output]}


@pytest.fixture
def agent() -> Iterator[SmallAgent]:
    found = SmallAgent()
    yield found
    found.close()


def camera(url: str) -> Camera:
    return Camera(url, model="digits", images=DIGITS, labels=LABELS, per_second=500, seed=1)


def test_a_camera_counts_answers_that_are_right_wrong_or_missing(agent: SmallAgent) -> None:
    sending = camera(agent.url)
    sending.start()
    seen = agent.take(40)
    sending.stop()
    while not agent.seen.empty():
        seen.append(agent.seen.get())
    verdicts = Counter(verdict for verdict, _ in seen)
    assert sending.outcomes == {
        "right": verdicts["right"],
        "wrong": verdicts["wrong"],
        "CallError": verdicts["refused"],
    }
    assert {round(light / 0.2) for _, light in seen} == set(range(CLASSES))


def test_a_camera_goes_on_where_no_agent_answers(unused_port: int) -> None:
    sending = camera(f"http://127.0.0.1:{unused_port}")
    failed = threading.Event()

    class Noting(Counter[str]):
        def __setitem__(self, key: str, value: int) -> None:
            super().__setitem__(key, value)
            if value == 3:
                failed.set()

    sending.outcomes = Noting()
    sending.start()
    assert failed.wait(PATIENCE_S)
    sending.stop()
    assert set(sending.outcomes) == {"CallError"}


def test_from_the_break_on_all_images_are_dark(agent: SmallAgent) -> None:
    sending = camera(agent.url)
    sending.start()
    assert max(light for _, light in agent.take(40)) == pytest.approx(0.8)
    sending.break_it()
    while not agent.seen.empty():  # those of before, and of the moment itself
        agent.seen.get()
    agent.take(1)
    assert max(light for _, light in agent.take(40)) <= 0.5 * 0.8 + 1e-6
    sending.stop()
