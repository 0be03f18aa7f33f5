"""What OpenVINO 2026.4 computes on the CPU otherwise than ONNX defines it."""

from __future__ import annotations

from edgeml.targets.faults import Fault, View, aligned_corners_off_the_grid

_ATTENTION = {
    "is_causal",
    "kv_num_heads",
    "q_num_heads",
    "qk_matmul_output_mode",
    "scale",
    "softcap",
    "softmax_precision",
}


def _masked_past(view: View) -> bool:
    return view.given(3) and view.given(4) and bool(view.attribute("is_causal", 0))


def _double_at_the_edge(view: View) -> bool:
    to_double = view.attribute("to") == 11  # TensorProto.DOUBLE
    given = {view.dtype(index) for index in range(len(view.node.input))}
    return view.at_the_edge() and (to_double or "float64" in given)


def _one_sided(view: View) -> bool:
    return bool(view.attribute("onesided", 0))


FAULTS = (
    Fault(
        ("Attention",),
        lambda view: bool(view.attributes() - _ATTENTION),
        "it passes over the attributes of opset 25 and later, such as the window",
    ),
    Fault(
        ("Attention",), _masked_past, "with a past, a mask and is_causal the mask is placed wrongly"
    ),
    Fault(
        ("BitShift",),
        lambda view: not view.dtype(0).startswith("uint"),
        "signed integers are clipped, and shifted without regard to their sign",
    ),
    Fault(
        ("Cast", "CastLike"),
        _double_at_the_edge,
        "it computes float64 in float32, where an infinity becomes the largest number",
    ),
    Fault(
        ("DFT",),
        lambda view: view.given(2) or "axis" in view.attributes() or _one_sided(view),
        "one-sided results have another shape, and other axes than the last are mixed up",
    ),
    Fault(
        ("GRU", "LSTM", "RNN"),
        lambda view: view.attribute("layout", 0) == 1,
        "with the batch in front (layout 1) it mixes up batch and time",
    ),
    Fault(("LSTM",), lambda view: view.given(7), "peepholes (the input P) are left out"),
    Fault(
        ("ReduceMax", "ReduceMin"),
        # Of float32 it is mended.
        lambda view: view.dtype(0) == "float16" and bool(view.readers() & {"Equal", "IsInf"}),
        "of nothing but infinities it makes the largest finite float16, which is then compared",
    ),
    Fault(
        ("Resize",),
        aligned_corners_off_the_grid,
        "with aligned corners and a scale that gives no whole length, positions are off",
    ),
    Fault(
        ("Resize",),
        lambda view: bool(view.attribute("antialias", 0)),
        "antialiasing gives other values",
    ),
    Fault(
        ("Resize",),
        lambda view: bool(view.attribute("exclude_outside", 0)),
        "exclude_outside is passed over",
    ),
    Fault(
        ("Resize",),
        lambda view: view.attribute("keep_aspect_ratio_policy", "stretch") != "stretch",
        "keep_aspect_ratio_policy is passed over",
    ),
    Fault(
        ("RoiAlign",),
        lambda view: view.attribute("mode", "avg") == "max",
        "the maximum is taken over other points",
    ),
    Fault(
        ("SpaceToDepth",),
        lambda view: view.attribute("mode", "DCR") == "CRD",
        "the mode CRD is passed over",
    ),
    Fault(
        ("Tile",),
        lambda view: view.constant(1) is None,
        "repeats that are no constant give what lay in memory",
    ),
)
