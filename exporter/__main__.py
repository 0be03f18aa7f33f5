"""``python -m edgeml.exporter [WORD …]``: a request on standard input, events on standard output.

It may be started while the request is still being made, and begins with what every export needs.
The words are those of the command line, and tell what this one will. An empty request is none.

Both standard streams of everything else are the log file, from the first moment on.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import platformdirs

from edgeml.errors import EdgemlError
from edgeml.exporter.child import first_line, no_room
from edgeml.exporter.children import Children
from edgeml.exporter.events import Done, Event, Failure, Note, Started, encode_event
from edgeml.exporter.folders import PREFIX, claimed, remove_leftovers
from edgeml.exporter.foresight import foresee, guess
from edgeml.exporter.repeat.cache import Cache
from edgeml.exporter.request import ExportRequest, Reproduction, decode_request

if TYPE_CHECKING:
    from edgeml.exporter.repeat.again import Again

KEPT_LOGS = 20

_PIPELINE = "edgeml.exporter.pipeline"


def main() -> int:
    """Run the export that standard input asks for; returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    channel = _Channel(os.dup(1))
    log = _log_file()
    try:
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        channel.send(Started(log=str(log)))
        status = _answer(sys.argv[1:], channel, log)
    except EdgemlError as error:
        told = _failure(error, log)
        traceback.print_exc()
        channel.send(told)
        return error.exit_code
    except OSError as error:
        traceback.print_exc()
        channel.send(_out_of_luck(error, log))
        return 1
    except Exception as error:  # noqa: BLE001 - a fault of ours, told as one
        traceback.print_exc()
        found = f"edgeml met a fault of its own ({type(error).__name__}: {first_line(error)})"
        channel.send(
            Failure(error="Exception", found=found, log=str(log), remedy="Please report it.")
        )
        return 1
    finally:
        _tidy(log)
    return status


def _tidy(log: Path) -> None:
    """Remove a log that nothing was written to."""
    with contextlib.suppress(OSError):
        if not log.stat().st_size:
            log.unlink()


def _answer(words: Sequence[str], channel: _Channel, log: Path) -> int:
    remove_leftovers()
    with claimed(lambda: Path(tempfile.mkdtemp(prefix=PREFIX))) as folder:
        began_ns = folder.stat().st_mtime_ns
        children = Children(log, temporary=folder, record=folder / "read.txt")
        try:
            _begin(words, children)
            given = sys.stdin.buffer.read()
            if not given:
                return 0
            done = _export(decode_request(given), channel, children, folder, began_ns)
        finally:
            # What follows is short, and must be whole.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            children.close()
    channel.send(done)
    return done.status


def _begin(words: Sequence[str], children: Children) -> None:
    """Start the first children, one that reads the model and one that converts it; then import what
    there is time for, until the request is there."""
    children.ahead(2)
    guess(words, children)
    if not select.select([sys.stdin], [], [], 0)[0]:
        importlib.import_module(_PIPELINE)


def _export(
    request: ExportRequest | Reproduction,
    channel: _Channel,
    children: Children,
    folder: Path,
    began_ns: int,
) -> Done:
    # Imported here: what comes from the cache needs none of it.
    if isinstance(request, Reproduction):
        from edgeml.exporter.repeat.reproduction import reproduce

        return reproduce(request, emit=channel.send, children=children, folder=folder)
    again = _again(request, children)
    found = again.find(channel.send)
    return found or _made(request, again, channel, children, folder, began_ns)


def _again(request: ExportRequest, children: Children) -> Again:
    """The export's place in the cache. All that it is made of is hashed for that, which leaves a
    core free for the imports that are needed where it is not there: this process's own, and those
    of its first children, half a second of them each, or two seconds of torch."""
    foresee(request, children)
    # With NumPy, while those begin.
    from edgeml.exporter.naming import apart_from_sources
    from edgeml.exporter.repeat.again import Again

    apart_from_sources(request)  # what comes from the cache is written, too
    with ThreadPoolExecutor(1) as beside:
        found = beside.submit(Again, request, Cache())
        importlib.import_module(_PIPELINE)
        return found.result()


def _made(
    request: ExportRequest,
    again: Again,
    channel: _Channel,
    children: Children,
    folder: Path,
    began_ns: int,
) -> Done:
    from edgeml.exporter.pipeline import export

    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    emit = again.listening(channel.send)
    done = export(request, emit=emit, children=children, folder=folder)
    why = again.keep(done, children.dependencies(), began_ns=began_ns, created=created)
    if why:
        channel.send(Note(text=f"The export was not kept in the cache: {why}"))
    return done


def _failure(error: EdgemlError, log: Path) -> Failure:
    return Failure(
        error=type(error).__name__,
        found=error.found,
        expected=error.expected,
        remedy=error.remedy,
        log=str(log) if log.stat().st_size else "",
        status=error.exit_code,
    )


class _Channel:
    """The real standard output."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, event: Event) -> None:
        with self._lock:
            data = encode_event(event)
            while data:
                data = data[os.write(self._descriptor, data) :]


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def _out_of_luck(error: OSError, log: Path) -> Failure:
    folder = tempfile.gettempdir()
    if no_room(error):
        return Failure(
            error="ToolchainError",
            found=f"There is no room for the export's files in {folder}: {error.strerror or error}",
            expected="room for the artifacts and what is made on the way to them",
            remedy="Free some space there, or name a roomier folder in TMPDIR.",
            log=str(log),
        )
    where = f" {error.filename}" if error.filename else ""
    found = f"The export met an error of the system {where}: {error.strerror or error}"
    return Failure(error="ToolchainError", found=found, log=str(log))


def _log_file() -> Path:
    """A new file for this export, where logs are kept; the oldest ones go."""
    name = time.strftime(f"export-%Y%m%d-%H%M%S-{os.getpid()}.log")
    folder = platformdirs.user_log_path("edgeml")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / name
        log.touch()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="edgeml-log-")) / name
    for old in sorted(folder.glob("export-*.log"))[:-KEPT_LOGS]:
        with contextlib.suppress(OSError):
            old.unlink()
    return log


if __name__ == "__main__":
    try:
        status = main()
    except (KeyboardInterrupt, BrokenPipeError):
        status = 130
    os._exit(status)
