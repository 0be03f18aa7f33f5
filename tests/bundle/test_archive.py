"""A bundle opens as it was written, or is refused with the reason."""

from __future__ import annotations

import resource
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgeml.bundle import (
    Artifact,
    Golden,
    Manifest,
    Parity,
    Provenance,
    Requirement,
    Tensor,
    Tolerance,
    describe,
    encode_golden,
    open_bundle,
    write_bundle,
)
from edgeml.bundle.manifest import decode_manifest, encode_manifest
from edgeml.errors import BundleError
from edgeml.statistics import fit_baseline

IMAGE = Tensor(name="image", shape=(1, 1, 4, 4), dtype="float32", meaning="image", layout="NCHW")
SCORES = Tensor(name="scores", shape=(1, 3), dtype="float32", meaning="scores")
MODEL = "artifacts/onnx-fp32/model.onnx"

rng = np.random.default_rng(1)
INPUTS = {"image": rng.random((6, 1, 4, 4), dtype=np.float32)}
OUTPUTS = {"scores": rng.random((6, 3), dtype=np.float32)}
BASELINE = fit_baseline(INPUTS, OUTPUTS, input_tensors=(IMAGE,), output_tensors=(SCORES,))
MEMBERS = {
    MODEL: b"weights" * 100,
    "golden.npz": encode_golden(Golden(INPUTS, OUTPUTS)),
    "baseline.json": BASELINE.encode(),
}
MANIFEST = Manifest(
    name="digits",
    version="1.0",
    created="2026-01-01T00:00:00Z",
    inputs=(IMAGE,),
    outputs=(SCORES,),
    artifacts=(
        Artifact(
            id="onnx-fp32",
            target="onnx",
            precision="fp32",
            files=(describe(MODEL, MEMBERS[MODEL]),),
            inputs={"image": "image"},
            outputs={"scores": "scores"},
            requires=Requirement(packages=("onnxruntime",)),
            parity=Parity(cosine=1.0, max_abs=0.0, samples=6, tolerance=Tolerance(cosine=0.999)),
            chosen=True,
        ),
    ),
    golden=describe("golden.npz", MEMBERS["golden.npz"]),
    baseline=describe("baseline.json", MEMBERS["baseline.json"]),
    provenance=Provenance(
        source_format="torch", source_name="model.py", source_sha256="0" * 64, tools={"torch": "2"}
    ),
)


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "digits-1.0.edgeml"
    write_bundle(path, MANIFEST, MEMBERS)
    return path


