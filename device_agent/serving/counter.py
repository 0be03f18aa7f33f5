"""Computes the statistics of what was served, beside the requests: no answer waits for them."""

from __future__ import annotations

import threading

from edgeml.device_agent.serving.recorder import Recorder


class Counter:
    """A thread of one model's, which sleeps until a recorder has gathered enough."""

    def __init__(self) -> None:
        self._bell = threading.Event()
        self._lock = threading.Lock()
        self._due: list[Recorder] = []
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="counter", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is gathered is computed when its window is closed."""
        self._ended = True
        self._bell.set()
        if self._thread.ident is not None:
            self._thread.join()

    def compute(self, recorder: Recorder) -> None:
        """Have a recorder compute, soon."""
        with self._lock:
            if recorder not in self._due:
                self._due.append(recorder)
        self._bell.set()

    def _run(self) -> None:
        while not self._ended:
            self._bell.wait()
            self._bell.clear()
            with self._lock:
                due, self._due = self._due, []
            for recorder in due:
                recorder.compute()
