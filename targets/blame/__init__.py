"""Blaming an operator: which node of the source a target cannot take, where it comes from, what the
target says, and what can be done.

:mod:`.torch`, :mod:`.tensorflow` and :mod:`.onnx` find the node, each in its kind of source; what
they know of it is a :class:`Place`. Heavy: they read the source with its own framework, in the
toolchain only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from edgeml.errors import RefusedError


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a model an operator stands.

    Attributes:
        node: its name in the graph, or what it makes, as a phrase: ``node 'spectrum/FFT2D'``.
        inputs: dtype and shape of each tensor that it reads, such as ``float32[1, 8, 8]``; empty
            where unknown, and for one that it leaves out.
        outputs: likewise of what it makes.
        module: the path of the torch module that it comes from, such as ``features.3.conv``.
        kind: that module's class; empty where there is no module.
        line: file and line of the user's code.
    """

    node: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    module: str = ""
    kind: str = ""
    line: str = ""

    def __str__(self) -> str:
        """Node, shapes, module and line, as far as they are known."""
        flow = ""
        if any(self.inputs) or any(self.outputs):
            sides = (
                ", ".join(each or "?" for each in side) for side in (self.inputs, self.outputs)
            )
            flow = f"({' → '.join(sides)})"
        module = ""
        if self.kind:
            whole = f"the model ({self.kind})"
            module = f"module {self.module!r} ({self.kind})" if self.module else whole
        node = " ".join(filter(None, (self.node, flow)))
        return ", ".join(filter(None, (node, module, self.line)))


# What helps, by operators' names in lower case; the first that fits.
_HELP: Sequence[tuple[str, str]] = (
    (
        r"fft|stft|dft|complex|view_as_real",
        "Compute the spectrum before the model, or write it as a product with the matrices of its "
        "cosines and sines, which every target has.",
    ),
    (
        r"svd|eig|qr\b|cholesky|inverse|matrixinverse|\bdet|solve|lstsq|pinv",
        "Compute the decomposition before or after the model; of weights alone, once when the "
        "model is built.",
    ),
    (
        r"nonmaxsuppression|nms|roialign|roi_align|image_?decoder",
        "End (or begin) the model before it, and do this step in the program around the model.",
    ),
    (
        r"unique|nonzero|masked_select|compress",
        "Its output is as long as the data says: take a fixed number (top k), or multiply by a "
        "mask.",
    ),
    (
        r"bessel|i0|i1|gamma|beta|zeta|erfinv|ndtri|polygamma|airy",
        "Approximate it over the range that is needed, by a polynomial or a table, or compute it "
        "before or after the model.",
    ),
    (
        r"^(stateless)?(cond|if|while|while_loop|loop|scan)$",
        "Compute both sides of a branch and choose with where; write a loop of a fixed number of "
        "turns as one of Python, which the export unrolls.",
    ),
    (r"random|rand|bernoulli|multinomial|normal\b", "Give the random numbers as an input."),
    (
        r"adagrad|adam|momentum|gradient|sgd",
        "It belongs to training: export the model for inference.",
    ),
    (
        r"string|regex|tfidf|lookup|hashtable|labelencoder",
        "Do what concerns text before and after the model, in the program around it.",
    ),
)

_REMEDY = (
    "Take it out of the model (compute it before or after), replace it by an equivalent that the "
    "target has, or export to another target."
)


def refuse_operator(
    target: str,
    operator: str,
    place: Place | str | None,
    cause: BaseException | None,
    *,
    reason: str = "",
) -> NoReturn:
    """Raises the sentences about an operator that a target lacks.

    Args:
        target: as people call it.
        operator: as the source, or the graph that the target was given, calls it.
        place: where it stands; None where that was not found.
        cause: what the target raised.
        reason: the target's own words; taken from ``cause`` where left out.
    """
    name = operator.removesuffix(".default")
    where = f". It is {place}" if place and str(place) else ""
    words = reason or _own_words(name, cause)
    said = f". {target} says: {words}" if words else ""
    raise RefusedError(
        f"{target} has no operator for {name}, which the model needs{where}{said}",
        remedy=remedy(name),
    ) from cause


def remedy(operator: str) -> str:
    """What can be done about an operator that a target lacks."""
    for pattern, text in _HELP:
        if re.search(pattern, operator.lower()):
            return f"{text} Or export to another target."
    return _REMEDY


def _own_words(operator: str, cause: BaseException | None) -> str:
    """The line of an error, or of those behind it, that is about the operator; shortened."""
    base = operator.rpartition(".")[2].rpartition(":")[2].lower()
    links: list[BaseException] = []
    link = cause
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    for each in reversed(links):
        for line in str(getattr(each, "found", each)).splitlines():
            text = line.strip(" -|\t")
            # A line that dumps a graph, or a module's text, says nothing to a person.
            if base in text.lower() and not re.search(r"num_users|^%|= ?\"|loc\(", text):
                return _shortened(text)
    return ""


def _shortened(text: str, most: int = 200) -> str:
    text = re.sub(r"<class '[\w.]*?(\w+)'>: ", "", text)
    return (text if len(text) <= most else f"{text[: most - 1]}…").rstrip(".")


def tensor_text(dtype: str, shape: Iterable[object] | None) -> str:
    """A tensor for people: ``float32[1, 8, 8]``; an open axis is a ``?``."""
    if shape is None:
        return dtype
    return f"{dtype}[{', '.join('?' if size in (None, -1) else str(size) for size in shape)}]"


def users_line(trace: str) -> str:
    """File and line of a Python trace's last frame that is the user's own, else of its last."""
    found: Sequence[tuple[str, str]] = re.findall(r'File "([^"]+)", line (\d+)', trace)
    found = [each for each in found if not each[0].startswith("<eval_with_key>")]  # torch's own
    if not found:
        return ""
    own = [each for each in found if "site-packages" not in each[0]]
    path, line = (own or found)[-1]
    return f"{Path(path).name}:{line}"


def class_name(kind: object) -> str:
    """A class's name without its module, of the class or of its dotted path."""
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]
