"""Of TensorRT's engines those stay that a version may still be served from, and no others.

The pure rule first; then folders, locks and processes, with what stands for the provider.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.targets.tensorrt import caches
from edgeml.targets.tensorrt.caches import Engine

ONE, TWO = "1" * 32, "2" * 32
OLD, NEW = "0" * 16, "a" * 16


def name(model: str, settings: str = OLD, runtime: str = "c" * 8) -> str:
    return str(Engine(model, settings, runtime))


def timing(settings: str) -> str:
    return f"timing-{settings}"


def stay(found: Mapping[str, int | None], models: Mapping[str, int], *, settled: bool) -> set[str]:
    return set(found) - set(caches.surplus(found, models, settled=settled))


def test_an_engine_goes_with_the_last_version_that_has_its_model():
    found = {name(ONE): 1, name(TWO): 2, timing(OLD): None}
    assert stay(found, {ONE: 1, TWO: 1}, settled=False) == set(found)
    assert stay(found, {TWO: 1}, settled=False) == {name(TWO), timing(OLD)}
    assert not stay(found, {}, settled=False)


def test_after_an_upgrade_the_old_engine_goes_when_the_new_one_has_shown_that_it_serves():
    """With it goes what was measured for the old TensorRT."""
    found = {name(ONE, OLD): 1, name(ONE, NEW): 2, timing(OLD): None, timing(NEW): None}
    assert stay(found, {ONE: 1}, settled=False) == set(found)
    assert stay(found, {ONE: 1}, settled=True) == {name(ONE, NEW), timing(NEW)}


def test_an_upgrade_that_could_not_build_takes_no_engine_away():
    found = {name(ONE, OLD): 1, name(ONE, NEW): None, timing(OLD): None}
    assert stay(found, {ONE: 1}, settled=True) == {name(ONE, OLD), timing(OLD)}


def test_a_version_to_roll_back_to_keeps_its_engine_from_before_the_upgrade():
    """Until it has another one; it is of no use with what is installed now, but of use again where
    the upgrade is taken back."""
    found = {name(ONE, OLD): 1, name(TWO, OLD): 2, name(TWO, NEW): 3}
    assert stay(found, {ONE: 1, TWO: 1}, settled=True) == {name(ONE, OLD), name(TWO, NEW)}


def test_two_artifacts_of_the_very_same_file_keep_an_engine_each():
    """int8 and mixed differ in their options alone."""
    found = {name(ONE, OLD): 1, name(ONE, NEW): 2, name(ONE, "b" * 16): 3}
    assert stay(found, {ONE: 2}, settled=True) == {name(ONE, NEW), name(ONE, "b" * 16)}


engines = st.builds(
    name, st.sampled_from([ONE, TWO, "3" * 32]), st.sampled_from([OLD, NEW]), st.just("c" * 8)
)
folders = st.dictionaries(
    engines | st.sampled_from([timing(OLD), timing(NEW)]), st.none() | st.integers(0, 5)
)
models = st.dictionaries(st.sampled_from([ONE, TWO]), st.integers(1, 2))


@given(folders, models)
def test_what_stays_is_bounded_by_what_is_installed(
    found: dict[str, int | None], models: dict[str, int]
):
    kept = [Engine.parse(each) for each in stay(found, models, settled=True)]
    assert sum(engine is not None for engine in kept) <= sum(models.values())
    settings = {engine.settings for engine in kept if engine is not None}
    timings = [each for each in stay(found, models, settled=True) if each.startswith("timing-")]
    assert {each.removeprefix("timing-") for each in timings} <= settings


@given(folders, models)
def test_the_engine_that_served_latest_stays(found: dict[str, int | None], models: dict[str, int]):
    kept = stay(found, models, settled=True)
    for model in models:
        own = {each: at for each, at in found.items() if each.startswith(model) and at is not None}
        if own:
            assert any(at == max(own.values()) for each, at in own.items() if each in kept)


# Folders.


def build(root: Path, folder: str) -> Path:
    path = root / folder
    os.close(caches.hold(path))
    (path / "model.engine").write_bytes(b"engine")
    caches.loaded(path)
    return path


def sweep(root: Path, models: Mapping[str, int], *, settled: bool = False) -> set[str]:
    """What is left."""
    caches.sweep(root, models, settled=settled, remove=shutil.rmtree)
    return {path.name for path in root.iterdir()}


def test_what_others_have_put_there_is_left_alone(tmp_path: Path):
    build(tmp_path, name(ONE))
    (tmp_path / "notes").mkdir()
    assert sweep(tmp_path, {}) == {"notes"}


def test_without_tensorrt_there_is_no_folder_and_none_is_made(tmp_path: Path):
    caches.sweep(tmp_path / "engines", {}, settled=True, remove=shutil.rmtree)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong_s", [-400 * 86_400, 400 * 86_400])
def test_the_latest_is_the_latest_by_a_clock_that_is_wrong_by_a_year(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_s: int
):
    before = build(tmp_path, name(ONE, OLD))
    at = (before / "loaded").stat().st_mtime_ns + wrong_s * 10**9
    monkeypatch.setattr("time.time_ns", lambda: at)
    build(tmp_path, name(ONE, NEW))
    assert sweep(tmp_path, {ONE: 1}, settled=True) == {name(ONE, NEW)}


HOLDER = """
import sys, time
from pathlib import Path
from edgeml.targets.tensorrt import caches
caches.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_what_a_process_builds_or_uses_stays_until_that_has_ended(tmp_path: Path):
    folder = tmp_path / name(ONE)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert sweep(tmp_path, {}, settled=True) == {folder.name}
        holder.kill()
        holder.wait()
    assert not sweep(tmp_path, {}, settled=True)


def test_a_removal_that_was_cut_short_is_done_the_next_time(tmp_path: Path):
    folder = build(tmp_path, name(ONE))

    def power_cut(path: Path) -> None:
        (path / "loaded").unlink()
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input"):
        caches.sweep(tmp_path, {}, settled=False, remove=power_cut)
    assert [path.name for path in folder.iterdir()] == ["model.engine"]
    assert not sweep(tmp_path, {})


def test_the_models_name_is_that_of_its_file_in_the_manifest(tmp_path: Path):
    from edgeml.targets.tensorrt.runtime import engine_of

    entry = tmp_path / "model.onnx"
    entry.write_bytes(b"graph")
    sha256 = hashlib.sha256(b"graph").hexdigest()
    assert engine_of(entry, {}, system=tmp_path).model == caches.model_of(sha256)
