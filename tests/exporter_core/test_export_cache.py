"""The cache: what is kept, found, noticed as damaged, and thrown away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.disks import mounted

from edgeml.cli import main
from edgeml.exporter.repeat.cache import Cache, Damaged
from edgeml.exporter.repeat.dependencies import ABSENT, states


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", most_bytes=1000)


def put(cache: Cache, key: str, content: bytes, **options: object) -> str:
    source = cache.folder.parent / "source"
    source.write_bytes(content)
    return cache.keep(
        "conversion",
        key,
        {"model.bin": source},
        {"text": key},
        model="net",
        target="onnx int8",
        **options,  # type: ignore[arg-type]
    )


def test_what_was_kept_is_found_with_its_files_and_its_document(cache: Cache, tmp_path: Path):
    assert put(cache, "a", b"weights") == ""
    entry = cache.find("conversion", "a")
    assert entry is not None
    entry.copy("model.bin", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"weights"
    assert entry.value(dict[str, str]) == {"text": "a"}
    assert cache.find("conversion", "b") is None
    assert cache.find("export", "a") is None


def test_hits_are_counted(cache: Cache):
    put(cache, "a", b"weights")
    for _ in range(3):
        entry = cache.find("conversion", "a")
        assert entry is not None
        entry.count()
    assert [each.hits for each in cache.entries()] == [3]


def test_a_changed_file_is_noticed_and_leaves_nothing_behind(cache: Cache, tmp_path: Path):
    put(cache, "a", b"weights")
    entry = cache.find("conversion", "a")
    assert entry is not None
    (entry.folder / "model.bin").write_bytes(b"weighty")
    with pytest.raises(Damaged):
        entry.copy("model.bin", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    cache.drop(entry)
    assert put(cache, "a", b"weights") == ""
    assert cache.find("conversion", "a") is not None


@pytest.mark.parametrize("content", [b"", b"no entry", b"0" * 64 + b"\n{}"])
def test_a_damaged_record_is_thrown_away(cache: Cache, content: bytes):
    put(cache, "a", b"weights")
    folder = cache.folder / "conversion" / "a"
    (folder / "entry.json").write_bytes(content)
    assert cache.find("conversion", "a") is None
    assert not folder.exists()


def test_an_entry_holds_as_long_as_the_files_that_it_hangs_on_are_as_they_were(
    cache: Cache, tmp_path: Path
):
    weights, other = tmp_path / "weights.pt", tmp_path / "override.json"
    weights.write_text("1")
    hangs_on = states([str(weights), str(other)])
    assert hangs_on[str(other)] == ABSENT
    put(cache, "a", b"one", dependencies=hangs_on)
    assert cache.find("conversion", "a") is not None

    weights.write_text("2")
    assert cache.find("conversion", "a") is None
    put(cache, "a", b"two", dependencies=states([str(weights), str(other)]))
    assert len(cache.entries()) == 2  # and the first one is found again when 1 is back

    other.write_text("{}")
    assert cache.find("conversion", "a") is None


def test_the_least_recently_used_goes_first(cache: Cache):
    for age, key in enumerate(("old", "older", "oldest")):
        put(cache, key, bytes(300))
        used = cache.folder / "conversion" / key / "hits"
        os.utime(used, (time.time() - 100 * age,) * 2)
    put(cache, "new", bytes(300))  # 1200 bytes are more than the cache may hold
    assert [entry.key for entry in cache.entries()] == ["new", "old", "older"]
    assert "larger than the cache may be" in put(cache, "huge", bytes(2000))


def test_a_cache_that_cannot_be_written_says_why_and_raises_nothing(tmp_path: Path):
    (tmp_path / "cache").write_text("a file, where a folder should be")
    cache = Cache(tmp_path / "cache")
    assert str(tmp_path / "cache") in put(cache, "a", b"weights")
    assert cache.find("conversion", "a") is None
    assert cache.entries() == []


KEEP = """
import sys
from pathlib import Path
from edgeml.exporter.repeat.cache import Cache

cache = Cache(Path(sys.argv[1]))
sys.stdin.readline()
for round in range(20):
    why = cache.keep("conversion", f"k{round}", {"f": Path(sys.argv[2])}, None, model="m")
    assert why == "", why
    entry = cache.find("conversion", f"k{round}")
    assert entry is not None
    entry.copy("f", Path(sys.argv[3]))
