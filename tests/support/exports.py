"""Exports in real processes, for tests: how one is begun, and how it ended, from its events."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeml.bundle import Bundle, open_bundle
from edgeml.exporter.events import (
    AnyEvent,
    Cause,
    Difference,
    Done,
    Failure,
    Note,
    Refusal,
    Row,
    Stage,
    Started,
    decode_event,
)

SUPPORT = Path(__file__).resolve().parent
USERS_FILE = SUPPORT / "export_torch.py"


@dataclass
class Outcome:
    """How an export ended, from its events."""

    events: list[AnyEvent]
    status: int

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def log(self) -> str:
        return Path(self.of(Started)[0].log).read_text(errors="replace")

    @property
    def done(self) -> Done:
        assert isinstance(self.events[-1], Done), f"{self.events[-1]}\n{self.log[-3000:]}"
        return self.events[-1]

    @property
    def failure(self) -> Failure:
        assert isinstance(self.events[-1], Failure), self.events[-1]
        return self.events[-1]

    @property
    def rows(self) -> dict[str, Row]:
        return {f"{row.target}-{row.precision}": row for row in self.of(Row)}

    @property
    def refused(self) -> dict[str, Refusal]:
        return {refusal.target: refusal for refusal in self.of(Refusal)}

    @property
    def stages(self) -> list[str]:
        return [stage.name for stage in self.of(Stage)]

    @property
    def notes(self) -> str:
        return "\n".join(note.text for note in self.of(Note))

    def bundle(self) -> Bundle:
        return open_bundle(Path(self.done.bundle))


@dataclass
class Models:
    """Folders with the models and their samples."""

    torch: Path
    keras: Path

    def factory(self, name: str) -> str:
        return f"{USERS_FILE}:{name}"


def start(
    temporary: Path, *, cache_folder: Path | None = None, **request: object
) -> subprocess.Popen[bytes]:
    """Begin an export whose temporary files, logs and cache stand under or beside ``temporary``."""
    temporary.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeml.exporter"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "XDG_STATE_HOME": str(temporary.with_name(f"{temporary.name}-state")),
            "EDGEML_CACHE": str(cache_folder or temporary.with_name(f"{temporary.name}-cache")),
        },
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode())
    process.stdin.close()
    return process


def finish(process: subprocess.Popen[bytes]) -> Outcome:
    assert process.stdout is not None
    with process.stdout as stream:
        events = [decode_event(line) for line in stream]
    return Outcome(events, process.wait())


def made_again(bundle: Path, folder: Path) -> None:
    """Assert that a bundle made again from its lock is the same, byte for byte."""
    target = folder / "again.edgeml"
    again = finish(start(folder / "elsewhere", bundle=str(bundle), output=str(target)))
    differences = [(each.member, each.first) for each in again.of(Difference)]
    assert (differences, [each.text for each in again.of(Cause)]) == ([], [])
    assert again.status == 0
    assert target.read_bytes() == bundle.read_bytes()


Export = Callable[..., Outcome]
