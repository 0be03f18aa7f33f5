"""Requests from files that are moved into a folder, one after another.

A file is taken once. Names that begin with a dot and other endings than ``.npy`` and ``.npz`` are
left alone, so a writer that makes a file under such a name and then renames it is never read half
way. Files wait on disk, so they are taken one at a time, in the order of their time stamps; one
that an earlier run left half way before all others, so that there is never more than one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.device_agent import logs
from edgeml.device_agent.config import FolderInput
from edgeml.device_agent.inputs import payloads
from edgeml.device_agent.inputs.begun import Begun, joined, read_begun
from edgeml.device_agent.inputs.whole import write_whole
from edgeml.device_agent.serving import requests
from edgeml.device_agent.worker.layout import Array
from edgeml.errors import AgentError, SourceError
from edgeml.npz import encode_npz

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
        state: the agent's state folder; remembers what was taken where files are kept, and how far
            a file came that the end left.

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
        self._begun_file = state / f"begun-{digest}.npz"
        self._begun = read_begun(self._begun_file)
        self._taken_file = state / f"taken-{digest}"
        self._taken: set[str] = set()
        if config.after == "keep":
            with contextlib.suppress(FileNotFoundError):
                self._taken = set(self._taken_file.read_text().splitlines())

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Take no more samples. One at hand is finished if the service does finish it; what is left
        of its file stays, for the next run. Returns at once."""
        self._stop.set()

    def join(self) -> None:
        """After :meth:`end`: wait for the thread."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._config.poll_s):
            self._look()

    def _look(self) -> None:
        try:
            for path, mark in self._waiting():
                if self._stop.is_set():
                    return
                if self._service.ready:
                    self._guarded(path, mark)
        except OSError as error:  # an unmounted disk may come back
            logs.warn("folder", model=self._service.name, path=self._config.path, reason=error)

    def _waiting(self) -> list[tuple[Path, str]]:
        """Each with a mark that tells it from another file of its name."""
        found: list[tuple[int, str, Path, str]] = []
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
                    found.append((status.st_mtime_ns, entry.name, Path(entry.path), mark))
        self._taken &= marks  # what is gone need not be remembered
        begun = self._begun.mark if self._begun is not None else ""
        found.sort(key=lambda one: (one[-1] != begun, one))
        return [(path, mark) for _, _, path, mark in found]

    def _guarded(self, path: Path, mark: str) -> None:
        try:
            self._take(path, mark)
        except OSError:
            self._taken.add(mark)  # not again and again, counted each time
            raise
        except Exception:  # noqa: BLE001 - a fault of ours over one file must not end the others
            self._taken.add(mark)
            logs.fault("fault", model=self._service.name, path=path)

    def _take(self, path: Path, mark: str) -> None:
        begun = self._begun if self._begun is not None and self._begun.mark == mark else Begun(mark)
        try:
            problem = self._serve(path, begun)
        except FileNotFoundError:
            return
        if problem is None:
            logs.info("file left", model=self._service.name, path=path, samples=begun.taken)
            begun.write(self._begun_file)
            return
        if problem:
            logs.warn("file not served", model=self._service.name, path=path, reason=problem)
        self._dispose(path, mark, served=not problem)
        if begun is self._begun:
            self._begun = None
            self._begun_file.unlink(missing_ok=True)

    def _serve(self, path: Path, begun: Begun) -> str | None:
        """Have its samples served, and write the answers.

        Returns:
            What went wrong, empty where nothing did; None where the end came first.
        """
        try:
            payloads.check_size(path.stat().st_size)
            given = payloads.arrays(path.read_bytes())
            samples = requests.feeds(given, self._service.manifest.inputs)
        except SourceError as error:
            self._service.unfit()
            return str(error)
        except PermissionError as error:
            return f"It cannot be read: {error.strerror}"
        for sample in samples[begun.taken :]:
            if self._stop.is_set():
                return None
            ticket = self._service.submit(sample, recurs=True)
            outcome = ticket.wait()
            if ticket.cut_off:
                return None
            begun.taken += 1
            if outcome != "served":
                begun.problem = f"{outcome}: {ticket.message}"
            elif self._config.results:
                begun.answers.append(ticket.outputs)
        if self._config.results and not begun.problem:
            try:
                _write_results(self._config.results / f"{path.stem}.npz", begun.answers)
            except OSError as error:
                return f"Its answers cannot be written: {error.strerror}"
        return begun.problem

    def _dispose(self, path: Path, mark: str, *, served: bool) -> None:
        if self._config.after == "keep":
            self._taken.add(mark)
            write_whole(self._taken_file, ("\n".join(sorted(self._taken)) + "\n").encode())
        elif served and self._config.after == "delete":
            path.unlink(missing_ok=True)
        else:
            target = self._config.path / (DONE if served else FAILED)
            target.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                path.replace(target / path.name)


def _write_results(path: Path, answers: list[dict[str, Array]]) -> None:
    """All samples of a file in one."""
    write_whole(path, encode_npz(joined(answers)))
