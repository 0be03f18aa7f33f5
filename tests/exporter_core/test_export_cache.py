"""The cache: what is kept, found, noticed as damaged, and thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from edgeml.cli import main
from edgeml.decoding import from_json
from edgeml.exporter.events import Done, Event
from edgeml.exporter.repeat import keys
from edgeml.exporter.repeat.again import Again
from edgeml.exporter.repeat.cache import Cache, Damaged
from edgeml.exporter.repeat.changes import since_kept
from edgeml.exporter.repeat.dependencies import (
    ABSENT,
    beside_code,
    changed,
    read_record,
    states,
    written_since,
)
from edgeml.exporter.request import ExportRequest, Limits


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


def test_weights_beside_code_count_which_libraries_read_unseen(tmp_path: Path):
    (tmp_path / "model.py").write_text("")
    (tmp_path / "checkpoints").mkdir()
    weights = tmp_path / "checkpoints" / "net.weights.h5"
    weights.write_text("1")
    (name,) = beside_code([str(tmp_path / "model.py"), f"{tmp_path}/", str(tmp_path / "w.bin")])
    was = states([name])
    assert changed(was) == ""
    (tmp_path / "log.txt").write_text("no weights")
    assert changed(was) == ""
    weights.write_text("22")
    assert changed(was) == name
    was = states([name])
    (tmp_path / "new.safetensors").write_text("3")
    assert changed(was) == name


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


READ = """
import glob, pathlib, sys
from edgeml.exporter.repeat.recording import record

sweep = record(sys.argv[1], ignore=[sys.argv[2]])
import helper
pathlib.Path("weights.bin").read_bytes()
glob.glob("images/*.png")
pathlib.Path("written.txt").write_text("not read")
pathlib.Path(sys.argv[2], "scratch.txt").write_text("x")
pathlib.Path(sys.argv[2], "scratch.txt").read_text()
try:
    open("override.json")
except FileNotFoundError:
    pass
import json, html.parser  # of the environment
import numpy
mapped = numpy.memmap("mapped.bin", mode="r")
sweep()
"""


def test_what_code_reads_is_recorded_as_a_compiler_does(tmp_path: Path):
    for name in ("helper.py", "weights.bin", "mapped.bin"):
        (tmp_path / name).write_bytes(b"\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "ours").mkdir()
    record = tmp_path / "ours" / "record.txt"
    for _ in range(2):  # the second time, helper comes from its compiled file
        record.unlink(missing_ok=True)
        subprocess.run(
            [sys.executable, "-c", READ, record, tmp_path / "ours"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            check=True,
        )
        assert set(read_record(record)) == {
            str(tmp_path / "helper.py"),
            f"{tmp_path}/images/",
            str(tmp_path / "mapped.bin"),
            str(tmp_path / "override.json"),
            str(tmp_path / "weights.bin"),
        }


def request(folder: Path, **changes: object) -> ExportRequest:
    fields: dict[str, object] = {
        "model": str(folder / "net.onnx"),
        "targets": ("onnx",),
        "calibration": str(folder / "data.npz"),
        **changes,
    }
    return ExportRequest(**fields)  # type: ignore[arg-type]


def basis(folder: Path, **changes: object) -> keys.Basis:
    """As it comes back from the cache."""
    found = keys.basis(request(folder, **changes))
    assert found is not None
    again = from_json(msgspec.json.encode(found), keys.Basis)
    assert since_kept(again, found) == ()
    assert again.key == found.key
    return again


@pytest.fixture
def given(tmp_path: Path) -> Path:
    (tmp_path / "net.onnx").write_bytes(b"1")
    (tmp_path / "data.npz").write_bytes(b"2")
    return tmp_path


def test_a_key_hangs_on_contents_and_not_on_where_the_result_goes(given: Path):
    first = basis(given).key
    assert first == basis(given, output="elsewhere").key
    drawn = basis(given, report="pareto.png").key
    assert drawn == basis(given, report="elsewhere.png").key
    # What holds no report, or a page for a picture, is not the same again.
    others = [{"report": "pareto.html"}, {"minimize": "small.onnx"}]
    assert len({first, drawn, *(basis(given, **other).key for other in others)}) == 4
    assert first != basis(given, seed=1).key
    assert first != basis(given, statistics={"image": "none"}).key
    (given / "data.npz").write_bytes(b"3")
    assert first != basis(given).key
    (given / "data.npz").unlink()
    assert keys.basis(request(given)) is None


def test_code_counts_with_the_folder_that_it_finds_files_from(
    given: Path, monkeypatch: pytest.MonkeyPatch
):
    (given / "model.py").write_text("")
    monkeypatch.chdir(given)
    here = basis(given, model=f"{given}/model.py:build")
    monkeypatch.chdir("/")
    elsewhere = basis(given, model=f"{given}/model.py:build")
    assert here.key != elsewhere.key
    assert since_kept(here, elsewhere) == (f"the folder ({given} then, / now)",)


def test_every_field_that_a_key_hangs_on_is_told_where_it_differs(given: Path):
    (given / "rows.npy").write_bytes(b"4")
    (given / "front.toml").write_text("")
    then = basis(given)
    told = {
        "precision (auto then, int8 now)": {"precision": "int8"},
        "targets (onnx then, onnx tflite now)": {"targets": ("onnx", "tflite")},
        "max-latency (none then, 20 now)": {"limits": Limits(latency_ms=20)},
        "max-memory (none then, 9 now)": {"limits": Limits(memory_mb=9)},
        "report (none then, .html now)": {"report": "pareto.html"},
        f"evaluate (none then, {given}/rows.npy now)": {"evaluation": f"{given}/rows.npy"},
        f"preprocess (none then, {given}/front.toml now)": {"preprocessing": f"{given}/front.toml"},
        f"python (none then, {sys.executable} now)": {"python": sys.executable},
        'shapes (none then, {"x":[1,3]} now)': {"shapes": {"x": (1, 3)}},
    }
    for text, changes in told.items():
        now = basis(given, **changes)
        assert now.key != then.key
        assert since_kept(then, now) == (text,)
    for field in then.request:
        other = {"latency_ms": 1} if field == "limits" else ["something else"]
        now = msgspec.structs.replace(then, request={**then.request, field: other})
        assert len(since_kept(then, now)) == 1, field
    for field in keys.Environment.__struct_fields__:
        other = {"torch": "1.0"} if field == "tools" else "something else"
        here = msgspec.structs.replace(then.here, **{field: other})
        assert len(since_kept(then, msgspec.structs.replace(then, here=here))) == 1, field
    (given / "data.npz").write_bytes(b"3")
    assert since_kept(then, basis(given)) == (f"what {given}/data.npz holds",)
    assert since_kept(then, then) == ()


def test_of_many_versions_the_first_are_told(given: Path):
    then = basis(given)
    tools = {f"tool{number}": "1" for number in range(9)}
    one, other = (
        msgspec.structs.replace(then, here=msgspec.structs.replace(then.here, tools=each))
        for each in (tools, dict.fromkeys(tools, "2"))
    )
    (told,) = since_kept(one, other)
    assert told.startswith("versions: tool0 1 then, 2 now, tool1")
    assert told.endswith("tool3 1 then, 2 now, and 5 more")


def test_a_file_in_a_folder_that_was_written_meanwhile_is_noticed(tmp_path: Path):
    deep = tmp_path / "saved" / "variables"
    deep.mkdir(parents=True)
    (deep / "weights").write_text("1")
    for path in (tmp_path / "saved", deep, deep / "weights"):
        os.utime(path, (1000, 1000))
    moment = 2000 * 10**9
    assert written_since([str(tmp_path / "saved")], moment) == ""
    os.utime(deep / "weights", (3000, 3000))
    assert written_since([str(tmp_path / "saved")], moment) == str(deep / "weights")
    assert written_since([f"{tmp_path}/saved/"], moment) == ""  # its names alone count


def test_the_versions_beside_an_old_interpreter_count(tmp_path: Path):
    """Python knows ``-P`` since 3.11, and a user's may be older."""
    old = tmp_path / "python"
    old.write_text(f'#!/bin/sh\n[ "$1" = -P ] && exit 2\nexec {sys.executable} "$@"\n')
    old.chmod(0o755)
    theirs = keys.theirs(str(old))
    assert theirs["msgspec"] == msgspec.__version__
    assert theirs["python"].startswith("3.")
    assert keys.theirs(str(tmp_path / "none")) == {"python": "unknown"}