def rewrite(path: Path, change) -> None:
    """Write the archive again, with its list of (name, content) changed by a forger."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in change(members):
            archive.writestr(name, content)


def test_a_bundle_opens_as_it_was_written(path, tmp_path):
    bundle = open_bundle(path)
    assert bundle.manifest == MANIFEST
    assert bundle.baseline() == BASELINE
    np.testing.assert_array_equal(bundle.golden().inputs["image"], INPUTS["image"])
    np.testing.assert_array_equal(bundle.golden().outputs["scores"], OUTPUTS["scores"])
    entry = bundle.extract(bundle.manifest.artifacts[0], tmp_path / "out")
    assert entry.read_bytes() == MEMBERS[MODEL]


def test_the_manifest_comes_first_and_members_are_stored(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0] == "manifest.json"
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_the_same_content_gives_the_same_bytes(path, tmp_path):
    write_bundle(tmp_path / "again.edgeml", MANIFEST, MEMBERS)
    assert (tmp_path / "again.edgeml").read_bytes() == path.read_bytes()


def test_one_changed_byte_anywhere_is_noticed(path):
    good = path.read_bytes()
    for position in range(0, len(good), 97):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x40]) + good[position + 1 :])
        try:
            bundle = open_bundle(path)
        except BundleError:
            continue
        # A few bytes of a zip file mean nothing (a time stamp, say): content must be as written.
        assert bundle.manifest == MANIFEST
        assert bundle.read(MODEL) == MEMBERS[MODEL]


def test_every_truncation_is_noticed(path):
    good = path.read_bytes()
    for length in range(0, len(good), 211):
        path.write_bytes(good[:length])
        with pytest.raises(BundleError):
            open_bundle(path)


def with_schema(schema):
    def change(members):
        manifest = msgspec.json.decode(members[0][1]) | {"schema": schema}
        return [("manifest.json", msgspec.json.encode(manifest)), *members[1:]]

    return change


FORGERIES = {
    "changed content": (
        lambda m: [(n, c.replace(b"weights", b"WEIGHTS")) for n, c in m],
        "SHA-256",
    ),
    "path leaves": (lambda m: [*m, ("../../etc/cron.d/x", b"")], "leaves the archive"),
    "absolute path": (lambda m: [*m, ("/etc/cron.d/x", b"")], "leaves the archive"),
    "windows path": (lambda m: [*m, ("..\\x", b"")], r"leaves the archive"),
    "member not named": (lambda m: [*m, ("extra.bin", b"x")], "extra.bin"),
    "member missing": (lambda m: m[:-1], "baseline.json"),
    "member longer": (
        lambda m: [*m[:-1], (m[-1][0], m[-1][1] + b" ")],
        "baseline.json in .* has [0-9,]+ bytes",
    ),
    "no manifest": (lambda m: m[1:], "first member"),
    "manifest not first": (lambda m: [*m[1:], m[0]], "first member"),
    "manifest no JSON": (lambda m: [("manifest.json", b"{"), *m[1:]], "cannot be read"),
    "field missing": (lambda m: [("manifest.json", b'{"schema":"1.0"}'), *m[1:]], "its schema"),
    "major schema": (with_schema("2.0"), r"schema 2\.0"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_bundle_is_refused_with_the_reason(path, forgery):
    change, words = FORGERIES[forgery]
    rewrite(path, change)
    with pytest.raises(BundleError, match=words):
        open_bundle(path)


def test_a_newer_minor_schema_with_more_fields_is_read(path):
    newer = msgspec.json.decode(encode_manifest(MANIFEST)) | {"schema": "1.7", "colour": "blue"}
    read = decode_manifest(msgspec.json.encode(newer))
    assert (read.schema, read.name) == ("1.7", "digits")


def test_preprocessing_that_nobody_here_can_do_is_refused():
    steps = msgspec.json.decode(encode_manifest(MANIFEST)) | {"preprocessing": [{"name": "crop"}]}
    with pytest.raises(BundleError, match="preprocessing.*crop"):
        decode_manifest(msgspec.json.encode(steps))


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all" * 50])
def test_any_other_file_is_no_bundle(tmp_path, content):
    other = tmp_path / "other.edgeml"
    other.write_bytes(content)
    with pytest.raises(BundleError, match="no bundle"):
        open_bundle(other)


@pytest.mark.parametrize("name", ["absent.edgeml", "."])
def test_a_path_that_cannot_be_read(tmp_path, name):
    with pytest.raises(BundleError, match="cannot be read"):
        open_bundle(tmp_path / name)


def test_a_manifest_that_does_not_fit_its_members_is_not_written(tmp_path):
    with pytest.raises(BundleError, match=MODEL):
        write_bundle(tmp_path / "x.edgeml", MANIFEST, MEMBERS | {MODEL: b"other"})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there(path):
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(BundleError, match="could not be written"):
            write_bundle(path, MANIFEST, MEMBERS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("key", "found"), [("onnx-fp32", "onnx-fp32"), ("onnx", "onnx-fp32")])
def test_an_artifact_is_found_by_id_or_target(key, found):
    assert MANIFEST.artifact(key).id == found


def test_an_artifact_that_is_not_there_is_named():
    with pytest.raises(BundleError, match="'tflite'.*onnx-fp32"):
        MANIFEST.artifact("tflite")
