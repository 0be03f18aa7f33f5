"""Where an integer artifact loses the signal: the layers that matter, the first bad one. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edgeml.exporter.searching.sensitivity import noise
from edgeml.targets.layers import LayerSignal

BAD_DB = 10.0
"""Below this the noise has more than a tenth of the energy: decisions change."""

SHOWN = 12
"""Rows of the table; a network has hundreds of layers, and few of them matter."""


class Collapse(msgspec.Struct, frozen=True, kw_only=True):
    """What the layers of an artifact tell.

    Attributes:
        layers: those to show, in the order in which they run.
        bad: the first bad one: what it makes is below :data:`BAD_DB`; None where no layer is.
        most: where the noise arises: in the bad one, if more than half of that is its own; else
            noise adds up over the layers, and this one adds most.
        after: the nearest layer before that whose module is known, where its own is not.
        compared: how many layers there were.
    """

    layers: tuple[LayerSignal, ...]
    bad: LayerSignal | None
    most: LayerSignal
    after: LayerSignal | None
    compared: int


def judge(layers: Sequence[LayerSignal]) -> Collapse | None:
    """Pick the layers that matter; None where no layer adds noise.

    Args:
        layers: all, in the order in which they run.
    """
    adding = [layer for layer in layers if noise(layer) > 0]
    if not adding:
        return None
    bad = next((each for each in adding if each.snr_db < BAD_DB), None)
    most = bad if bad is not None and _own(bad) else max(adding, key=noise)
    shown = {id(each) for each in sorted(adding, key=noise, reverse=True)[: SHOWN - 2]}
    shown |= {id(bad), id(most)}
    before = layers[: next(i for i, each in enumerate(layers) if each is most)]
    known = [each for each in before if each.module or each.line]
    return Collapse(
        layers=tuple(each for each in layers if id(each) in shown),
        bad=bad,
        most=most,
        after=known[-1] if known and not (most.module or most.line) else None,
        compared=len(layers),
    )


def sentence(found: Collapse) -> str:
    """The first bad layer, where it comes from, and what it does to the signal."""
    layer = found.most
    verdict = "The first bad layer is"
    if found.bad is None:
        verdict = "No layer is bad by itself; most noise arises in"
    elif found.bad is not layer:
        verdict = (
            f"Noise adds up over the layers: the first below {BAD_DB:g} dB is "
            f"{_named(found.bad, _whence(found.bad))}, and most arises in"
        )
    whence = _whence(layer) or (f"behind {_whence(found.after)}" if found.after else "")
    before = decibels(layer.input_snr_db)
    came = "a clean input" if math.isinf(layer.input_snr_db) else f"an input at {before}"
    return (
        f"{verdict} {_named(layer, whence)}: it takes {came} and gives out "
        f"{decibels(layer.snr_db)} of signal to noise"
    )


def _named(layer: LayerSignal, whence: str) -> str:
    return f"{layer.name!r} ({layer.operator}{f'; {whence}' if whence else ''})"


def _whence(layer: LayerSignal) -> str:
    return ", ".join(filter(None, (layer.module and f"module {layer.module!r}", layer.line)))


def decibels(value: float) -> str:
    """For people; a layer without any noise has no figure."""
    return "–" if value == math.inf else f"{max(value, -99.0):.1f} dB"


def _own(layer: LayerSignal) -> bool:
    return math.isinf(layer.input_snr_db) or layer.input_snr_db - layer.snr_db > 10 * math.log10(2)
