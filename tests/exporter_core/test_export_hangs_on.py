"""What an export hangs on: files that it is given, files that its code reads, versions; and what is
said where some of it is not as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from edgeml.decoding import from_json
from edgeml.exporter.events import Done, Event
from edgeml.exporter.repeat import keys
from edgeml.exporter.repeat.again import Again
from edgeml.exporter.repeat.cache import Cache
from edgeml.exporter.repeat.changes import since_kept, since_locked
from edgeml.exporter.repeat.dependencies import (
    beside_code,
    changed,
    read_record,
    states,
    written_since,
)
from edgeml.exporter.repeat.lock import Lock, Samples
from edgeml.exporter.request import ExportRequest, Limits


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
        "metric (none then, cache/01234567… now)": {"metric": f"cache/{'0123456789abcdef' * 4}"},
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


LOCK = Lock(
    request={"model": "net.py:build", "calibration": "data.npz", "python": "theirs"},
    source={"model": "1", "calibration": "2"},
    dependencies={"weights.pt": "3"},
    calibration=Samples(count=200, sha256="4"),
    edgeml="5",
    python="3.11.7",
    platform="linux x86_64",
    tools={"torch": "2.13.0"},
    theirs={"torch": "2.1.0"},
    bridges={"tflite": {"onnx2tf": "1.28.0"}},
    machine="a processor",
    isa="avx2",
)


@pytest.mark.parametrize(
    ("field", "now", "kind", "text"),
    [
        ("source", {"model": "1", "calibration": "9"}, "calibration", "data.npz is not the same"),
        ("source", {"model": "9", "calibration": "2"}, "model", "net.py:build is not the same"),
        ("dependencies", {"weights.pt": "9"}, "dependencies", "the code reads: weights.pt"),
        ("dependencies", {}, "dependencies", "the code reads: weights.pt"),
        ("calibration", Samples(count=199, sha256="9"), "calibration samples", "are others"),
        ("evaluation", Samples(count=9, sha256="9"), "evaluation samples", "are others"),
        ("edgeml", "9", "edgeml", "edgeml's own code"),
        ("tools", {"torch": "2.14.0"}, "tools", "torch 2.13.0 then, 2.14.0 now"),
        ("tools", {}, "tools", "torch 2.13.0 then, absent now"),
        ("python", "3.12.1", "tools", "python 3.11.7 then, 3.12.1 now"),
        ("theirs", {"torch": "2.2.0"}, "their tools", "beside theirs: torch 2.1.0 then, 2.2.0 now"),
        ("bridges", {"tflite": {"onnx2tf": "2"}}, "tools on the way to tflite", "1.28.0 then, 2"),
        ("machine", "another", "machine", "a processor, avx2, linux x86_64 then, another"),
        ("isa", "avx512", "machine", "avx512, linux x86_64 now"),
        ("platform", "linux aarch64", "machine", "linux aarch64 now"),
    ],
)
def test_why_a_bundle_came_out_otherwise(field: str, now: object, kind: str, text: str):
    found = since_locked(LOCK, msgspec.structs.replace(LOCK, **{field: now}))
    assert found.keys() == {kind}
    assert text in found[kind]
    assert since_locked(LOCK, LOCK) == {}
