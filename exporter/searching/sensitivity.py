"""Which layers of an int8 artifact lose most, and so should stay float first.

A layer adds as much noise as its output has beyond what came in: with the noise of an output as a
share of the signal's energy, 10^(−snr/10), that is the difference between the two. A share says
more than the difference in decibels, by which a layer that falls from 60 to 45 dB, which harms
nobody, would come before one that falls from 20 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgeml.exporter.plan import Workshop
from edgeml.exporter.trial import Trial
from edgeml.targets.compiling import CompileJob
from edgeml.targets.layers import LayerSignal, SignalJob, signals_here

LEAST_NOISE = 1e-6
"""Of a layer worth keeping float: −60 dB."""


class SignalTask(msgspec.Struct, frozen=True):
    """A comparison, as it goes to a child."""

    target: str
    job: SignalJob


class Signals(msgspec.Struct, frozen=True):
    """What comes back."""

    layers: tuple[LayerSignal, ...]


def noise(layer: LayerSignal) -> float:
    """What a layer adds, as a share of its output's energy."""
    return _share(layer.snr_db) - _share(layer.input_snr_db)


def ranked(layers: Sequence[LayerSignal]) -> tuple[LayerSignal, ...]:
    """The layers in the order in which they are to stay float: those that add noise, the worst
    first; then the others, the noisiest first, for noise is the sum over all channels, and a layer
    that rounds away the small ones may seem to add none."""

    def place(layer: LayerSignal) -> tuple[bool, float]:
        added = noise(layer)
        adds = added > LEAST_NOISE
        return not adds, -added if adds else layer.snr_db

    return tuple(sorted((each for each in layers if each.snr_db < math.inf), key=place))


def signals(
    job: CompileJob, exact: Trial, quantized: Trial, samples: Path, shop: Workshop
) -> tuple[LayerSignal, ...]:
    """Compare two artifacts of a target layer by layer, in a child.

    Args:
        job: of the quantized one.
        exact: the float one.
        quantized: the other.
        samples: an ``.npz`` with some.
        shop: where to work.

    Raises:
        RefusedError: the target's runtime shows nothing of its layers.
        EdgemlError: the comparison failed.
    """
    task = SignalTask(
        exact.candidate.target,
        SignalJob(job=job, exact=exact.made, quantized=quantized.made, samples=samples),
    )
    with shop.children.child() as child:
        found = child.call(
            "edgeml.exporter.searching.sensitivity:compare_layers",
            task,
            Signals,
            step=f"Looking into {quantized.candidate}",
        )
    return tuple(
        msgspec.structs.replace(
            layer,
            snr_db=_infinite(layer.snr_db),
            input_snr_db=_infinite(layer.input_snr_db),
        )
        for layer in found.layers
    )


def compare_layers(task: SignalTask) -> Signals:
    """In the child. JSON has no infinity: a very large number stands for it."""
    return Signals(
        tuple(
            msgspec.structs.replace(
                layer, snr_db=_finite(layer.snr_db), input_snr_db=_finite(layer.input_snr_db)
            )
            for layer in signals_here(task.target, task.job)
        )
    )


_HUGE = 1e9


def _finite(value: float) -> float:
    if math.isnan(value):
        return -_HUGE
    return max(-_HUGE, min(_HUGE, value))


def _infinite(value: float) -> float:
    return math.inf if value >= _HUGE else value


def _share(decibels: float) -> float:
    return 10.0 ** (-max(decibels, -100.0) / 10) if math.isfinite(decibels) else 0.0
