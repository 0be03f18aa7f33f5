"""Sessions of the runtimes that run on any CPU, names over them, and what they refuse."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.weights import images, scores

from edgeml.errors import EdgemlError, RefusedError, SourceError
from edgeml.targets.onnx import placement
from edgeml.targets.onnx import runtime as onnx_runtime
from edgeml.targets.onnx.placement import Node
from edgeml.targets.onnx_cuda import runtime as cuda_runtime
from edgeml.targets.runtime import NamedSession, TensorInfo, open_session
from edgeml.targets.tensorrt import runtime as tensorrt_runtime

MODELS = Path(__file__).parents[1] / "support" / "models"
ENTRIES = {"tflite": "tiny.tflite", "openvino": "tiny.xml", "onnx": "tiny.onnx"}
EACH = pytest.mark.parametrize("target", ENTRIES)


def open_tiny(target: str, **options: str):
    return open_session(target, MODELS / ENTRIES[target], options=options)


@EACH
def test_it_computes_what_the_model_is(target: str):
    session = open_tiny(target)
    (source,), (result,) = session.inputs, session.outputs
    assert (source.shape, source.dtype) == ((1, 1, 8, 8), "float32")
    assert (result.shape, result.dtype) == ((1, 4), "float32")
    frames = images(5)
    found = [session.run({source.name: frames[i : i + 1]})[result.name] for i in range(5)]
    np.testing.assert_allclose(np.concatenate(found), scores(frames), atol=1e-5)
    session.close()


OPEN = """
import pathlib, sys
from edgeml.targets.runtime import open_session
open_session("openvino", pathlib.Path(sys.argv[1])).close()
sys.exit("openvino_telemetry.main" in sys.modules)
"""


def test_openvino_is_kept_from_telling_its_makers_of_each_start():
    subprocess.run([sys.executable, "-c", OPEN, MODELS / ENTRIES["openvino"]], check=True)


@EACH
def test_a_result_is_the_callers_own(target: str):
    """The runtimes reuse their buffers: a second run must not change the first one's result."""
    session = open_tiny(target)
    name, frames = session.inputs[0].name, images(2)
    first = session.run({name: frames[:1]})[session.outputs[0].name]
    kept = first.copy()
    session.run({name: frames[1:]})
    np.testing.assert_array_equal(first, kept)


@EACH
def test_more_threads_change_no_decision(target: str):
    one, two = (
        open_session(target, MODELS / ENTRIES[target], threads=threads) for threads in (1, 2)
    )
    feeds = {one.inputs[0].name: images(1)}
    name = one.outputs[0].name
    np.testing.assert_allclose(one.run(feeds)[name], two.run(feeds)[name], atol=1e-6)


@EACH
def test_a_truncated_file_is_a_plain_error(target: str, tmp_path: Path):
    whole = (MODELS / ENTRIES[target]).read_bytes()
    broken = tmp_path / ENTRIES[target]
    broken.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(EdgemlError, match=broken.name):
        open_session(target, broken)


@EACH
def test_a_missing_file_is_named(target: str, tmp_path: Path):
    with pytest.raises(SourceError, match="no file"):
        open_session(target, tmp_path / "none")


@EACH
def test_an_option_that_the_runtime_does_not_know_is_refused(target: str):
    with pytest.raises(SourceError, match="POLISH"):
        open_tiny(target, POLISH="1")


def named(target: str = "onnx") -> NamedSession:
    session = open_tiny(target)
    return NamedSession(
        session, {"picture": session.inputs[0].name}, {"classes": session.outputs[0].name}
    )


@EACH
def test_names_are_those_of_the_manifest(target: str):
    with named(target) as session:
        assert session.inputs == (TensorInfo("picture", (1, 1, 8, 8), "float32"),)
        assert list(session.run({"picture": images(1)})) == ["classes"]


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({"image": images(1)}, ["image", "picture"]),
        ({}, ["[]", "picture"]),
        ({"picture": images(1), "more": images(1)}, ["more"]),
        ({"picture": images(2)}, ["[2, 1, 8, 8]", "[1, 1, 8, 8]"]),
        ({"picture": images(1)[0]}, ["[1, 8, 8]", "[1, 1, 8, 8]"]),
        ({"picture": images(1).astype("float64")}, ["float64", "float32"]),
    ],
)
def test_feeds_that_do_not_fit_are_refused_with_found_and_expected(feeds, words: list[str]):
    with named() as session, pytest.raises(SourceError) as caught:
        session.run(feeds)
    for word in words:
        assert word in str(caught.value)


