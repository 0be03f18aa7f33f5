"""What LiteRT 2 computes otherwise than ONNX defines it, or not at all."""

from __future__ import annotations

from edgeml.targets.faults import Fault

FAULTS = (
    Fault(
        ("Equal",),
        lambda view: view.dtype(0) == "uint8",
        "uint8 is taken for quantized, without a scale, and a comparison ends the process",
    ),
)
