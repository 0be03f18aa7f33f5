"""Which toolchains there are. Another one is a row here and a file of constraints."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from edgeml.errors import UsageError

_CONSTRAINTS = Path(__file__).with_name("constraints")


@dataclass(frozen=True, kw_only=True)
class ToolchainSpec:
    """A named environment and what stands in it."""

    name: str
    holds: str
    """The libraries that a person would recognise, for the sentence before the installation."""
    constraints: Path
    """A pip constraints file that pins every distribution."""
    extra: str = ""
    """The extra of edgeml that it is for; empty for one without edgeml."""
    requirements: tuple[str, ...] = ()
    """What else pip installs."""
    size_bytes: int
    """On disk, measured."""
    remark: str = ""
    """A sentence on what may make it larger."""
    pythons: tuple[tuple[int, int], tuple[int, int]] = ((3, 11), (3, 13))
    """The oldest and the newest Python that the pins have wheels for."""


TOOLCHAINS: dict[str, ToolchainSpec] = {
    spec.name: spec
    for spec in (
        ToolchainSpec(
            name="export",
            holds="PyTorch, TensorFlow, LiteRT's converter and quantizer, OpenVINO, NNCF, ONNX, "
            "ONNX Runtime, ExecuTorch, Core ML's converter, scikit-learn, XGBoost and LightGBM",
            constraints=_CONSTRAINTS / "export.txt",
            extra="export",
            size_bytes=5_100_000_000,
            remark="Where the package index gives PyTorch with CUDA, as PyPI does on x86-64 Linux, "
            "it is some GB more.",
        ),
        ToolchainSpec(
            name="onnx2tf",
            holds="onnx2tf and the TensorFlow that it needs, for models in ONNX on their way to "
            "LiteRT",
            constraints=_CONSTRAINTS / "onnx2tf.txt",
            requirements=("onnx2tf",),
            size_bytes=2_700_000_000,
            pythons=((3, 11), (3, 12)),
        ),
    )
}


def toolchain(name: str) -> ToolchainSpec:
    """Look a toolchain up.

    Raises:
        UsageError: there is none of that name.
    """
    if name in TOOLCHAINS:
        return TOOLCHAINS[name]
    near = difflib.get_close_matches(name, TOOLCHAINS, n=1)
    raise UsageError(
        f"There is no toolchain {name!r}",
        expected=f"one of {', '.join(TOOLCHAINS)}",
        remedy=f"Did you mean {near[0]}?" if near else "`edgeml toolchain list` shows them.",
    )