"""


def test_two_processes_keep_the_same_at_once(tmp_path: Path):
    (tmp_path / "file").write_bytes(bytes(100_000))
    both = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                KEEP,
                tmp_path / "cache",
                tmp_path / "file",
                tmp_path / f"copy{number}",
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
    cache = Cache(tmp_path / "cache")
    assert len(cache.entries()) == 20
    assert list((cache.folder / "tmp").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeml.exporter.repeat.cache import Cache

os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)  # when the first file is there
Cache(Path(sys.argv[1])).keep("export", "a", {"f": Path(sys.argv[2])}, None, model="m")
"""


def test_who_is_killed_while_he_keeps_something_leaves_no_half_of_it(cache: Cache, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"weights")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, cache.folder, tmp_path / "file"], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert list((cache.folder / "tmp").iterdir()) != []
    assert cache.entries() == []
    assert cache.find("export", "a") is None
    assert cache.keep("export", "a", {"f": tmp_path / "file"}, None, model="m") == ""
    assert cache.find("export", "a") is not None
    assert list((cache.folder / "tmp").iterdir()) == []


DIE = """
import os, signal, sys
from pathlib import Path
from edgeml.exporter.folders import claimed, remove_abandoned

parent = Path(sys.argv[1])
with claimed(lambda: (parent / "mine").mkdir() or parent / "mine") as folder:
    (folder / "half").write_text("of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_folders_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path: Path):
    from edgeml.exporter.folders import claimed, remove_abandoned

    subprocess.run([sys.executable, "-c", DIE, tmp_path], check=False)
    assert (tmp_path / "mine" / "half").exists()

    def make() -> Path:
        (tmp_path / "living").mkdir()
        return tmp_path / "living"

    with claimed(make):
        remove_abandoned(tmp_path.iterdir())
        assert [path.name for path in tmp_path.iterdir()] == ["living"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_somebody_tidied_up_before_it_was_locked_is_made_again(tmp_path: Path):
    from edgeml.exporter.folders import claimed, remove_abandoned

    made: list[Path] = []

    def make() -> Path:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(folder)
        if len(made) == 1:
            remove_abandoned([folder])
        return folder

    with claimed(make) as folder:
        assert folder == made[1]
        assert folder.is_dir()


def test_the_verb_lists_prunes_and_clears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    cache = Cache()
    for key, age in (("young", 0), ("old", 40 * 86_400)):
        put(cache, key, bytes(1000))
        used = tmp_path / "cache" / "conversion" / key / "hits"
        os.utime(used, (time.time() - age,) * 2)
    assert main(["cache", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["key"] for entry in listed["entries"]] == ["young", "old"]
    assert listed["entries"][0] | {"unused_s": 0, "folder": ""} == {
        "kind": "conversion",
        "model": "net",
        "target": "onnx int8",
        "bytes": 1000,
        "unused_s": 0,
        "hits": 0,
        "key": "young",
        "folder": "",
    }
    assert main(["cache", "list"]) == 0
    assert "onnx int8" in capsys.readouterr().out
    assert main(["cache", "prune", "--older-than", "30d"]) == 0
    assert [entry.key for entry in cache.entries()] == ["young"]
    assert main(["cache", "prune", "--keep", "0.5kB"]) == 0
    assert cache.entries() == []
    put(cache, "young", bytes(1000))
    assert main(["cache", "clear"]) == 0
    assert cache.entries() == []


@pytest.mark.parametrize("option", [("--older-than", "soon"), ("--keep", "much")])
def test_an_age_or_a_size_that_is_none_is_wrong_usage(option: tuple[str, str]):
    assert main(["cache", "prune", *option]) == 2


def test_what_may_not_be_written_is_used_and_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with mounted(tmp_path, "64k") as disk:
        put(Cache(disk / "cache"), "a", b"weights")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        cache = Cache(disk / "cache")
        entry = cache.find("conversion", "a")
        assert entry is not None
        entry.copy("model.bin", tmp_path / "copy")
        entry.count()
        assert cache.keep("export", "b", {"f": tmp_path / "copy"}, None, model="net") != ""
        monkeypatch.setenv("EDGEML_CACHE", str(cache.folder))
        for verb in ("clear", "prune"):
            assert main(["cache", verb]) == 2
            assert "Nothing can be removed" in capsys.readouterr().err
        assert cache.find("conversion", "a") is not None
