"""Exports that are cut short: a full disk, Ctrl-C, a kill, a folder that nobody may write.

Whatever happens, there is a whole bundle or none, no process goes on, and no temporary folder stays
for longer than until the next export.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disks import mounted
from support.exports import Models, finish, start
from support.gone import wait_gone
from support.processes import children, descendants

import edgeml
from edgeml.api.hopping import stream_export
from edgeml.bundle import open_bundle
from edgeml.decoding import from_plain
from edgeml.errors import ToolchainError
from edgeml.exporter.events import Stage, decode_event
from edgeml.exporter.request import ExportRequest


def request(models: Models, folder: Path, **changes: object) -> dict[str, object]:
    return {
        "model": str(models.torch / "net.onnx"),
        "targets": ["onnx"],
        "calibration": str(models.torch / "calibration.npz"),
        "precision": "fp32",
        "output": str(folder / "out"),
        **changes,
    }


def until(process: subprocess.Popen[bytes], stage: str) -> None:
    """Read events until a stage begins."""
    assert process.stdout is not None
    for line in process.stdout:
        event = decode_event(line)
        if isinstance(event, Stage) and event.name == stage:
            return
    pytest.fail(f"the stage {stage} never came", pytrace=False)


@pytest.mark.parametrize(
    "stage", ["source", "calibrate", "compile", "verify", "measure", "report", "pack"]
)
def test_ctrl_c_leaves_nothing_whatever_the_stage(models: Models, tmp_path: Path, stage: str):
    report = tmp_path / "report.png"
    report.write_text("of an export before")
    wanted = request(models, tmp_path, targets=["openvino", "onnx"], report=str(report))
    process = start(tmp_path / "tmp", **wanted)
    until(process, stage)
    below = descendants(process.pid)
    process.send_signal(signal.SIGTERM if stage == "verify" else signal.SIGINT)
    assert process.stdout is not None
    with process.stdout as rest:
        said = rest.read()
    status = process.wait()
    for pid in below:
        wait_gone(pid)
    assert list((tmp_path / "tmp").iterdir()) == []
    left = list(tmp_path.glob("out/*"))
    if status == 0:  # it was done before the signal came
        assert b'"done"' in said
        assert [open_bundle(path).manifest.name for path in left] == ["net"]
        assert report.read_bytes().startswith(b"\x89PNG")
    else:
        assert status == 130
        assert left == []
        assert list(tmp_path.glob("*report*")) == [report]
        assert report.read_text() == "of an export before"


def test_leaving_the_iterator_of_events_ends_the_export(models: Models, tmp_path: Path):
    os.mkfifo(tmp_path / "never")
    (tmp_path / "data.py").write_text(f"def samples():\n    open({str(tmp_path / 'never')!r})\n")
    before = set(descendants(os.getpid()))
    events = edgeml.exporting(
        models.torch / "net.onnx",
        "onnx",
        calibration=f"{tmp_path / 'data.py'}:samples",
        output=tmp_path / "out",
    )
    assert any(isinstance(event, Stage) and event.name == "calibrate" for event in events)
    below = set(descendants(os.getpid())) - before
    assert below
    events.close()
    for pid in below:
        wait_gone(pid)
    assert not (tmp_path / "out").exists()


def test_an_export_that_died_leaves_no_temporary_files(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As after a second Ctrl-C, which kills it while it tidies up."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = set(children(os.getpid()))
    wanted = from_plain(request(models, tmp_path), ExportRequest)
    events = stream_export(wanted, say=lambda _: None, progress=lambda _: None)
    assert any(isinstance(event, Stage) and event.name == "source" for event in events)
    (folder,) = tmp_path.glob("edgeml-export-*")
    (exporter,) = set(children(os.getpid())) - before
    os.kill(exporter, signal.SIGKILL)
    with pytest.raises(ToolchainError, match="SIGKILL"):
        list(events)
    assert not folder.exists()


def test_after_a_kill_no_process_goes_on_and_the_next_export_tidies_up(
    models: Models, tmp_path: Path
):
    process = start(tmp_path / "tmp", **request(models, tmp_path))
    until(process, "verify")
    below: list[int] = []
    while not below:  # the stage is told before its child is there
        below = descendants(process.pid)
    process.kill()
    process.wait()
    for pid in below:
        wait_gone(pid)
    assert [path.name[:14] for path in (tmp_path / "tmp").iterdir()] == ["edgeml-export-"]
    assert finish(start(tmp_path / "tmp", **request(models, tmp_path))).status == 0
    assert list((tmp_path / "tmp").iterdir()) == []


def test_two_exports_to_the_same_place_leave_one_whole_bundle(models: Models, tmp_path: Path):
    both = [
        start(tmp_path / "tmp", cache_folder=tmp_path / "cache", **request(models, tmp_path))
        for _ in range(2)
    ]
    assert [finish(process).status for process in both] == [0, 0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["net-0.1.0.edgeml"]
    assert open_bundle(tmp_path / "out" / "net-0.1.0.edgeml").manifest.artifacts
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of 64 kB."""
    with mounted(tmp_path, "64k") as disk:
        yield disk


def test_a_full_disk_for_temporary_files(models: Models, tmp_path: Path, small_disk: Path):
    outcome = finish(start(small_disk, **request(models, tmp_path)))
    assert outcome.status == 1
    assert "no room" in outcome.failure.found or "full" in outcome.failure.found
    assert list(small_disk.iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_a_full_disk_for_the_bundle(models: Models, tmp_path: Path, small_disk: Path):
    (small_disk / "full").write_bytes(bytes(60_000))
    wanted = request(models, tmp_path, output=str(small_disk))
    outcome = finish(start(tmp_path / "tmp", **wanted))
    assert outcome.failure.error == "BundleError"
    assert "could not be written" in outcome.failure.found
    assert [path.name for path in small_disk.iterdir()] == ["full"]
    # The same for one that comes from the cache.
    roomy = finish(start(tmp_path / "tmp", **request(models, tmp_path)))
    assert roomy.status == 0
    cached = finish(start(tmp_path / "tmp", **wanted))
    assert cached.stages == []
    assert "could not be written" in cached.failure.found
    assert [path.name for path in small_disk.iterdir()] == ["full"]


def test_a_full_disk_for_the_cache_is_no_failure(models: Models, tmp_path: Path, small_disk: Path):
    (small_disk / "full").write_bytes(bytes(50_000))
    outcome = finish(start(tmp_path / "tmp", cache_folder=small_disk, **request(models, tmp_path)))
    assert outcome.status == 0
    assert "not kept in the cache" in outcome.notes
    assert not list(small_disk.glob("tmp/*"))


def test_a_folder_that_may_not_be_written_is_said_before_any_work(
    models: Models, tmp_path: Path, small_disk: Path
):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    wanted = request(models, tmp_path, output=str(small_disk))
    outcome = finish(start(tmp_path / "tmp", **wanted))
    assert outcome.stages == []
    assert f"Nothing can be written to {small_disk}" in outcome.failure.found
