"""What an export will import, told from its request alone, before anything of it is looked over; or
from a command line that nobody has read yet."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml.errors import EdgemlError
from edgeml.exporter.children import Children
from edgeml.exporter.compile import FRAMEWORKS, begins_with
from edgeml.exporter.request import ExportRequest
from edgeml.exporter.sources.forms import framework, parse_model
from edgeml.targets.registry import TARGETS


def foresee(request: ExportRequest, children: Children) -> None:
    """Have a framework imported once, where both the model's reader and a converter begin with it.

    A request that turns out to be wrong, or to have been answered before, ends that import early.
    """
    try:
        model = parse_model(
            request.model, trust=request.trust, python=request.python, of_samples=True
        )
    except EdgemlError:
        return  # the same is found again where it is told
    first = framework(model)
    if first and any(begins_with(name, model.kind) == first for name in request.targets):
        children.foresee(first, FRAMEWORKS[first])


def guess(words: Sequence[str], children: Children) -> None:
    """Likewise from the words of a command line. A wrong guess is an import too many, or too late.

    The model is the first word that neither is an option nor follows one, nor is a target.
    """
    targets = [name for word in words for name in word.split(",") if name in TARGETS]
    for before, word in zip(("", *words), words, strict=False):
        if not before.startswith("-") and not word.startswith("-") and word not in TARGETS:
            foresee(ExportRequest(model=word, targets=tuple(targets)), children)
            return
