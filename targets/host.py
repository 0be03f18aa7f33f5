"""Whether a target's artifacts run on a machine, answered before a runtime is imported.

:func:`can_run_here` answers from the target's row and :class:`HostFacts`, which are read off
installed distributions, device nodes and shared libraries: with ``None`` for yes, or with a
:class:`~edgeml.targets.registry.Refusal`.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import platform
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgeml.targets.registry import TARGETS, Refusal, Target, target

# Device nodes that a usable NVIDIA GPU shows: a PC or server, Jetson (Xavier and Orin; Thor),
# and a GPU lent to WSL.
_NVIDIA_NODES = ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu/igpu0/ctrl", "/dev/dxg")

_SYSTEMS = {"Darwin": "a Mac"}


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was found on a machine.

    Attributes:
        distributions: installed Python distributions of interest, name to version.
        nvidia_nodes: device nodes of NVIDIA GPUs that exist.
        libraries: ``find_library`` names that were found.
        system: as ``platform.system`` calls it.
        machine: as ``platform.machine`` calls it.
    """

    distributions: Mapping[str, str]
    nvidia_nodes: tuple[str, ...] = ()
    libraries: frozenset[str] = frozenset()
    system: str = "Linux"
    machine: str = "x86_64"


def host_facts() -> HostFacts:
    """Reads what :func:`can_run_here` needs off this machine. Imports no runtime."""
    import importlib.metadata  # two megabytes, which an agent without a model does not need

    wanted = {name for row in TARGETS.values() for name in row.packages}
    wanted |= {
        name for row in TARGETS.values() for names in row.libraries.values() for name in names
    }
    wanted.add("numpy")
    distributions: dict[str, str] = {}
    for name in sorted(wanted):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            distributions[name] = importlib.metadata.version(name)
    nodes = tuple(node for node in _NVIDIA_NODES if Path(node).exists())
    # find_library runs ldconfig, and where that knows nothing a compiler: ask only where a GPU is.
    names = {name for row in TARGETS.values() for name in row.libraries} if nodes else set[str]()
    return HostFacts(
        distributions=distributions,
        nvidia_nodes=nodes,
        libraries=frozenset(name for name in names if ctypes.util.find_library(name)),
        system=platform.system(),
        machine=platform.machine(),
    )


def to_install(extra: str, machine: str = "") -> str:
    """The command that brings a target's runtime.

    Args:
        extra: of the target's row.
        machine: as ``platform.machine`` calls it; this one when left out.
    """
    if extra == "nvidia" and (machine or platform.machine()) == "aarch64":
        extra = "jetson"  # whose JetPack brings CUDA and cuDNN
    return f"pip install 'edgeml[{extra}]'"


def can_run_here(row: Target | str, facts: HostFacts | None = None) -> Refusal | None:
    """Whether a target's artifacts can run on a machine, and if not, what would change that.

    ONNX Runtime lists the providers that it was built with, not those that work, and falls back to
    the CPU in silence; so the question is put to the machine and not to the library.

    Args:
        row: the target or its name.
        facts: of the machine asked about; this one's when left out.
    """
    row = target(row) if isinstance(row, str) else row
    facts = host_facts() if facts is None else facts
    if row.runs_on and facts.system != row.runs_on:
        return Refusal(
            reason=f"{row.title} runs on {_SYSTEMS.get(row.runs_on, row.runs_on)} alone, and this "
            f"is {facts.system}.",
            remedy="Run the bundle there.",
        )
    present = [name for name in row.packages if name in facts.distributions]
    if not present:
        return Refusal(
            reason=f"No runtime is installed: {row.title} needs {' or '.join(row.packages)}.",
            remedy=to_install(row.extra, facts.machine),
        )
    numpy_major = facts.distributions.get("numpy", "0").partition(".")[0]
    if present == ["tflite-runtime"] and int(numpy_major) >= 2:
        return Refusal(
            reason="tflite-runtime was built for numpy 1 and fails with "
            f"numpy {facts.distributions['numpy']}, which is installed.",
            remedy="pip install ai-edge-litert",
        )
    if row.needs_nvidia and not facts.nvidia_nodes:
        return Refusal(
            reason="This machine shows no NVIDIA GPU: none of "
            f"{', '.join(_NVIDIA_NODES)} exists. ONNX Runtime would fall back to the CPU in "
            "silence.",
            remedy="On a machine with one, check `nvidia-smi` (on a Jetson `tegrastats`), and "
            "start a container with --gpus all or --runtime nvidia.",
        )
    for library, carriers in row.libraries.items():
        if library in facts.libraries or any(name in facts.distributions for name in carriers):
            continue
        return Refusal(
            reason=f"The shared library lib{library} was not found.",
            remedy=f"pip install {carriers[0]}"
            if carriers
            else "Install NVIDIA's driver for this GPU.",
        )
    return None