def test_a_mapping_to_tensors_that_are_not_there_is_refused():
    session = open_tiny("onnx")
    with pytest.raises(SourceError, match="nothing"):
        NamedSession(session, {"picture": "nothing"}, {"classes": session.outputs[0].name})
    with pytest.raises(SourceError, match="no name in the manifest"):
        NamedSession(session, {}, {"classes": session.outputs[0].name})


@pytest.mark.parametrize(
    ("runtime", "provider"),
    [(cuda_runtime, "CUDAExecutionProvider"), (tensorrt_runtime, "TensorrtExecutionProvider")],
)
def test_a_runtime_without_the_provider_is_refused_and_not_replaced(runtime, provider: str):
    with pytest.raises(RefusedError, match=provider):
        runtime.open_session(MODELS / "tiny.onnx", threads=1, options={})


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
MIXED = [Node(CUDA, "Conv", f"conv_{n}") for n in range(9)] + [Node(CPU, "NonMaxSuppression", "")]


def test_a_silent_fallback_is_refused_with_the_nodes_that_fell():
    """What ONNX Runtime reports after it gave up on a provider: only the next ones."""
    fallen = [node._replace(provider=CPU) for node in MIXED[-2:]]
    with pytest.raises(RefusedError) as caught:
        placement.check([CUDA], [CPU], fallen, 0.0)
    assert (
        f"asked for {CUDA} and fell back to {CPU} without a word "
        "(2 of 2 nodes: Conv 'conv_8', NonMaxSuppression)"
    ) in caught.value.found


def test_more_nodes_elsewhere_than_the_manifest_expects_are_refused_by_name():
    placement.check([CUDA], [CUDA, CPU], MIXED, 0.9)
    with pytest.raises(RefusedError) as caught:
        placement.check([CUDA], [CUDA, CPU], MIXED, 0.95)
    assert caught.value.found == (
        f"{CUDA} is not where the nodes are: 9 on {CUDA}, 1 on {CPU} "
        "(1 of 10 nodes: NonMaxSuppression)"
    )
    assert caught.value.expected == f"at least 95% of the nodes on {CUDA}"


def test_a_provider_that_got_no_node_is_no_provider():
    tensorrt = "TensorrtExecutionProvider"
    on_cuda = [node for node in MIXED if node.provider == CUDA]
    with pytest.raises(RefusedError, match="9 on CUDAExecutionProvider"):
        placement.check([tensorrt, CUDA], [tensorrt, CUDA, CPU], on_cuda, 0.5)
    some = [node._replace(provider=tensorrt) for node in on_cuda[:1]]
    placement.check([tensorrt, CUDA], [tensorrt, CUDA, CPU], [*some, *on_cuda], 1.0)


def test_what_an_artifact_expects():
    assert placement.least_share({placement.STRICT: "1"}) == 1
    assert placement.least_share({placement.STRICT: "0"}) == 0
    assert placement.least_share({placement.STRICT: "1", placement.SHARE: ".9"}) == 0.9
    for wrong in ("most", "1.5", "nan"):
        with pytest.raises(SourceError, match="Expected a number"):
            placement.least_share({placement.SHARE: wrong})


def test_onnx_runtime_tells_where_its_nodes_are():
    import onnxruntime

    assert placement.tells(onnxruntime)
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry(placement.RECORD, "1")
    session = onnxruntime.InferenceSession(MODELS / "tiny.onnx", settings)
    assert placement.nodes(session) == [
        Node(CPU, "Flatten", ""),
        Node(CPU, "Gemm", ""),
        Node(CPU, "Softmax", ""),
    ]


def test_an_engine_is_not_reused_for_another_model_or_other_options(tmp_path: Path):
    other = tmp_path / "other.onnx"
    other.write_bytes((MODELS / "tiny.onnx").read_bytes() + b"\0")
    key = tensorrt_runtime.engine_of
    first = key(MODELS / "tiny.onnx", {"trt_fp16_enable": "1"})
    assert first == key(MODELS / "tiny.onnx", {"trt_fp16_enable": "1"})
    assert first != key(MODELS / "tiny.onnx", {"trt_fp16_enable": "0"})
    assert first != key(other, {"trt_fp16_enable": "1"})


