"""``edgeml export`` from the light environment: it hops into the toolchain and comes back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.bundles import MODELS
from support.cutting import SIGNALS, cut_short
from support.gone import wait_gone
from support.processes import cpu_seconds, descendants
from support.weights import images, scores

import edgeml
from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.errors import RefusedError, UsageError
from edgeml.toolchain import store
from edgeml.toolchain.spec import TOOLCHAINS

MODEL = MODELS / "tiny.onnx"


@pytest.fixture(autouse=True)
def _toolchain() -> None:
    """These tests need the toolchain ``export``, and do not make it: it takes minutes."""
    spec = TOOLCHAINS["export"]
    if store.serves_in_place(spec) or store.find(spec).state == "installed":
        return
    message = "needs the toolchain export: `make test` installs it"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def command(folder: Path, *arguments: str) -> list[str]:
    np.savez(folder / "data.npz", image=images(200), labels=scores(images(200)).argmax(1))
    data = str(folder / "data.npz")
    line = [sys.executable, "-m", "edgeml", "export", str(MODEL), "-t", "onnx", "-o", str(folder)]
    return [*line, "--calibration", data, "--evaluate", data, *arguments]


def test_a_line_that_is_wrong_leaves_nothing_of_what_was_begun_for_it(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    line = [sys.executable, "-m", "edgeml", "export", str(MODEL), "-t", "onxn"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("edgeml: There is no target or device 'onxn'")
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert not list(tmp_path.glob("edgeml-*"))


def test_a_model_becomes_a_bundle_that_runs_here(tmp_path: Path) -> None:
    ended = subprocess.run(
        command(tmp_path, "--json", "--name", "tiny"), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert {(row["target"], row["precision"]) for row in document["artifacts"]} == {
        ("onnx", "fp32"),
        ("onnx", "int8"),
    }
    assert document["refused"] == []
    assert sum(row["chosen"] for row in document["artifacts"]) == 1
    assert all(row["cosine"] > 0.99 for row in document["artifacts"])
    # Of what failed its check nobody wants to know how fast it is.
    assert all((row["p50_ms"] is not None) == row["passed"] for row in document["artifacts"])
    assert "✓" in ended.stderr  # stages, and none of the converters' chatter
    assert "Warning" not in ended.stderr

    bundle = Path(document["bundle"])
    assert open_bundle(bundle).manifest.name == "tiny"
    out = tmp_path / "out.npz"
    assert main(["run", str(bundle), "-i", str(tmp_path / "data.npz"), "-o", str(out)]) == 0
    with np.load(out) as arrays:
        decided = arrays["scores"].argmax(1) == scores(images(200)).argmax(1)
    assert decided.mean() > 0.9


def test_a_missing_model_is_one_paragraph(tmp_path: Path) -> None:
    line = command(tmp_path)
    line[line.index(str(MODEL))] = "nowhere.onnx"
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode in (1, 2)
    assert ended.stdout == ""
    assert "nowhere.onnx" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_the_examples_of_the_python_documentation_run(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "python.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "net.onnx").write_bytes(MODEL.read_bytes())
    np.save(tmp_path / "calibration.npy", images(200))
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "EDGEML_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "{'scores': (1, " in ended.stdout
    assert str(tmp_path / "out" / "net-0.1.0.edgeml") in ended.stdout
    assert "Packing the bundle" in ended.stdout


def test_errors_arrive_in_python_as_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(edgeml.EdgemlError) as caught:
        edgeml.export(str(MODEL), ["onnx"], precision="int8", evaluate=images(20), output=tmp_path)
    assert isinstance(caught.value, RefusedError)
    assert "without calibration data" in caught.value.found
    with pytest.raises(UsageError, match="'tflight'"):
        edgeml.export(str(MODEL), "tflight", calibration=images(20))


def test_a_bundle_made_again_is_the_same_and_a_second_export_comes_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    line = command(tmp_path, "--precision", "fp32", "--name", "tiny")[3:]
    assert main(line) == 0
    capsys.readouterr()
    before = cpu_seconds()
    assert main(line) == 0
    assert cpu_seconds() - before < 2  # of a processor, the hop included
    said = capsys.readouterr()
    assert "taken from the cache" in said.err
    assert "tiny-0.1.0.edgeml" in said.out
    assert main(["cache", "list", "--json"]) == 0
    kinds = {entry["kind"]: entry for entry in json.loads(capsys.readouterr().out)["entries"]}
    assert kinds["export"]["hits"] == 1
    assert main(["reproduce", str(tmp_path / "tiny-0.1.0.edgeml")]) == 0
    assert "every byte is the same" in capsys.readouterr().out


@pytest.mark.parametrize("how", SIGNALS)
def test_a_search_that_is_cut_short_leaves_nothing(tmp_path: Path, how: str) -> None:
    given = tmp_path / "given"
    given.mkdir()
    np.savez(given / "data.npz", image=images(200))
    line = [str(MODEL), "-t", "onnx", "--calibration", str(given / "data.npz")]
    cut_short(tmp_path, [*line, "--max-latency", "1s"], "onnx fp32: measuring", how)


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        # The source was read: children are at work.
        assert any("✓" in line for line in process.stderr)
        below = descendants(process.pid)
        assert below
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    for pid in below:
        wait_gone(pid)
    assert not list(tmp_path.glob("*.edgeml"))
