"""Memory that can be had: the machine's, and no more than the control groups above leave."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cgroups import limited_group

from edgeml.device_agent.limits.cgroup import Files, Version
from edgeml.device_agent.limits.spare import available_bytes, group_limits

MB = 10**6
FILES: dict[Version, tuple[str, str]] = {
    "cgroup2": ("memory.max", "memory.current"),
    "cgroup1": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def group(path: Path, version: Version, limit: object, used: int, cached: int = 0) -> Path:
    """One as the kernel shows it."""
    path.mkdir(parents=True, exist_ok=True)
    for name, value in zip(FILES[version], (limit, used), strict=True):
        (path / name).write_text(f"{value}\n")
    (path / "memory.stat").write_text(f"inactive_file {cached}\ntotal_inactive_file {cached}\n")
    return path


def rooms(version: Version, place: Path) -> list[int]:
    return [limit.room_bytes for limit in group_limits(Files(), version, place)]


@pytest.mark.parametrize("version", FILES)
def test_a_limit_leaves_what_is_not_used_and_what_is_only_cached(tmp_path: Path, version: Version):
    place = group(tmp_path / "container", version, 500 * MB, 300 * MB, cached=100 * MB)
    assert rooms(version, place) == [300 * MB]


@pytest.mark.parametrize("version", FILES)
def test_a_limit_further_up_holds_too(tmp_path: Path, version: Version):
    group(tmp_path / "slice", version, 400 * MB, 390 * MB)
    place = group(tmp_path / "slice" / "service", version, 500 * MB, 100 * MB)
    assert sorted(rooms(version, place)) == [10 * MB, 400 * MB]


def test_a_group_without_a_limit_or_without_the_controller_is_passed_over(tmp_path: Path):
    group(tmp_path / "slice", "cgroup2", 400 * MB, 100 * MB)
    service = group(tmp_path / "slice" / "service", "cgroup2", "max", 100 * MB)
    leaf = service / "leaf"
    leaf.mkdir()
    assert rooms("cgroup2", leaf) == [300 * MB]


def test_version_1_says_by_a_number_that_there_is_no_limit(tmp_path: Path):
    assert rooms("cgroup1", group(tmp_path, "cgroup1", 2**63 - 4096, 100 * MB)) == []


def test_a_limit_that_was_lowered_below_the_use_leaves_less_than_nothing(tmp_path: Path):
    assert rooms("cgroup2", group(tmp_path, "cgroup2", 100 * MB, 130 * MB)) == [-30 * MB]


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A group of this kernel's, limited to 80 MB."""
    with limited_group("small", 80 * MB) as made:
        yield made


ASK = """
import os, pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
from edgeml.device_agent.limits.spare import available_bytes
hoard = []
for megabytes in 0, 30:
    hoard.append(os.urandom(megabytes * 10**6))
    print(available_bytes())
"""


def test_a_process_in_a_limited_group_sees_what_that_leaves(small_group: Path):
    told = subprocess.run(
        [sys.executable, "-c", ASK, str(small_group)], check=True, capture_output=True, text=True
    ).stdout.split()
    before, after = (int(word) for word in told)
    assert before <= 80 * MB < available_bytes()
    assert 29 * MB < before - after < 40 * MB
