"""Random inputs of a graph, and what it makes of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from .graphs import nodes
from .protocol import NotMadeError, first_line

Feeds = dict[str, Any]

Draws = list[tuple[Feeds, list[Any]]]
"""Arrays by the names of inputs, and the outputs in the graph's order, a pair a draw."""

INDEXED = {
    "Compress",
    "Gather",
    "GatherElements",
    "GatherND",
    "NegativeLogLikelihoodLoss",
    "OneHot",
    "Pow",
    "RotaryEmbedding",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "SoftmaxCrossEntropyLoss",
    "TensorScatter",
}
"""Operators whose integers may be indices, classes or exponents, which nobody feeds below 0."""

ODD = {"IsInf", "IsNaN"}
"""Operators of graphs that are about what is no number."""

HIGHS = (2, 7, 100, 3, 5)
"""Integers are drawn below these, in one kind of feeds after another."""
TURNS = 5
ENOUGH = 200
SMALL = 50
"""For a graph of few nodes the kinds are drawn again, so many times at most, until so many values
of an output were compared: of two or three, what is wrong may well be right."""


def drawn(model: Any) -> Draws:
    """Random feeds of several kinds, each with what the graph makes of them.

    The first is a normal distribution, and 0 or 1 for integers, which any model takes. The others
    are there for what shows with some values only (halves and whole numbers, numbers above 1,
    integers below 0, infinities where the graph asks for them); those that ONNX Runtime does not
    take for this graph are left out.

    Raises:
        NotMadeError: there are none.
    """
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise NotMadeError("unchecked", first_line(error)) from error
    inside = {node.op_type for node in nodes(model.graph)}
    made: Draws = []
    why = ""
    values = 0
    turns = TURNS if len(model.graph.node) <= SMALL else 1
    for turn in range(turns * len(HIGHS)):
        kind = turn % len(HIGHS)
        if turn >= len(HIGHS) and values >= ENOUGH:
            break
        feeds = random_feeds(model, turn, inside)
        if turn > 0 and not feeds:
            break
        if kind > 2 and not inside & ODD and all(a.dtype.kind in "fb" for a in feeds.values()):
            continue
        try:
            made.append((feeds, list(session.run(None, feeds))))
            values += min((array.size for array in made[-1][1]), default=0)
        except Exception as error:  # noqa: BLE001 - an index too large, a division by 0
            why = why or first_line(error)
    if not made:
        raise NotMadeError("unchecked", why)
    return made


def random_feeds(model: Any, turn: int, inside: set[str]) -> Feeds:
    """Values for all inputs of a graph of such operators, of one kind of :func:`drawn`."""
    kind = turn % len(HIGHS)
    onnx: Any = importlib.import_module("onnx")
    constants = {tensor.name for tensor in model.graph.initializer}
    random = np.random.default_rng(turn)
    feeds: Feeds = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = [axis.dim_value for axis in tensor.shape.dim]
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if dtype.kind == "f":
            array = random.normal(size=shape)
            if kind == 1:
                array = np.round(array * 6) / 2
            elif kind == 2:
                array = 1 + np.abs(array)
            elif kind == 3 and inside & ODD:
                array = random.choice([-np.inf, np.inf, np.nan, 0, 1], shape)
        else:
            low = -7 if kind == 1 and dtype.kind == "i" and not inside & INDEXED else 0
            high = 2 if dtype.kind == "b" else HIGHS[kind]
            array = random.integers(low, high, shape)
            if inside & {"Div", "Mod"} and dtype.kind != "b":  # by 0 ends ONNX Runtime itself
                array = np.where(array == 0, 1, array)
        feeds[value.name] = np.asarray(array).astype(dtype)
    return feeds


def keep(draws: Draws, path: Path) -> None:
    """Writes the inputs and what the graph makes of them, for checks of what follows."""
    arrays: Feeds = {}
    for number, (feeds, wanted) in enumerate(draws):
        arrays |= {f"{number}/{name}": array for name, array in feeds.items()}
        arrays |= {f"{number}/output_{index}": array for index, array in enumerate(wanted)}
    np.savez(path, **arrays)
