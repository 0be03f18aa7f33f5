"""A collector that is killed, as by SIGKILL, at a named point of settling its first windows."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from edgeml.collector.ingest.writer import Writer
from edgeml.collector.keep import merge, places
from edgeml.collector.store.intake import Intake
from edgeml.telemetry import Window


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(point: str) -> int:
    store = Intake.store

    def dying_store(self: Intake, batch: Any) -> Any:
        windows = any(isinstance(received.message, Window) for received in batch)
        if windows and point == "before the commit":
            flush = self._flush

            def dying_flush(connection: Any) -> None:
                flush(connection)
                die()

            self._flush = dying_flush  # type: ignore[method-assign]
        outcome = store(self, batch)
        if windows and point == "between commit and acknowledgement":
            die()
        return outcome

    Intake.store = dying_store  # type: ignore[method-assign]
    if point == "between acknowledgement and mark":
        settle = Writer._settle

        def dying_settle(self: Writer, batch: Any) -> None:
            self._tell = lambda mark: die()  # type: ignore[method-assign]
            settle(self, batch)

        Writer._settle = dying_settle  # type: ignore[method-assign]
    if point == "while windows are replaced":
        merge.pack = lambda *_: die()  # they are deleted, and what stands for them has no counts
    if point == "while a day is merged":
        places._put = lambda *_: die()  # its hours are deleted, and the day is not there yet
    from edgeml.cli import main as cli

    return cli(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
