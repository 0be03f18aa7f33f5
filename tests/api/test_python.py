"""The Python face where no converter is needed: what it imports, samples on their way to files, and
running a bundle."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support.bundles import tiny_bundle
from support.weights import images, scores

import edgeml
from edgeml.api import samples
from edgeml.api.exporting import Inputs
from edgeml.api.options import Options
from edgeml.api.result import Gathering
from edgeml.cli import main
from edgeml.errors import SourceError, UsageError
from edgeml.exporter.events import (
    Collapse,
    Done,
    LayerNoise,
    Note,
    Parted,
    Refusal,
    Row,
    Started,
)
from edgeml.exporter.repeat.cache import Cache
from edgeml.exporter.request import ExportRequest

IMAGES = np.arange(5 * 6, dtype=np.float32).reshape(5, 2, 3)


def test_importing_edgeml_imports_next_to_nothing():
    code = (
        "import sys; import edgeml; edgeml.__version__; "
        "print(sorted({'numpy', 'msgspec', 'typer', 'rich', 'platformdirs'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
    assert "export" in dir(edgeml)
    assert callable(edgeml.export)
    with pytest.raises(AttributeError, match="no attribute 'exports'"):
        _ = edgeml.exports


def test_a_session_runs_the_best_artifact_or_the_one_named(tmp_path: Path):
    bundle = tiny_bundle(tmp_path, targets=("onnx", "tflite"))
    image = images(1)
    with edgeml.Session(bundle, "tflite") as session:
        assert session.artifact.target == "tflite"
        assert [(each.name, each.shape) for each in session.inputs] == [("image", (1, 1, 8, 8))]
        named = session.run({"image": image})
        bare = session.run(image[0])  # one input, no batch axis
        with pytest.raises(SourceError, match="has shape"):
            session.run(image[0, :, :4])
        with pytest.raises(SourceError, match="is no array"):
            session.run([[1.0], [1.0, 2.0]])
        with pytest.raises(SourceError, match="dtype float64"):
            session.run(image.astype(float))
        with pytest.raises(SourceError, match=r"inputs \['picture'\]"):
            session.run({"picture": image})
        with edgeml.Session(bundle, "onnx") as beside:  # several at once
            assert beside.run(image)["scores"] == pytest.approx(scores(image), abs=1e-3)
    assert named["scores"] == pytest.approx(scores(image), abs=1e-3)
    assert np.array_equal(named["scores"], bare["scores"])
    for _ in range(2):
        with pytest.raises(UsageError, match=r"The session of .* is closed"):
            session.run(image)
        session.close()
    with pytest.raises(UsageError):
        edgeml.Session(bundle, "coreml")
    with pytest.raises(UsageError, match="threads is 0"):
        edgeml.Session(bundle, threads=0)


def test_every_option_of_the_command_line_is_one_in_python(monkeypatch: pytest.MonkeyPatch):
    asked: list[ExportRequest] = []

    def record(request: ExportRequest, **_: object) -> Iterator[Done]:
        asked.append(request)
        yield Done(bundle="n.edgeml", name="n", version="2", bytes=1)

    monkeypatch.setattr("edgeml.api.hopping.stream_export", record)
    line = (
        "m.pt2 -t tflite onnx --calibration c.npz --evaluate e.npz --preprocess p.toml --seed 3 "
        "--precision mixed --max-accuracy-drop 1% --max-latency 20ms --max-memory 64MB "
        "--max-size 2MB --metric auc --confidence .9 --tolerance int8:cosine=.5 "
        "--shape image=1,3,32,32 --statistics image=none --python /usr/bin/python3 --trust "
        "--minimize small.onnx --name n --version 2 -o out --deadline-ms 20 --memory-mb 100 "
        "--report r.html --no-cache --json"
    )
    assert main(["export", *line.split()]) == 0
    options: dict[str, Any] = {
        "calibration": "c.npz",
        "evaluate": Path("e.npz"),
        "preprocess": "p.toml",
        "seed": 3,
        "precision": "mixed",
        "max_accuracy_drop": 0.01,
        "max_latency": 20,
        "max_memory": 64,
        "max_size": "2MB",
        "metric": "auc",
        "confidence": 0.9,
        "tolerances": {"int8": {"cosine": 0.5}},
        "shapes": {"image": (1, 3, 32, 32)},
        "statistics": {"image": "none"},
        "python": "/usr/bin/python3",
        "trust": True,
        "minimize": "small.onnx",
        "name": "n",
        "version": "2",
        "output": Path("out"),
        "deadline_ms": 20,
        "memory_mb": 100,
        "report": "r.html",
        "cache": False,
    }
    edgeml.export("m.pt2", ["tflite", "onnx"], **options)
    assert asked[0] == asked[1]
    given = inspect.signature(edgeml.exporting).parameters.keys() - {"model", "targets"}
    assert given == Options.__annotations__.keys() == options.keys() | {"examples", "say"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"version": 2}, r"got `int` - at `\$\.version`"),
        ({"shapes": {"image": "1,3"}}, r"at `\$\.shapes"),
        ({"tolerances": {"int8": {"cos": 0.9}}}, "unknown field `cos`"),
        ({"tolerances": {"int9": {"cosine": 0.9}}}, "'int9'"),
    ],
)
def test_an_option_of_another_type_is_wrong_usage(options: dict[str, Any], found: str):
    with pytest.raises(UsageError, match=found):
        edgeml.export("net.onnx", "onnx", **options)


def test_what_an_export_returns_is_the_document_of_json_typed():
    gathered = Gathering()
    row = Row(
        target="onnx", precision="fp32", bytes=10, passed=True, chosen=True, cosine=1.0, max_abs=0.0
    )
    events = (
        Started(log="/log"),
        Note(text="The labels are few."),
        row,
        Refusal(target="coreml", reason="No ONNX.", remedy="Give the model."),
        Collapse(
            target="onnx",
            precision="int8",
            text="The first bad layer is 'norm'",
            layers=(LayerNoise(name="norm", operator="Mul", shape=(1, 8), snr_db=0.7),),
        ),
        Parted(
            target="onnx",
            precision="fp32",
            text="Parts",
            output="y",
            sample=0,
            index=(3,),
            source=1.0,
        ),
        Done(
            bundle="/a/b.edgeml",
            name="b",
            version="1",
            bytes=5,
            status=1,
            metric="auc",
            source_accuracy=0.9,
            machine="a processor",
            isa="avx2",
        ),
    )
    for event in events:
        gathered.take(event)
    typed = gathered.result()
    document = gathered.document()
    assert document.pop("error") is None
    assert set(document) == set(typed.__struct_fields__)
    plain = json.loads(msgspec.json.encode(typed, enc_hook=str))
    for name in set(document) - {"artifacts", "refused", "notes"}:
        assert json.loads(msgspec.json.encode(document[name])) == plain[name], name
    assert len(typed.collapses) == len(typed.partings) == 1
    for name in ("artifacts", "refused", "notes"):
        made = [
            type(each)(**fields)
            for each, fields in zip(getattr(typed, name), document[name], strict=True)
        ]
        assert made == list(getattr(typed, name)), name


def test_an_array_becomes_a_file(tmp_path: Path):
    written = samples.write(IMAGES, tmp_path, "calibration")
    assert written.name == "samples.npy"
    assert np.array_equal(np.load(tmp_path / written.name), IMAGES)


def test_samples_in_the_cache_that_are_damaged_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    for _ in range(3):
        with Inputs(keep=True, say=print) as inputs:
            path = inputs.samples(IMAGES, "calibration")
        assert path is not None
        assert np.array_equal(np.load(path), IMAGES)
        (entry,) = Cache().entries()
        assert Path(path).parent == entry.folder  # the same content has the same path
        Path(path).write_bytes(b"damaged")


def test_named_arrays_become_one_file_whose_bytes_are_always_the_same(tmp_path: Path):
    named = {"image": IMAGES, "labels": np.arange(5)}
    both: list[bytes] = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        written = samples.write(named, folder, "evaluate")
        with np.load(folder / written.name) as data:
            assert {name: data[name].tolist() for name in data} == {
                name: array.tolist() for name, array in named.items()
            }
        both.append((folder / written.name).read_bytes())
    assert both[0] == both[1]


def batches() -> Iterator[tuple[Any, Any]]:
    yield IMAGES[:2], np.array([0, 1])
    yield IMAGES[2:4], np.array([2, 3])
    yield IMAGES[4:], np.array([4])  # a smaller one at the end


def labelled() -> Iterator[tuple[Any, int]]:
    yield from ((image, label) for label, image in enumerate(IMAGES))


def mappings() -> Iterator[dict[str, Any]]:
    yield from ({"image": image, "scale": np.float32(2)} for image in IMAGES)


@pytest.mark.parametrize("make", [batches, labelled, mappings, lambda: iter(IMAGES)])
def test_what_is_iterated_over_is_given_again_item_by_item(tmp_path: Path, make: Any):
    written = samples.write(make(), tmp_path, "calibration")
    assert written.name == "samples.py:items"
    spec = importlib.util.spec_from_file_location("written_samples", tmp_path / "samples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for given, again in zip(make(), module.items(), strict=True):
        assert type(given) is type(again) or isinstance(given, np.ndarray)
        for one, other in zip(_values(given), _values(again), strict=True):
            assert np.shape(one) == np.shape(other)
            assert np.array_equal(one, other)


def _values(item: Any) -> list[Any]:
    return list(item.values()) if isinstance(item, dict) else list(item)


def test_an_exception_of_the_caller_s_generator_is_what_he_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def given() -> Iterator[Any]:
        yield IMAGES[0]
        raise ZeroDivisionError

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        edgeml.export("net.onnx", "onnx", calibration=given(), output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (3, "of type int"),
        (iter(()), "gave no samples"),
        (iter([np.zeros((1, 2)), np.zeros((1, 3))]), "items of unlike shapes"),
        (iter([{"a": np.zeros(2)}, {"b": np.zeros(2)}]), "items of unlike forms"),
        (np.array(["text"]), "holds ndarray"),
    ],
)
def test_what_holds_no_samples_is_refused(tmp_path: Path, data: Any, found: str):
    with pytest.raises(SourceError, match=found):
        samples.write(data, tmp_path, "calibration")