def test_of_an_export_all_files_come_from_the_cache_or_none(given: Path):
    cache = Cache(given / "cache")
    wanted = request(
        given,
        targets=("onnx", "openvino"),
        output=str(given / "net.edgeml"),
        report=str(given / "pareto.html"),
        minimize=str(given / "small.onnx"),
    )
    (given / "small-onnx.onnx").write_text("of another export")
    made = {name: given / name for name in ("net.edgeml", "pareto.html", "small-openvino.onnx")}
    again = Again(wanted, cache)
    for name, path in made.items():
        path.write_text(f"the new {name}")
    done = Done(bundle=str(made["net.edgeml"]), name="net", version="1", bytes=1)
    code = given / "model.py"
    code.write_text("")
    assert again.keep(done, (str(code),), began_ns=time.time_ns(), created="now") == ""
    for path in (*made.values(), given / "small-onnx.onnx"):
        path.unlink()
    found = Again(wanted, cache).find(lambda _: None)
    assert found is not None
    assert {name: path.read_text() for name, path in made.items()} == {
        name: f"the new {name}" for name in made
    }
    assert not (given / "small-onnx.onnx").exists()  # none of its own

    for name in made:
        (given / name).write_text("of before")
    (entry,) = cache.entries()
    (entry.folder / "bundle.edgeml").write_bytes(b"damaged")
    said: list[Event] = []
    assert Again(wanted, cache).find(said.append) is None
    assert {path.read_text() for path in made.values()} == {"of before"}
    assert "damaged" in getattr(said[0], "text", "")

    # Beside the code that was read: retrained weights, which its libraries open unseen.
    assert again.keep(done, (str(code),), began_ns=time.time_ns(), created="now") == ""
    (given / "net.weights.h5").write_text("of a later training")
    assert Again(wanted, cache).find(said.append) is None
    assert f"what it reads: {given}, a file of weights in it" in getattr(said[1], "text", "")


def test_everything_installed_is_known_by_its_version():
    assert keys.distributions()["msgspec"] == msgspec.__version__


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
