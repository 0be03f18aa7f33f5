"""Requests from files that are moved into a folder, one after another.

A file is taken once. Names that begin with a dot and other endings than ``.npy`` and ``.npz`` are
left alone, so a writer that makes a file under such a name and then renames it is never read half
way. Files wait on disk, so they are taken one at a time, in the order of their time stamps.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeml.device_agent import logs
from edgeml.device_agent.config import FolderInput
from edgeml.device_agent.inputs import payloads
from edgeml.device_agent.serving import requests
from edgeml.device_agent.worker.layout import Array
from edgeml.errors import AgentError, SourceError

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service

ENDINGS = (".npy", ".npz")
DONE = "done"
FAILED = "failed"


class FolderSource:
    """Watches one folder for one model.

    Args:
        config: of the folder.
        service: the model.
        state: the agent's state folder; remembers what was taken where files are kept.

    Raises:
        AgentError: the folder is missing or cannot be made.
    """

    def __init__(self, config: FolderInput, service: Service, state: Path) -> None:
        self._config = config
        self._service = service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="folder", daemon=True)
        try:
            config.path.mkdir(parents=True, exist_ok=True)
            if config.results:
                config.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AgentError(
                f"The input folder {config.path} cannot be made: {error.strerror}",
                expected="a folder that the agent may write to",
            ) from error
        digest = hashlib.sha256(str(config.path.resolve()).encode()).hexdigest()[:16]
        self._taken_file = state / f"taken-{digest}"
        self._taken: set[str] = set()
        if config.after == "keep":
            with contextlib.suppress(FileNotFoundError):
                self._taken = set(self._taken_file.read_text().splitlines())

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more files; the one at hand is finished."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._config.poll_s):
            self._look()

    def _look(self) -> None:
        try:
            for path in self._waiting():
                if self._stop.is_set():
                    return
                if self._service.ready:
                    self._take(path)
        except OSError as error:  # an unmounted disk may come back
            logs.warn("folder", model=self._service.name, path=self._config.path, reason=error)

    def _waiting(self) -> list[Path]:
        found: list[tuple[int, str, Path]] = []
        marks: set[str] = set()
        with os.scandir(self._config.path) as entries:
            for entry in entries:
                wanted = entry.name.endswith(ENDINGS) and not entry.name.startswith(".")
                if not wanted or not entry.is_file(follow_symlinks=False):
                    continue
                status = entry.stat(follow_symlinks=False)
                mark = f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"
                marks.add(mark)
                if mark not in self._taken:
                    found.append((status.st_mtime_ns, entry.name, Path(entry.path)))
        self._taken &= marks  # what is gone need not be remembered
        return [path for _, _, path in sorted(found)]

    def _take(self, path: Path) -> None:
        answers: list[dict[str, Array]] = []
        problem = ""
        try:
            payloads.check_size(path.stat().st_size)
            given = payloads.arrays(path.read_bytes())
            samples = requests.feeds(given, self._service.manifest.inputs)
        except FileNotFoundError:
            return
        except SourceError as error:
            self._service.unfit()
            problem, samples = str(error), []
        for sample in samples:
            ticket = self._service.submit(sample)
            if ticket.wait() == "served":
                answers.append(ticket.outputs)
            else:
                problem = f"{ticket.outcome}: {ticket.message}"
        if problem:
            logs.warn("file not served", model=self._service.name, path=path, reason=problem)
        elif self._config.results:
            _write_results(self._config.results / f"{path.stem}.npz", answers)
        self._dispose(path, served=not problem)

    def _dispose(self, path: Path, *, served: bool) -> None:
        if self._config.after == "keep":
            status = path.stat()
            self._taken.add(f"{status.st_ino} {status.st_mtime_ns} {status.st_size}")
            temporary = self._taken_file.with_suffix(".new")
            temporary.write_text("\n".join(sorted(self._taken)) + "\n")
            temporary.replace(self._taken_file)
        elif served and self._config.after == "delete":
            path.unlink(missing_ok=True)
        else:
            target = self._config.path / (DONE if served else FAILED)
            target.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                path.replace(target / path.name)


def _write_results(path: Path, answers: list[dict[str, Array]]) -> None:
    """All samples of a file in one, whole when its name appears."""
    stacked = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **stacked)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)
