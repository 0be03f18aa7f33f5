"""Every row of the registry keeps the registry's promises, and each no comes with what to do."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from edgeml.bundle.manifest import PRECISIONS as MANIFEST_PRECISIONS
from edgeml.errors import UsageError
from edgeml.targets.host import HostFacts, can_run_here
from edgeml.targets.registry import SOURCE_KINDS, TARGETS, Target, can_make, target
from edgeml.toolchain.spec import TOOLCHAINS

ROWS = pytest.mark.parametrize("row", TARGETS.values(), ids=TARGETS.keys())
GPU = HostFacts(
    distributions={"onnxruntime-gpu": "1.31.1", "numpy": "2.4.6", "tensorrt": "10.13"},
    nvidia_nodes=("/dev/nvidia0",),
    libraries=frozenset({"cuda"}),
)


@ROWS
def test_its_modules_exist(row: Target):
    for module in (row.compile, row.runtime):
        assert importlib.util.find_spec(module) is not None, module
    runtime = importlib.import_module(row.runtime)
    assert callable(runtime.open_session)
    assert callable(runtime.library)


@ROWS
@pytest.mark.parametrize("kind", SOURCE_KINDS)
def test_each_source_is_taken_or_refused_with_a_remedy(row: Target, kind):
    refusal = can_make(row, kind)
    if kind in row.sources:
        assert refusal is None
        assert kind not in row.refusals
    else:
        assert refusal is not None
        assert refusal.reason
        assert refusal.remedy


@ROWS
def test_it_says_what_it_needs_to_run(row: Target):
    facts = HostFacts(distributions={}, system=row.runs_on or "Linux")
    refusal = can_run_here(row, facts)
    assert refusal is not None
    assert row.packages[0] in refusal.reason
    assert refusal.remedy == f"pip install 'edgeml[{row.extra}]'"
    # What pip would bring then is that runtime.
    requirements = [Requirement(line) for line in importlib.metadata.requires("edgeml") or ()]
    brought = {each.name for each in requirements if holds(each, row.extra)}
    assert brought & set(row.packages)


def holds(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra})


@pytest.mark.parametrize("name", ["onnx-cuda", "tensorrt"])
@pytest.mark.parametrize(("machine", "extra"), [("x86_64", "nvidia"), ("aarch64", "jetson")])
def test_a_gpus_runtime_comes_with_cuda_on_a_pc_and_without_on_a_jetson(
    name: str, machine: str, extra: str
):
    refusal = can_run_here(name, HostFacts(distributions={}, machine=machine))
    assert refusal is not None
    assert refusal.remedy == f"pip install 'edgeml[{extra}]'"


@ROWS
def test_its_values_are_known_ones(row: Target):
    assert set(row.precisions) <= set(MANIFEST_PRECISIONS)
    assert row.sources <= set(SOURCE_KINDS)
    assert TARGETS[row.name] is row


def test_an_unknown_target_is_answered_with_the_nearest():
    with pytest.raises(UsageError) as caught:
        target("tensorrtt")
    assert "tensorrt" in caught.value.remedy
    assert "openvino" in caught.value.expected


def test_a_bridge_is_a_toolchain_and_for_a_source_that_is_taken():
    bridged = [(row, kind) for row in TARGETS.values() for kind in row.bridges]
    assert ("tflite", "onnx") in {(row.name, kind) for row, kind in bridged}
    for row, kind in bridged:
        assert row.bridges[kind] in TOOLCHAINS
        assert can_make(row, kind) is None


@pytest.mark.parametrize("name", ["onnx-cuda", "tensorrt"])
def test_the_gpu_targets_run_where_all_is_there(name: str):
    assert can_run_here(name, GPU) is None


@pytest.mark.parametrize("name", ["onnx-cuda", "tensorrt"])
def test_a_gpu_build_of_the_runtime_alone_is_not_enough(name: str):
    """It lists its providers on any machine, and would fall back to the CPU in silence."""
    refusal = can_run_here(name, HostFacts(distributions=GPU.distributions))
    assert refusal is not None
    assert "no NVIDIA GPU" in refusal.reason


def test_tensorrt_needs_its_library():
    facts = HostFacts(
        distributions={"onnxruntime-gpu": "1.31.1"},
        nvidia_nodes=("/dev/nvidia0",),
        libraries=frozenset({"cuda"}),
    )
    assert can_run_here("onnx-cuda", facts) is None
    refusal = can_run_here("tensorrt", facts)
    assert refusal is not None
    assert "libnvinfer" in refusal.reason


def test_the_old_interpreter_does_not_run_beside_numpy_2():
    old = {"tflite-runtime": "2.14.0", "numpy": "2.4.6"}
    refusal = can_run_here("tflite", HostFacts(distributions=old))
    assert refusal is not None
    assert refusal.remedy == "pip install ai-edge-litert"
    assert can_run_here("tflite", HostFacts(distributions=old | {"numpy": "1.26.4"})) is None
    assert can_run_here("tflite", HostFacts(distributions=old | {"ai-edge-litert": "2.3"})) is None


def test_the_questions_are_answered_without_a_framework():
    """What a device or `edgeml targets` imports to decide: no runtime, no converter."""
    program = (
        "import sys\n"
        "from edgeml.targets import compiling, host, registry, runtime\n"
        "[host.can_run_here(row) for row in registry.TARGETS.values()]\n"
        "heavy = {'torch', 'tensorflow', 'onnx', 'onnxruntime', 'openvino', 'ai_edge_litert'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
