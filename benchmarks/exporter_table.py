"""What ``exporter.py`` found, and the tables of it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from page import setting, table
from peers.subjects import MAKERS

TARGETS = ("tflite", "openvino", "onnx")
LOSS = 0.01
"""One point: what an artifact may lose and still count as having kept its accuracy."""


ERROR = 0.05
"""Of calling ours slower where it is not."""


class Cost(msgspec.Struct, frozen=True):
    """What an export took."""

    seconds: float
    """By the clock, without those for the explanation."""
    cpu_seconds: float
    """Of all its processes, the explanation's among them."""
    converted: float = 0.0
    """Seconds until the last artifact was converted; of a stock tool all of them."""
    explaining: float = 0.0
    """Seconds for the table of layers of an int8 that collapsed; no stock tool makes one."""


class Made(msgspec.Struct, kw_only=True):
    """An artifact, and what was found out about it."""

    model: str
    target: str
    maker: str
    precision: str
    files: tuple[Path, ...]
    bytes: int
    """Of all files."""
    cost: Cost
    """Of the export that made it, which made its siblings too."""
    chosen: bool = True
    options: dict[str, str] = {}
    right: float = 0.0
    """Accuracy where there are labels, else agreement with the source."""
    p50_ms: float = float("inf")
    p50s_ms: tuple[float, ...] = ()
    """Of each round, in their order; :attr:`p50_ms` is the least."""
    copy_p50s_ms: tuple[float, ...] = ()
    """Likewise of a byte-for-byte copy: the control. Empty where none was measured."""
    p99_ms: float = float("inf")
    peak_mb: float = 0.0


def earlier(results: Path | None) -> list[Made]:
    """What earlier calls measured."""
    if results is None or not results.exists():
        return []
    return msgspec.json.decode(results.read_bytes(), type=list[Made], dec_hook=_path)


def _path(_: type, value: object) -> Path:
    return Path(str(value))


def ordered(found: Sequence[Made]) -> list[Made]:
    """By model and target, each maker's in the order in which they were made."""
    models = list(MAKERS)
    return sorted(found, key=lambda each: (models.index(each.model), TARGETS.index(each.target)))


def report(found: Sequence[Made]) -> str:
    columns = (
        "model",
        "target",
        "by",
        "precision",
        "right",
        "bytes",
        "p50 ms",
        "p99 ms",
        "peak MB",
    )
    rows = [
        (
            each.model,
            each.target,
            each.maker,
            each.precision,
            f"{each.right:.3f}",
            f"{each.bytes:,}",
            f"{each.p50_ms:.3f}",
            f"{each.p99_ms:.3f}",
            f"{each.peak_mb:.0f}",
            f"{each.cost.seconds:.1f}",
            f"{each.cost.converted:.1f}",
            f"{each.cost.cpu_seconds:.1f}",
        )
        for each in found
    ]
    setting_line = setting("tensorflow", "litert-torch", "openvino", "nncf", "onnxruntime")
    return "\n\n".join(
        (
            setting_line,
            table((*columns, "export s", "converted s", "CPU s"), rows),
            "edgeml's choice over the best stock artifact that is within a point of the best "
            "stock accuracy; *latency* is the median of the rounds' ratios, with the middle half "
            "of them; *control* is that of a copy of the stock artifact, which differs from 1 by "
            "noise alone; *slower* is whether ours is slower than that copy, by Wilcoxon's "
            "signed-rank test over the rounds (one-sided p, at 5 %); *export* (all of it), "
            "*conversion* (until the last one was converted) and *CPU* over the stock tool's "
            "process. Wanted: latency ≤ 1.00, accuracy ≥ 0, size ≤ 1.02, export ≤ 1.2.",
            _ratios(found),
            *_explanations(found),
        )
    )


def accurate(stock: Sequence[Made]) -> list[Made]:
    """Those of a model's for a target that are within a point of the best."""
    most = max(each.right for each in stock)
    return [each for each in stock if each.right >= most - LOSS]


def _latency(ours: Made, best: Made) -> str:
    """Of one over the other, round by round."""
    if not ours.p50s_ms or len(ours.p50s_ms) != len(best.p50s_ms):
        return f"{ours.p50_ms / best.p50_ms:.2f}"
    return _spread(ours.p50s_ms, best.p50s_ms)


def _control(best: Made) -> str:
    """Of its copy over it, likewise."""
    if not best.copy_p50s_ms:
        return "–"
    return _spread(best.copy_p50s_ms, best.p50s_ms)


def _slower(ours: Made, best: Made) -> str:
    """Whether one is slower than the other's copy, by a paired test over the rounds."""
    if not best.copy_p50s_ms or len(best.copy_p50s_ms) != len(ours.p50s_ms):
        return "–"
    ratios = np.log(np.array(ours.p50s_ms) / np.array(best.copy_p50s_ms))
    if not ratios.any():
        return "no (p = 1.00)"
    stats: Any = importlib.import_module("scipy.stats")
    p = float(stats.wilcoxon(ratios, alternative="greater").pvalue)
    return f"{'yes' if p <= ERROR else 'no'} (p = {p:.2g})"


def _spread(ones: Sequence[float], others: Sequence[float]) -> str:
    ratios = [one / other for one, other in zip(ones, others, strict=True)]
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def _explanations(found: Sequence[Made]) -> list[str]:
    """What an explanation took, where there was one."""
    took = {(e.model, e.target): e.cost.explaining for e in found if e.cost.explaining}
    if not took:
        return []
    parts = ", ".join(f"{model} {target} {took[model, target]:.1f} s" for model, target in took)
    return [
        "An int8 that collapses is looked into, layer by layer, which is in *CPU s* and not in "
        f"*export s*: {parts}."
    ]


def _ratios(found: Sequence[Made]) -> str:
    rows: list[tuple[str, ...]] = []
    for model, target in dict.fromkeys((each.model, each.target) for each in found):
        mine = [e for e in found if (e.model, e.target) == (model, target)]
        ours = next(e for e in mine if e.maker == "edgeml" and e.chosen)
        stock = [e for e in mine if e.maker == "stock"]
        best = min(accurate(stock), key=lambda e: e.p50_ms)
        rows.append(
            (
                model,
                target,
                ours.precision,
                best.precision,
                _latency(ours, best),
                _control(best),
                _slower(ours, best),
                f"{(ours.right - best.right) * 100:+.1f}",
                f"{ours.bytes / best.bytes:.3f}",
                f"{ours.cost.seconds / best.cost.seconds:.2f}",
                f"{ours.cost.converted / best.cost.seconds:.2f}",
                f"{ours.cost.cpu_seconds / best.cost.cpu_seconds:.2f}",
            )
        )
    columns = (
        "model",
        "target",
        "edgeml",
        "stock",
        "latency",
        "control",
        "slower",
        "points",
        "size",
        "export",
        "conversion",
        "CPU",
    )
    return table(columns, rows)
