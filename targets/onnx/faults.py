"""What ONNX Runtime 1.31 computes otherwise than ONNX defines it."""

from __future__ import annotations

from edgeml.targets.faults import Fault, View, aligned_corners_off_the_grid


def _masked_scores(view: View) -> bool:
    return view.made(3) and view.given(3) and bool(view.attribute("is_causal", 0))


FAULTS = (
    Fault(
        ("Resize",),
        aligned_corners_off_the_grid,
        "with aligned corners and a scale that gives no whole length, positions are off",
    ),
    Fault(
        ("MaxUnpool",),
        lambda view: view.given(2),
        "with an output_shape the values land elsewhere",
    ),
    Fault(
        ("Attention",),
        _masked_scores,
        "with a mask and is_causal, qk_matmul_output holds large negative numbers for -infinity",
    ),
)
