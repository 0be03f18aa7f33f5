"""What a disk holds after a cut, to ``scripts/machine.sh power``, where the cuts themselves run."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from machine.write_log import FLUSH, MAGIC, SECTOR, read_log, survivors, write_image

WRITES = [(0, b"a", 1), (1, b"b", 1), None, (0, b"c", 1), (2, b"d", 60)]
"""Sector, what is written and how many sectors of it; None for a flush."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """As QEMU writes it, ended in the middle of an entry."""
    content = struct.pack("<QQQI", MAGIC, 1, 0, SECTOR).ljust(SECTOR, b"\0")
    for write in WRITES:
        sector, data, count = write or (0, b"", 0)
        flags = 0 if write else FLUSH
        content += struct.pack("<QQQQ", sector, count, flags, 0).ljust(SECTOR, b"\0")
        content += data * SECTOR * count
    content += struct.pack("<QQQQ", 5, 2, 0, 0).ljust(SECTOR, b"\0") + b"e" * SECTOR
    path = tmp_path / "log"
    path.write_bytes(content)
    return path


def disk_after(log: Path, cut: int, *, seed: int = 0) -> str:
    """The disk's sectors, a letter each."""
    image = log.with_name("image")
    image.write_bytes(b"-" * SECTOR * 62)
    write_image(log, image, survivors(read_log(log), cut, seed=seed))
    return image.read_bytes()[::SECTOR].decode()


def test_what_was_flushed_is_there_whatever_chance_says(log: Path):
    for seed in range(20):
        assert disk_after(log, 3, seed=seed) == "ab" + "-" * 60


def test_of_what_was_not_flushed_any_part_may_be(log: Path):
    assert {disk_after(log, 1, seed=seed)[0] for seed in range(20)} == {"a", "-"}
    assert {disk_after(log, 4, seed=seed)[:2] for seed in range(20)} == {"ab", "cb"}
    torn = disk_after(log, 5)[2:]
    assert 15 < torn.count("d") < 45
    assert torn.count("d") + torn.count("-") == 60


def test_what_was_cut_short_is_no_entry(log: Path):
    assert [entry.length // SECTOR for entry in read_log(log)] == [1, 1, 0, 1, 60]


def test_another_file_is_refused(tmp_path: Path):
    other = tmp_path / "other"
    other.write_bytes(bytes(SECTOR))
    with pytest.raises(ValueError, match="expected a log of"):
        read_log(other)
