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
        first: the first bad one: the noise arises in it, and what it makes is below
            :data:`BAD_DB`; where none is, the one that adds most.
        after: the nearest layer before it whose module is known, where its own is not.
        compared: how many layers there were.
    """

    layers: tuple[LayerSignal, ...]
    first: LayerSignal
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
    worst = max(adding, key=noise)
    # A layer whose inputs are bad already may be blameless: more than half its noise is its own.
    first = next((each for each in adding if each.snr_db < BAD_DB and _own(each)), worst)
    shown = {id(each) for each in sorted(adding, key=noise, reverse=True)[: SHOWN - 1]}
    shown.add(id(first))
    before = layers[: next(i for i, each in enumerate(layers) if each is first)]
    known = [each for each in before if each.module or each.line]
    return Collapse(
        layers=tuple(each for each in layers if id(each) in shown),
        first=first,
        after=known[-1] if known and not (first.module or first.line) else None,
        compared=len(layers),
    )


def sentence(found: Collapse) -> str:
    """The first bad layer, where it comes from, and what it does to the signal."""
    layer = found.first
    whence = _whence(layer) or (f"behind {_whence(found.after)}" if found.after else "")
    before = decibels(layer.input_snr_db)
    came = "a clean input" if math.isinf(layer.input_snr_db) else f"an input at {before}"
    verdict = "The first bad layer is"
    if layer.snr_db >= BAD_DB:
        verdict = "No layer is bad by itself; most noise arises in"
    return (
        f"{verdict} {layer.name!r} ({layer.operator}{f'; {whence}' if whence else ''}): it takes "
        f"{came} and gives out {decibels(layer.snr_db)} of signal to noise"
    )


def _whence(layer: LayerSignal) -> str:
    return ", ".join(filter(None, (layer.module and f"module {layer.module!r}", layer.line)))


def decibels(value: float) -> str:
    """For people; a layer without any noise has no figure."""
    return "–" if value == math.inf else f"{max(value, -99.0):.1f} dB"


def _own(layer: LayerSignal) -> bool:
    return math.isinf(layer.input_snr_db) or layer.input_snr_db - layer.snr_db > 10 * math.log10(2)
