"""The outbox: what is committed survives a kill at any point; what is damaged is set aside."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.device_agent.uplink.delivery import Key
from edgeml.device_agent.uplink.outbox import FILE, SET_ASIDE, Outbox
from edgeml.errors import AgentError
from edgeml.telemetry import Event, StreamCounts, Window


def window(rows: int = 1, *, boot: str = "boot", cells: int = 3) -> Window:
    return Window(
        boot=boot, sequence=1, oldest=1, model="m", version="1", bundle="0" * 64, artifact="a",
        start_ms=0, duration_ms=1, rows=rows, outcomes={"served": rows},
        statistics=[StreamCounts("s", "0" * 16, [rows] * cells)],
    )  # fmt: skip


def event(text: str) -> Event:
    return Event(boot="boot", kind="k", time_ms=0, message=text)


def outbox(folder: Path, *, boot: str = "boot", limit: int = 10**6) -> Outbox:
    return Outbox(folder, boot=boot, limit_bytes=limit, events_kept=3)


def sequences(box: Outbox) -> list[int]:
    return [key.sequence for key in box.pending()]


def test_windows_are_numbered_and_wait_for_the_mark(tmp_path: Path):
    with outbox(tmp_path) as box:
        assert [box.append(window(rows)).sequence for rows in (5, 6, 7)] == [1, 2, 3]
        assert box.stored("boot", 2) == 2
        assert sequences(box) == [3]
        found = box.load(Key("boot", 3))
        assert found is not None
        assert (found.rows, found.sequence, found.oldest) == (7, 3, 3)
        assert box.load(Key("boot", 1)) is None


def test_windows_of_an_earlier_boot_keep_their_own_numbers(tmp_path: Path):
    with outbox(tmp_path, boot="first") as box:
        for _ in range(3):
            box.append(window(boot="first"))
        box.stored("first", 1)
    with outbox(tmp_path, boot="second") as box:
        box.append(window(boot="second"))
        assert box.pending() == [Key("first", 2), Key("first", 3), Key("second", 1)]
        found = box.load(Key("first", 3))
        assert found is not None
        assert (found.boot, found.oldest) == ("first", 2)
        box.stored("second", 1)
        assert box.pending() == [Key("first", 2), Key("first", 3)]


def test_a_full_outbox_drops_the_oldest_and_counts_them(tmp_path: Path):
    with outbox(tmp_path, limit=1000) as box:
        dropped = [box.append(window(cells=100)).dropped for _ in range(10)]
        assert box.dropped == sum(dropped) > 0
        assert sequences(box)[-1] == 10
        newest = box.load(Key("boot", 10))
        assert newest is not None
        assert newest.oldest == sequences(box)[0]  # the collector may pass the gap


def test_one_window_larger_than_the_limit_is_kept_all_the_same(tmp_path: Path):
    with outbox(tmp_path, limit=10) as box:
        box.append(window(cells=100))
        assert sequences(box) == [1]


def test_events_wait_for_the_broker_and_the_oldest_go(tmp_path: Path):
    with outbox(tmp_path) as box:
        for text in "abcde":
            box.add_event(event(text))
        assert [entry.message for _, entry in box.events()] == ["c", "d", "e"]
        box.event_sent(box.events()[0][0])
    with outbox(tmp_path) as box:
        assert [entry.message for _, entry in box.events()] == ["d", "e"]


DAMAGE = {
    "no database at all": lambda path: path.write_bytes(b"garbage" * 1000),
    "another schema": lambda path: _execute(path, "PRAGMA user_version=77"),
    "an overwritten page": lambda path: _overwrite(path, 4096, b"\xff" * 4096),
    "a truncated file": lambda path: path.write_bytes(path.read_bytes()[:5000]),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_set_aside_and_the_agent_goes_on(tmp_path: Path, what: str):
    with outbox(tmp_path) as box:
        for _ in range(50):
            box.append(window(cells=300))
    DAMAGE[what](tmp_path / FILE)
    with outbox(tmp_path, boot="next") as box:
        assert box.damaged
        assert (tmp_path / SET_ASIDE).exists()
        assert box.pending() == []
        box.append(window(boot="next"))
        assert sequences(box) == [1]


def test_a_file_that_is_damaged_while_it_is_open(tmp_path: Path):
    with outbox(tmp_path) as box:
        for _ in range(50):
            box.append(window(cells=300))
        box._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _overwrite(tmp_path / FILE, 100, b"\xff" * (4096 * 20))
        box._database.execute("PRAGMA shrink_memory")
        assert box.append(window()).sequence == 51
        assert sequences(box)[-1] == 51


def test_a_folder_that_takes_nothing(tmp_path: Path):
    with pytest.raises(AgentError, match="cannot be used"):
        outbox(tmp_path / "missing")


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_outbox import outbox, window

folder, statement, nth = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
box = outbox(folder)
seen = 0
def die(sql):
    global seen
    if sql.startswith(statement):
        seen += 1
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)
box._database.set_trace_callback(die)
for rows in (1, 2, 3):
    box.append(window(rows))
box.stored("boot", 2)
box.append(window(4))
box.close()
"""

# The statement that is about to run when the process is killed, the how-manieth of its kind, and
# the windows that must be found afterwards.
CRASHES = [
    ("INSERT INTO windows", 1, []),
    ("COMMIT", 1, []),
    ("INSERT INTO windows", 2, [1]),
    ("COMMIT", 2, [1]),
    ("BEGIN", 3, [1, 2]),
    ("COMMIT", 3, [1, 2]),
    ("DELETE FROM windows", 1, [1, 2, 3]),
    ("COMMIT", 4, [1, 2, 3]),
    ("BEGIN", 5, [3]),
    ("INSERT INTO windows", 4, [3]),
    ("COMMIT", 5, [3]),
    ("nothing", 1, [3, 4]),
]


@pytest.mark.parametrize(("statement", "nth", "expected"), CRASHES)
def test_a_kill_at_any_statement_loses_nothing_that_was_committed(
    tmp_path: Path, statement: str, nth: int, expected: list[int]
):
    code = CHILD.format(tests=str(Path(__file__).parent))
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), statement, str(nth)], check=False
    )
    assert child.returncode == (0 if statement == "nothing" else -signal.SIGKILL)
    with outbox(tmp_path, boot="next") as box:
        assert box.damaged == ""
        assert sequences(box) == expected
        for key in box.pending():
            found = box.load(key)
            assert found is not None
            assert (found.rows, found.oldest) == (key.sequence, expected[0])


def _execute(path: Path, statement: str) -> None:
    import sqlite3

    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()


def _overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
