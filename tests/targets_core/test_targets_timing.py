"""What TensorRT measured to build one version's engine serves the next version's build.

No TensorRT is here: what plays its part does to a folder what ONNX Runtime's provider does, as its
source has it (tensorrt_execution_provider.cc).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import RefusedError
from edgeml.targets.tensorrt import runtime

OPTIONS = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}
FILE = "TensorrtExecutionProvider_cache_sm87.timing"
HEAD = "of this TensorRT: "


class Loaded:
    """Stands for a session."""


class Provider:
    """Builds engines of models whose bytes are the names of their layers.

    Attributes:
        timed: layers whose kernels it had to measure, of each build.
    """

    def __init__(self) -> None:
        self.timed: list[list[str]] = []

    def open_with(self, providers: Any, entry: Path, **_: Any) -> Loaded:
        given: Mapping[str, str] = providers[0][1]
        layers = entry.read_text().split()
        engine = Path(given["trt_engine_cache_path"]) / "model.engine"
        if engine.exists():
            if engine.read_text() != "engine":
                raise RefusedError(f"TensorRT EP could not deserialize engine from cache: {engine}")
            return Loaded()
        cache = Path(given["trt_timing_cache_path"]) / FILE
        text = cache.read_text() if cache.exists() else HEAD
        if not text.startswith(HEAD):
            raise RefusedError(f"TensorRT EP could not create timing cache: {cache}")
        known = text.removeprefix(HEAD).split()
        self.timed.append([layer for layer in layers if layer not in known])
        if "unknown-operator" in layers:
            raise RefusedError("TensorRT EP failed to create engine from network")
        engine.write_text("engine")
        cache.write_text(HEAD + " ".join([*known, *self.timed[-1]]))
        return Loaded()


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = Provider()
    monkeypatch.setattr(runtime, "open_with", found.open_with)
    return found


def open_model(path: Path, layers: str, options: Mapping[str, str] = OPTIONS) -> None:
    path.mkdir(exist_ok=True)
    (path / "model.onnx").write_text(layers)
    assert runtime.open_session(path / "model.onnx", threads=1, options=options)


def caches(path: Path) -> list[Path]:
    return sorted(path.rglob(FILE))


def test_the_next_version_measures_only_what_is_new(provider: Provider, tmp_path: Path):
    open_model(tmp_path / "one", "conv1 conv2 dense")
    open_model(tmp_path / "two", "conv1 conv2 wider-dense")
    open_model(tmp_path / "three", "conv1 dense wider-dense")
    assert provider.timed == [["conv1", "conv2", "dense"], ["wider-dense"], []]


def test_a_start_from_the_engine_takes_nothing_from_what_others_measured(
    provider: Provider, tmp_path: Path
):
    """The older version's own cache knows less."""
    open_model(tmp_path / "one", "conv1")
    open_model(tmp_path / "two", "conv1 conv2")
    open_model(tmp_path / "one", "conv1")
    open_model(tmp_path / "three", "conv2 conv1")
    assert provider.timed == [["conv1"], ["conv2"], []]


def test_other_settings_of_the_build_measure_anew(provider: Provider, tmp_path: Path):
    open_model(tmp_path / "one", "conv1")
    open_model(tmp_path / "one", "conv1", OPTIONS | {"trt_fp16_enable": "1"})
    assert provider.timed == [["conv1"], ["conv1"]]


def test_a_cache_that_cannot_be_read_costs_time_and_not_the_model(
    provider: Provider, tmp_path: Path
):
    """Of another TensorRT, or cut short by a power cut. What comes after it is whole again."""
    open_model(tmp_path / "one", "conv1")
    for path in caches(tmp_path):
        path.write_text("of th")
    open_model(tmp_path / "two", "conv1 conv2")
    open_model(tmp_path / "three", "conv2 conv1")
    assert provider.timed == [["conv1"], ["conv1", "conv2"], []]


def test_an_engine_that_cannot_be_read_costs_time_and_not_the_model(
    provider: Provider, tmp_path: Path
):
    """ONNX Runtime writes it in place, and refuses the model whose engine was cut short. What was
    measured to build it is not lost with it."""
    open_model(tmp_path / "one", "conv1")
    (engine,) = tmp_path.rglob("*.engine")
    engine.write_text("eng")
    open_model(tmp_path / "one", "conv1")
    assert engine.read_text() == "engine"
    assert provider.timed == [["conv1"], []]


def test_a_graph_that_is_refused_is_not_built_twice(provider: Provider, tmp_path: Path):
    open_model(tmp_path / "one", "conv1")
    with pytest.raises(RefusedError, match="failed to create engine"):
        open_model(tmp_path / "two", "conv1 unknown-operator")
    assert provider.timed == [["conv1"], ["unknown-operator"]]


def test_a_disk_that_takes_no_copy_costs_time_alone(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeml.targets.tensorrt.timing._put", full)
    open_model(tmp_path / "one", "conv1")
    open_model(tmp_path / "two", "conv1 conv2")
    assert provider.timed == [["conv1"], ["conv1", "conv2"]]


def test_half_a_copy_is_never_seen(provider: Provider, tmp_path: Path):
    """Nor does one stay."""
    open_model(tmp_path / "one", "conv1")
    open_model(tmp_path / "two", "conv2")
    assert [path.name for path in caches(tmp_path)] == [FILE] * 3
    (shared,) = tmp_path.rglob("timing-*")
    assert [path.name for path in shared.iterdir()] == [FILE]


def test_what_was_measured_is_anothers_on_another_device_and_not_with_another_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    versions = {"tensorrt": "10.9.0", "onnxruntime-gpu": "1.22.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr("importlib.metadata.version", version)
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_text("NVIDIA Jetson Orin Nano Developer Kit")
    entry = tmp_path / "model.onnx"
    entry.write_text("conv1")

    def found() -> tuple[str, str]:
        engine = runtime.engine_of(entry, {}, system=tmp_path)
        return str(engine), engine.timing

    before, timing = found()
    versions["onnxruntime-gpu"] = "1.23.0"
    assert found()[0] != before
    assert found()[1] == timing
    versions["tensorrt"] = "10.10.0"
    _, upgraded = found()
    assert upgraded != timing
    model.write_text("NVIDIA Jetson AGX Orin Developer Kit")
    assert found()[1] != upgraded
