"""The outbox: what is committed survives a kill at any point; what is damaged is set aside."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.counts import cells_of, packed

from edgeml.device_agent.uplink.delivery import Key
from edgeml.device_agent.uplink.outbox import STEPS, Outbox
from edgeml.device_agent.uplink.outbox_file import FILE, SET_ASIDE
from edgeml.errors import AgentError
from edgeml.telemetry import Event, Window, encode


def window(rows: int = 1, *, cells: int = 3, model: str = "m", minutes: int = 1) -> Window:
    return Window(
        boot="-", sequence=1, oldest=1, model=model, version="1", bundle="0" * 64, artifact="a",
        start_ms=0, duration_ms=minutes * 60_000, rows=rows, outcomes={"served": rows},
        baseline="0" * 16, statistics=[packed([rows] * cells)],
    )  # fmt: skip


def event(text: str) -> Event:
    return Event(boot="boot", kind="k", time_ms=0, message=text)


def outbox(folder: Path, *, boot: str = "boot", limit: int = 10**6) -> Outbox:
    return Outbox(folder, boot=boot, limit_bytes=limit, events_kept=3)


def sequences(box: Outbox) -> list[int]:
    return [key.sequence for key in box.pending()]


def sent(box: Outbox, *, backlog: int = 10**6) -> list[Window]:
    """Number what waits, and say what is to be sent."""
    box.number(10**6, backlog=backlog)
    windows = [box.load(key) for key in box.pending()]
    return [window for window in windows if window is not None]


def test_windows_are_numbered_when_they_are_sent_and_wait_for_the_mark(tmp_path: Path):
    with outbox(tmp_path) as box:
        for rows in (5, 6, 7):
            box.append(window(rows))
        assert sequences(box) == []
        assert [w.sequence for w in sent(box)] == [1, 2, 3]
        assert box.stored("boot", 2) == 2
        found = box.load(Key("boot", 3))
        assert found is not None
        assert (found.boot, found.sequence, found.oldest) == ("boot", 3, 3)
        assert box.load(Key("boot", 1)) is None


def test_the_newest_window_of_each_model_goes_first_and_then_the_oldest(tmp_path: Path):
    with outbox(tmp_path) as box:
        for rows in (1, 2, 3):
            box.append(window(rows))
        box.append(window(9, model="other"))
        assert [w.rows for w in sent(box, backlog=0)] == [3, 9]
        assert [w.rows for w in sent(box, backlog=0)] == [3, 9]  # no older one is new by that
        assert [w.rows for w in sent(box, backlog=1)] == [3, 9, 1]
        box.append(window(4))
        assert [w.rows for w in sent(box, backlog=0)] == [3, 9, 1, 4]


def test_a_number_stays_with_its_window_over_a_restart(tmp_path: Path):
    with outbox(tmp_path, boot="first") as box:
        for rows in (1, 2, 3, 4):
            box.append(window(rows))
        assert box.number(3, backlog=2) == [Key("first", n) for n in (1, 2, 3)]
        box.stored("first", 1)
    with outbox(tmp_path, boot="second") as box:
        assert box.pending() == [Key("first", 2), Key("first", 3)]
        assert box.number(3, backlog=3) == [Key("second", 1)]
        assert [w.oldest for w in sent(box)] == [2, 2, 1]
        box.stored("second", 1)
        assert box.pending() == [Key("first", 2), Key("first", 3)]


def test_a_month_off_line_takes_constant_space_and_loses_no_count(tmp_path: Path):
    """A device that restarts each day, with room for about forty windows."""
    largest = 0
    for day in range(30):
        with outbox(tmp_path, boot=f"boot-{day}", limit=8_000) as box:
            for hour in range(24):
                box.append(window(day + hour, minutes=60))
            largest = max(largest, box.filling().bytes)
            assert box.dropped == 0
    assert largest <= 8_000
    with outbox(tmp_path, boot="back", limit=8_000) as box:
        windows = sent(box)
    rows = sum(day + hour for day in range(30) for hour in range(24))
    assert sum(w.merged for w in windows) == 30 * 24
    assert sum(w.duration_ms for w in windows) == 30 * 24 * 3_600_000
    assert sum(w.rows for w in windows) == sum(w.outcomes["served"] for w in windows) == rows
    assert sum(sum(cells_of(s, 3)) for w in windows for s in w.statistics) == 3 * rows
    assert len(windows) > 20
    longest = sorted(w.duration_ms for w in windows)
    assert longest[-1] <= 4 * longest[len(longest) // 2]  # the loss is spread evenly


def test_what_was_sent_is_not_merged(tmp_path: Path):
    with outbox(tmp_path, limit=2_000) as box:
        for rows in range(1, 6):
            box.append(window(rows))
        before = sent(box)
        for rows in range(6, 60):
            box.append(window(rows))
        assert box.merged > 0
        assert [box.load(Key("boot", n)) for n in range(1, 6)] == before
        assert sum(w.rows for w in sent(box)) == sum(range(1, 60))


def test_where_nothing_can_be_merged_the_oldest_go_and_are_counted(tmp_path: Path):
    with outbox(tmp_path, limit=1_000) as box:
        dropped = [box.append(window(cells=100, model=f"m{n}")).dropped for n in range(10)]
        assert box.dropped == sum(dropped) > 0
        assert box.merged == 0
        assert {w.model for w in sent(box)} == {f"m{n}" for n in range(box.dropped, 10)}


def test_one_window_larger_than_the_limit_is_kept_all_the_same(tmp_path: Path):
    with outbox(tmp_path, limit=10) as box:
        box.append(window(cells=100))
        assert len(sent(box)) == 1


def test_the_outbox_of_an_earlier_version_is_taken_over(tmp_path: Path):
    """Schema 1 numbered windows at once: the collector may have any of them."""
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute(
            "CREATE TABLE windows(id INTEGER PRIMARY KEY, boot TEXT NOT NULL, "
            "sequence INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE(boot, sequence))"
        )
        body = encode(window(5))
        database.execute("INSERT INTO windows VALUES (1, 'old', 7, ?)", (body,))
        database.execute("PRAGMA user_version=1")
    database.close()
    with outbox(tmp_path) as box:
        assert box.damaged == ""
        assert box.pending() == [Key("old", 7)]
        box.append(window(6))
        assert [w.rows for w in sent(box)] == [5, 6]


def test_a_full_disk_costs_the_window_at_hand_its_place_and_no_other(tmp_path: Path):
    with outbox(tmp_path) as box:
        box.append(window(1))
        pages = box._file._database.execute("PRAGMA page_count").fetchone()[0]
        box._file._database.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(AgentError, match="full"):
            box.append(window(2, cells=4000))
        box._file._database.execute("PRAGMA max_page_count=100000")
        box.append(window(3))
        assert {w.rows for w in sent(box)} == {1, 3}


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
        assert box.filling().waiting == 0
        box.append(window(7))
        assert [w.rows for w in sent(box)] == [7]


def test_a_file_that_is_damaged_while_it_is_open(tmp_path: Path):
    with outbox(tmp_path) as box:
        for _ in range(50):
            box.append(window(cells=300))
        box._file._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _overwrite(tmp_path / FILE, 100, b"\xff" * (4096 * 20))
        box._file._database.execute("PRAGMA shrink_memory")
        box.append(window(7))
        assert [w.rows for w in sent(box)] == [7]


def test_a_folder_that_takes_nothing(tmp_path: Path):
    with pytest.raises(AgentError, match="cannot be used"):
        outbox(tmp_path / "missing")


CHILD = """
import os, signal, sqlite3, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, str(Path({tests!r}).parent)]
from test_outbox import LIMIT, outbox, script, window

