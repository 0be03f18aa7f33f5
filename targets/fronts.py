"""What must stay float of the preprocessing in front of a model.

The powers of a spectrum span ten orders of magnitude, and a logarithm that follows makes the small
ones count as much as the large ones: in 8 bits, in 4, or from weights in as few, nothing would be
left of them. Whatever leads up to the logarithm therefore keeps its floats in every precision.
Frames of an image span 0..255 from beginning to end, and are quantized like the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeml.targets.signals import Layer


def before_logarithms(layers: Sequence[Layer], count: int) -> list[str]:
    """The layers up to and including the first logarithms, and what they read.

    Args:
        layers: in the order in which they run.
        count: of spectra in front of the model: its own logarithms come later.
    """
    by_name = {layer.name: layer for layer in layers}
    logarithms = [layer.name for layer in layers if layer.operator.lower() == "log"]
    found: set[str] = set()
    waiting = logarithms[:count]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in found:
            found.add(name)
            waiting += by_name[name].reads
    return [layer.name for layer in layers if layer.name in found]
