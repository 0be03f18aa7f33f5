"""What a disk holds after a power cut, from the log of all that was written to it. Pure.

The log is QEMU's ``blklogwrites``, in the format of Linux's dm-log-writes (kernel documentation,
``device-mapper/log-writes``): a super block, then entries of a header and its data, each padded to
a sector, in the order in which the guest's disk took them.

A disk may keep what it was given in a cache of its own until it is told to flush. So what was
written before the last flush is there, and of what came after it any part may be, in any order:
here each sector by the toss of a coin.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0x6A736677736872
SECTOR = 512
FLUSH, DISCARD = 1, 4

_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")


@dataclass(frozen=True)
class Entry:
    """One request to the disk.

    Attributes:
        sector: where it begins.
        length: bytes.
        flags: :data:`FLUSH`, :data:`DISCARD`.
        place: of its data in the log.
    """

    sector: int
    length: int
    flags: int
    place: int


def read_log(path: Path) -> list[Entry]:
    """All entries; those that QEMU did not finish when it ended are left out.

    Raises:
        ValueError: it is no such log.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic, version, _, sector = _SUPER.unpack(file.read(_SUPER.size))
        if (magic, version, sector) != (MAGIC, 1, SECTOR):
            found = f"{magic:x}, {version}, {sector}"
            raise ValueError(f"Found {found}; expected a log of {MAGIC:x}, 1, {SECTOR}")
        entries: list[Entry] = []
        place = SECTOR
        while place + SECTOR <= size:
            file.seek(place)
            start, count, flags, _ = _ENTRY.unpack(file.read(_ENTRY.size))
            place += SECTOR
            data = 0 if flags & DISCARD else count * SECTOR
            if place + data > size or not (flags or count):
                break
            entries.append(Entry(start, count * SECTOR, flags, place))
            place += data
    return entries


def survivors(entries: list[Entry], cut: int, *, seed: int) -> Iterator[tuple[Entry, list[bool]]]:
    """Which sectors of which entries are on the disk when the power goes before entry ``cut``."""
    last = max((at for at in range(cut) if entries[at].flags & FLUSH), default=0)
    random_ = random.Random(seed)
    for at in range(cut):
        entry = entries[at]
        sectors = entry.length // SECTOR
        if entry.flags & DISCARD or not sectors:
            continue
        yield entry, [at < last or random_.random() < 0.5 for _ in range(sectors)]


def write_image(log: Path, image: Path, kept: Iterable[tuple[Entry, list[bool]]]) -> None:
    """Put what survived onto an image of the disk as it was at first."""
    with log.open("rb") as source, image.open("r+b") as disk:
        for entry, sectors in kept:
            source.seek(entry.place)
            data = source.read(entry.length)
            for at, there in enumerate(sectors):
                if there:
                    disk.seek((entry.sector + at) * SECTOR)
                    disk.write(data[at * SECTOR : (at + 1) * SECTOR])