folder, step, nth, how = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
seen = 0
def at(name):
    global seen
    if name == step:
        seen += 1
        if seen == nth:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise sqlite3.OperationalError(how)
script(folder, at)
"""

LIMIT = 700
FAULTS = ("kill", "database or disk is full", "disk I/O error")


def script(folder: Path, at: Callable[[str], None]) -> None:
    """Twelve windows of 1, 2, 4 … rows into a space for five, sent and stored in between; what a
    step refuses is done again, as the agent does."""
    told = folder / "told"
    stored = folder / "stored"

    def again(work: Callable[[], object]) -> None:
        while True:
            try:
                work()
            except AgentError:
                continue
            return

    def hand_over() -> None:
        for key in box.pending():
            found = box.load(key)
            assert found is not None
            with stored.open("a") as file:  # the collector: once for each key
                file.write(f"{key.boot} {key.sequence} {found.rows}\n")
        again(lambda: box.stored(folder.name, 10**6))

    with Outbox(folder, boot=folder.name, limit_bytes=LIMIT, events_kept=3, at=at) as box:
        for n in range(12):
            again(lambda n=n: box.append(window(2**n, cells=3)))
            told.write_text(str(n + 1))
            again(lambda n=n: box.add_event(event(str(n))))
            if n in (4, 9):
                again(lambda: box.number(3, backlog=3))
                hand_over()


def reached() -> dict[str, int]:
    """How often the script comes by each step."""
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        script(Path(folder), lambda step: seen.update([step]))
    return dict(seen)


REACHED = reached()
CASES = [
    (step, nth, how)
    for step, count in REACHED.items()
    for nth in sorted({1, count // 2, count} - {0})
    for how in FAULTS
    if how == "kill" or not step.endswith("done")
]


def test_the_script_comes_by_every_step():
    """Dropping is the one that loses windows, so it has a script of its own above."""
    assert set(STEPS) - set(REACHED) == {"append: drop"}


@pytest.mark.parametrize(("step", "nth", "how"), CASES)
def test_a_fault_at_any_step_loses_nothing_that_was_taken(
    tmp_path: Path, step: str, nth: int, how: str
):
    """What the agent was told is stored reaches the collector exactly once."""
    code = CHILD.format(tests=str(Path(__file__).parent))
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), step, str(nth), how], check=False
    )
    assert child.returncode == (-signal.SIGKILL if how == "kill" else 0)
    told = tmp_path / "told"
    appended = int(told.read_text()) if told.exists() else 0
    with outbox(tmp_path, boot="next") as box:
        assert box.damaged == ""
        windows = {(w.boot, w.sequence): w.rows for w in sent(box)}
    stored = tmp_path / "stored"
    for line in stored.read_text().splitlines() if stored.exists() else []:
        boot, sequence, rows = line.split()
        windows[boot, int(sequence)] = int(rows)
    total = sum(windows.values())
    # One more may be there: it was committed, and the process ended before it could say so.
    assert total in {2**appended - 1, 2 ** (appended + 1) - 1}


def _execute(path: Path, statement: str) -> None:
    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()


def _overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
