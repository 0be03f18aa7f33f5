"""An export made before: taken from the cache where nothing has changed, made anew where something
has, and made again from its lock."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from support.exports import Models, Outcome, finish, start
from support.processes import cpu_seconds

from edgeml.exporter.events import Cause, Difference
from edgeml.exporter.repeat.cache import Cache

FACTORY = """
import numpy as np
from sklearn.linear_model import LinearRegression

import scale

def build():
    X = np.arange(12.0).reshape(6, 2)
    return LinearRegression().fit(X, X.sum(1) * scale.FACTOR + float(open("offset.txt").read()))
"""


class Bench:
    """A folder with a model, its data and a cache; ``export()`` runs an export there."""

    def __init__(self, folder: Path, models: Models) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        (folder / "net.onnx").write_bytes((models.torch / "net.onnx").read_bytes())
        (folder / "data.npz").write_bytes((models.torch / "calibration.npz").read_bytes())
        self.count = 0

    def export(self, **changes: object) -> Outcome:
        self.count += 1
        return finish(
            start(
                self.folder / "tmp",
                cache_folder=self.cache,
                **{
                    "model": str(self.folder / "net.onnx"),
                    "targets": ["onnx"],
                    "calibration": str(self.folder / "data.npz"),
                    "precision": "fp32",
                    "output": str(self.folder / f"out{self.count}"),
                    **changes,
                },
            )
        )

    def reproduce(self, bundle: Path, **changes: str) -> Outcome:
        return finish(
            start(self.folder / "tmp", cache_folder=self.cache, bundle=str(bundle), **changes)
        )


@pytest.fixture
def bench(models: Models, tmp_path: Path) -> Bench:
    return Bench(tmp_path, models)


def content(outcome: Outcome) -> bytes:
    return Path(outcome.done.bundle).read_bytes()


def test_the_same_export_comes_from_the_cache_and_says_so(bench: Bench):
    first = bench.export()
    before = cpu_seconds()
    again = bench.export()
    assert not first.done.cached
    assert again.done.cached
    assert cpu_seconds() - before < 2  # of a processor: others may use it meanwhile
    assert again.stages == []  # no model was read, nothing converted
    assert again.rows == first.rows
    assert "taken from the cache" in again.notes
    assert again.done.bundle != first.done.bundle
    assert content(again) == content(first)

    entry = next(e for e in Cache(bench.cache).entries() if e.record.kind == "export")
    assert (entry.hits, entry.record.model, entry.record.target) == (1, "net 0.1.0", "onnx")
    # A damaged entry is noticed and made anew.
    (entry.folder / "bundle.edgeml").write_bytes(b"damaged")
    third = bench.export()
    assert not third.done.cached
    assert "is damaged" in third.notes
    # Of single conversions, what is needed is still there.
    assert "Taken from the cache: onnx fp32." in third.notes
    assert bench.export().done.cached

    assert not bench.export(cache=False).done.cached
    # Where there is none, it is said what differs from the nearest one.
    assert "Made anew" not in first.notes
    other = bench.export(version="0.2.0")
    assert not other.done.cached
    assert "Made anew" in other.notes
    assert ": version (0.1.0 then, 0.2.0 now)." in other.notes
    data_file = bench.folder / "data.npz"
    with np.load(data_file) as data:
        np.savez(data_file, image=data["image"][:100])
    os.utime(data_file, (time.time() + 3600,) * 2)  # as if it were written while the export runs
    shorter = bench.export()
    assert not shorter.done.cached
    assert f": what {data_file} holds." in shorter.notes
    assert f"not kept in the cache: {data_file} was written" in shorter.notes


def test_a_file_that_a_factory_reads_or_imports_is_part_of_what_was_exported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    folder = bench.folder
    monkeypatch.chdir(folder)
    (folder / "offset.txt").write_text("0")
    (folder / "scale.py").write_text("FACTOR = 1\n")
    (folder / "model.py").write_text(FACTORY)
    np.save(folder / "rows.npy", np.random.default_rng(0).random((40, 2), np.float32))
    wanted = {"model": "model.py:build", "calibration": "rows.npy"}
    first = bench.export(**wanted)
    assert bench.export(**wanted).done.cached
    entry = next(e for e in Cache(bench.cache).entries() if e.record.kind == "export")
    assert {str(folder / name) for name in ("offset.txt", "scale.py", "model.py")} <= set(
        entry.record.dependencies
    )

    (folder / "offset.txt").write_text("2")
    changed = bench.export(**wanted)
    assert not changed.done.cached
    assert f": what it reads: {folder / 'offset.txt'}." in changed.notes
    assert content(changed) != content(first)


def test_nothing_that_is_read_is_written_over(bench: Bench):
    model = bench.folder / "net.onnx"
    before = model.read_bytes()
    refused = bench.export(minimize=str(model)).failure
    assert refused.error == "UsageError"
    assert refused.found == f"--minimize would write over {model}, which MODEL names"
    assert model.read_bytes() == before

    bench.export(minimize=str(bench.folder / "smallest.onnx"))  # and now it is in the cache
    second = bench.folder / "smallest-onnx.onnx"  # what that of a second target is called
    model.rename(second)
    taken = bench.export(model=str(second), minimize=str(bench.folder / "smallest.onnx"))
    assert str(second) in taken.failure.found


def test_a_cache_that_cannot_be_written_is_no_failure(bench: Bench):
    bench.cache.write_text("a file, where a folder should be")
    outcome = bench.export()
    assert outcome.status == 0
    assert "not kept in the cache" in outcome.notes


def test_reproduce_says_what_differs_and_why(bench: Bench):
    bundle = Path(bench.export().done.bundle)
    assert bench.reproduce(bundle).status == 0
    kept = bench.reproduce(bundle, output=f"{bench.folder}/again/")
    assert Path(kept.done.bundle) == bench.folder / "again" / "net-0.1.0.edgeml"
    assert content(kept) == bundle.read_bytes()
    for place in (str(bundle), str(bench.folder / "net.onnx")):
        before = Path(place).read_bytes()
        assert bench.reproduce(bundle, output=place).failure.error == "UsageError"
        assert Path(place).read_bytes() == before

    with np.load(bench.folder / "data.npz") as data:
        np.savez(bench.folder / "data.npz", image=data["image"][1:])
    other = bench.reproduce(bundle)
    assert other.status == 1
    differ = {each.member: each for each in other.of(Difference)}
    assert "artifacts/onnx-fp32/model-fp32.onnx" not in differ
    assert "provenance" in differ["manifest.json"].fields
    assert differ["golden.npz"].first > 0
    causes = {each.kind: each.text for each in other.of(Cause)}
    assert causes["calibration"].endswith("data.npz is not the same file")
    assert causes["calibration samples"] == "the calibration samples are others"

    (bench.folder / "data.npz").unlink()
    missing = bench.reproduce(bundle)
    assert missing.failure.error == "SourceError"
    assert "data.npz" in missing.failure.found
    assert "--calibration" in missing.failure.remedy