GPU = """Model: \t\t {model}
IRQ:   \t\t {irq}
GPU UUID: \t {uuid}
Video BIOS: \t {bios}
Bus Type: \t PCIe
"""
KNOWN = {"uuid": "GPU-9221d5d1-b60b-a624-bf14-0a1819cfda3b", "bios": "94.02.42.00.A9"}
UNKNOWN = {"uuid": "GPU-????????-????-????-????-????????????", "bios": "??.??.??.??.??"}


class NvidiaDevice:
    """The files that tell of one, and the packages on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.packages = {"onnxruntime-gpu": "1.22.0", "tensorrt": "10.9.0"}
        monkeypatch.setattr("importlib.metadata.version", self._version)
        self.write("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3")
        self.write("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit")
        self.write("proc/driver/nvidia/version", "NVRM version: 540.4.0")
        self.write("usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0", "")
        self.gpu("RTX A2000", 148, **UNKNOWN)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def gpu(self, model: str, irq: int, *, uuid: str, bios: str) -> None:
        text = GPU.format(model=model, irq=irq, uuid=uuid, bios=bios)
        self.write("proc/driver/nvidia/gpus/0000:01:00.0/information", text)

    @property
    def key(self) -> str:
        return str(tensorrt_runtime.engine_of(MODELS / "tiny.onnx", {}, system=self.root))

    def _version(self, name: str) -> str:
        if name not in self.packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return self.packages[name]


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NvidiaDevice:
    return NvidiaDevice(tmp_path, monkeypatch)


UPGRADES: dict[str, Callable[[NvidiaDevice], object]] = {
    "ONNX Runtime": lambda device: device.packages.update({"onnxruntime-gpu": "1.22.1"}),
    "TensorRT": lambda device: device.packages.update({"tensorrt": "10.10.0"}),
    "TensorRT of a wheel for one CUDA": lambda device: device.packages.update(
        {"tensorrt-cu12-libs": "10.9.0"}
    ),
    "TensorRT of JetPack": lambda device: device.write(
        "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.7.0", ""
    ),
    "JetPack": lambda device: device.write(
        "etc/nv_tegra_release", "# R36 (release), REVISION: 4.4"
    ),
    "another Jetson": lambda device: device.write(
        "proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit"
    ),
    "the driver": lambda device: device.write(
        "proc/driver/nvidia/version", "NVRM version: 550.1.0"
    ),
    "another GPU": lambda device: device.gpu("RTX A4000", 148, **UNKNOWN),
}


@pytest.mark.parametrize("what", UPGRADES)
def test_an_engine_is_not_reused_after_an_upgrade(device: NvidiaDevice, what: str):
    before = device.key
    UPGRADES[what](device)
    assert device.key != before


def test_an_engine_that_took_minutes_is_found_again_after_a_restart(device: NvidiaDevice):
    """The interrupt is another one, and the driver knows more of a GPU that was in use."""
    before = device.key
    device.gpu("RTX A2000", 151, **KNOWN)
    assert device.key == before


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "fma avx2", True),
        ("x86_64", "avx2 avx512f avx512_vnni", False),
        ("x86_64", "avx2 avx_vnni", False),
        ("aarch64", "asimd", False),
    ],
)
def test_exact_kernels_are_asked_for_where_the_fast_ones_overflow(
    machine: str, flags: str, expected: bool, tmp_path: Path
):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    assert onnx_runtime.saturates(machine, cpuinfo) is expected


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/core/providers/cuda/cuda_call.cc:129 "
            "std::conditional_t<THRW, void, Status> CudaCall(ERRTYPE, int) [with ERRTYPE = "
            "cudaError; bool THRW = true] /onnxruntime_src/core/providers/cuda/cuda_call.cc:121 "
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; file=b.cc ; line=1 ; expr=c();",
            "cannot run the model: CUDA failure 2: out of memory",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node."
            " Name:'first' Status Message: /onnxruntime_src/core/cudnn_call.cc:182 T Call(int) "
            "CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0 ; expr=d();",
            "cannot run Conv (node 'first'): CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED",
        ),
    ],
)
def test_what_a_gpus_library_says_is_told_without_its_templates(told: str, found: str):
    assert onnx_runtime.refusal_to_run(RuntimeError(told)).found == f"ONNX Runtime {found}"
