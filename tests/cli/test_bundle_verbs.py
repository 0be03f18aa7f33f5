"""inspect, run, bench and targets, on a real bundle with real runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import tiny_bundle
from support.weights import images, scores

from edgeml.cli import main
from edgeml.targets.registry import SOURCE_KINDS, TARGETS

RUNTIMES = ("tflite", "openvino", "onnx")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), targets=RUNTIMES)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, image=images(5))
    return path


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_inspect_shows_the_manifest(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "every hash checked" in out
    assert all(f"{target}-" in out for target in RUNTIMES)
    assert "[1, 1, 8, 8]" in out


def test_inspect_as_json(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle), "--json"]) == 0
    document = printed(capsys)
    assert document["verified"] is True
    assert document["manifest"]["name"] == "tiny"
    assert {each["target"] for each in document["manifest"]["artifacts"]} == set(RUNTIMES)


def test_a_changed_byte_is_found_by_every_verb_that_opens_a_bundle(
    bundle: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    broken = tmp_path / "broken.edgeml"
    broken.write_bytes(content)
    for line in (["inspect", str(broken)], ["run", str(broken), "-i", str(samples)]):
        assert main(line) == 1
        assert "broken.edgeml" in capsys.readouterr().err


def test_a_bundle_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "none.edgeml")]) == 1
    assert "none.edgeml cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("target", RUNTIMES)
def test_run_gives_the_model_s_answers(
    target: str,
    bundle: Path,
    samples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.npz"
    assert main(["run", str(bundle), "-i", str(samples), "-t", target, "-o", str(out)]) == 0
    assert f"5 samples through {target}-" in capsys.readouterr().out
    with np.load(out) as arrays:
        np.testing.assert_allclose(arrays["scores"], scores(images(5)), atol=1e-4)


def test_run_as_json_holds_the_outputs(
    bundle: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(bundle), "--input", str(samples), "--json"]) == 0
    document = printed(capsys)
    assert document["samples"] == 5
    np.testing.assert_allclose(document["outputs"]["scores"], scores(images(5)), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["-i", "none.npz"], 1, ("There is no file none.npz",)),
        (["-i", "data.csv"], 2, ("data.csv", "FILE.npz")),
        (["-i", "SAMPLES", "-t", "vax"], 2, ("vax", "onnx-")),
        (["-i", "SAMPLES", "-o", "out.txt"], 2, ("out.txt", ".npz")),
        (["-i", "SAMPLES", "-o", "SAMPLES"], 2, ("over", "--input")),
        (["-i", "SAMPLES", "-o", "/no/such/folder/o.npz"], 2, ("/no/such/folder/o.npz", "-o")),
    ],
)
def test_run_given_wrongly(
    arguments: list[str],
    status: int,
    words: tuple[str, ...],
    bundle: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = [str(samples) if word == "SAMPLES" else word for word in arguments]
    assert main(["run", str(bundle), *line]) == status
    err = capsys.readouterr().err
    assert all(word in err for word in words), err


def test_bench_measures_each_artifact_in_a_process_of_its_own(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(bundle), "--json"]) == 0
    rows = printed(capsys)["artifacts"]
    assert {row["target"] for row in rows} == set(RUNTIMES)
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["samples"] >= 100
        # numpy alone is some 25 MB; this test's own process is far beyond the upper bound.
        assert 20 < row["peak_rss_mb"] < 200
        assert row["isa"]


def test_bench_of_one_target_as_a_table(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(bundle), "-t", "onnx"]) == 0
    out = capsys.readouterr().out
    assert "onnx-" in out
    assert "tflite" not in out


def test_targets_say_what_would_change_a_no(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--json"]) == 0
    document = printed(capsys)
    rows = {row["name"]: row for row in document["targets"]}
    assert set(rows) == set(TARGETS)
    for row in rows.values():
        for answer in (row["make"], row["run"]):
            assert answer["possible"] or (answer["reason"] and answer["remedy"])
    cells = {(cell["source"], cell["target"]): cell for cell in document["matrix"]}
    assert set(cells) == {(kind, name) for kind in SOURCE_KINDS for name in TARGETS}
    for cell in cells.values():
        assert cell["precisions"] if cell["possible"] else cell["reason"] and cell["remedy"]
    assert cells["onnx", "tflite"]["through"] == "onnx2tf"
    assert "torch.export" in cells["onnx", "executorch"]["reason"]


def test_targets_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == 0
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if line.startswith(" ONNX "))
    assert line.split()[1:] == ["by", "onnx2tf", "yes", "yes", "yes", "yes", "no", "no"]
    assert "make coreml from ONNX: " in out


def test_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--json"]) == 0
    rows = {row["name"]: row for row in printed(capsys)["devices"]}
    assert rows["jetson-orin-nano"]["targets"] == ["tensorrt"]
    assert main(["devices"]) == 0
    assert "raspberry-pi-5" in capsys.readouterr().out
    assert main(["devices", "jetson-thor"]) == 0
    assert "JetPack 7.0: Python 3.12, CUDA 13.0, TensorRT 10.13" in capsys.readouterr().out
    assert main(["devices", "jetson-tor"]) == 2
    assert "jetson-thor" in capsys.readouterr().err
