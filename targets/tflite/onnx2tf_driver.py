"""ONNX graphs into SavedModels that compute the same, by onnx2tf.

A program of its own: it runs with the interpreter of the toolchain ``onnx2tf``, which holds no
edgeml. Each line that it reads is a request: the graph ``model``, the folder ``savedmodel`` to
write, the file ``log`` for whatever is printed. To each it answers with a line: the ``error``,
empty where all went well, and the wait ``status`` of the process that made it. The imports take
some 10 s, so one process serves many graphs: each in a fork of it, which may crash.

onnx2tf moves channels to the end, and with them the axes of what it returns; which axes, it does
not say. So the result is run beside the original, here, on the same random inputs: that shows the
order of the axes, and refuses a graph that came out as another function.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import itertools
import json
import os
import pkgutil
import resource
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

RELATIVE = 1e-3
"""Of the largest value of an output: a difference that float32 in another order explains."""

INDEXED = {
    "Compress",
    "Gather",
    "GatherElements",
    "GatherND",
    "OneHot",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "TensorScatter",
}
"""Operators whose integers may be indices, which nobody feeds below 0."""

CHANNELS = {
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "DeformConv",
    "DepthToSpace",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GridSample",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "PRelu",
    "Resize",
    "RoiAlign",
    "SpaceToDepth",
    "Upsample",
}
"""Operators that TensorFlow has for channels at the end alone."""

ODD = {"IsInf", "IsNaN"}
"""Operators of graphs that are about what is no number."""

HIGHS = (2, 7, 100, 3, 5)
"""Integers are drawn below these, in one kind of feeds after another."""
TURNS = 5
ENOUGH = 200
SMALL = 50
"""For a graph of few nodes the kinds are drawn again, so many times at most, until so many values
of an output were compared: of two or three, what is wrong may well be right."""

Feeds = dict[str, Any]

LONGEST_S = 1800
"""Of processor time for one graph. A large one takes a minute."""


def main(request: dict[str, str]) -> str:
    """Writes the SavedModel; returns why there is none, or nothing."""
    onnx: Any = importlib.import_module("onnx")
    model = onnx.load(request["model"])
    known = operators()
    for node in nodes(model.graph):
        if node.op_type not in known:
            return f"lacks: {node.op_type}"
    rename(model)
    draws = drawn(model)
    if isinstance(draws, str):
        return draws
    feeds = draws[0][0]
    work = Path(request["savedmodel"]).with_suffix(".work")
    work.mkdir(exist_ok=True)
    best = ""
    moved = [name for name, array in feeds.items() if 3 <= array.ndim <= 5]
    layouts: list[dict[str, list[str]]] = [
        {"keep_ncw_or_nchw_or_ncdhw_input_names": moved} if moved else {},
        {"keep_shape_absolutely_input_names": list(feeds)},
    ]
    if not any(node.op_type in CHANNELS for node in nodes(model.graph)):
        layouts.reverse()  # which spares transpositions
    for layout in layouts:
        path = work / "graph.onnx"  # onnx2tf writes over it
        onnx.save(model, str(path))
        found = convert(path, work, layout)
        if isinstance(found, str):
            best = best or found
            continue
        given = {tensor.name.split(":")[0] for tensor in found.inputs}
        if not given <= set(feeds):
            best = f"failed: its inputs are {sorted(given)}, the graph's {sorted(feeds)}"
            continue
        orders, difference = compare(found, draws)
        if orders is not None:
            save(found, feeds, draws[0][1], orders, request["savedmodel"])
            keep(draws, Path(request["savedmodel"]).with_suffix(".npz"))
            return ""
        best = f"differs: {difference}"
    return best


def operators() -> set[str]:
    """Those that onnx2tf has a module for."""
    spec = importlib.util.find_spec("onnx2tf.ops")
    assert spec is not None
    return {each.name for each in pkgutil.iter_modules(spec.submodule_search_locations)}


def nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of the bodies of If, Loop and Scan among them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from nodes(body)


def rename(model: Any) -> None:
    """Gives inputs and outputs names that every tool takes; a graph may pass one through."""
    onnx: Any = importlib.import_module("onnx")
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    kept = {value.name: f"input_{index}" for index, value in enumerate(inputs)}
    # A name that is to be given may be taken already, by a tensor inside.
    ours = {*kept.values(), *(f"output_{index}" for index in range(len(model.graph.output)))}
    inside = {name for node in nodes(model.graph) for name in (*node.input, *node.output)}
    inside |= constants
    kept |= {name: f"inner_{name}" for name in (inside & ours) - set(kept)}
    for node in nodes(model.graph):
        node.input[:] = [kept.get(name, name) for name in node.input]
        node.output[:] = [kept.get(name, name) for name in node.output]
    for value in (*inputs, *model.graph.initializer, *model.graph.value_info):
        value.name = kept.get(value.name, value.name)
    for index, value in enumerate(model.graph.output):
        inner = kept.get(value.name, value.name)
        value.name = f"output_{index}"
        model.graph.node.append(onnx.helper.make_node("Identity", [inner], [value.name]))


def drawn(model: Any) -> list[tuple[Feeds, list[Any]]] | str:
    """Random feeds of several kinds, each with what the graph makes of them; or why there are none.

    The first is a normal distribution, and 0 or 1 for integers, which any model takes. The others
    are there for what shows with some values only (halves and whole numbers, numbers above 1,
    integers below 0, infinities where the graph asks for them); those that ONNX Runtime does not
    take for this graph are left out.
    """
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001 - the caller is told
        return f"unchecked: {first_line(error)}"
    inside = {node.op_type for node in nodes(model.graph)}
    made: list[tuple[Feeds, list[Any]]] = []
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
    return made or f"unchecked: {why}"


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


def convert(path: Path, work: Path, layout: dict[str, list[str]]) -> Any:
    """The Keras model that onnx2tf makes, or its words where it makes none."""
    inner: Any = importlib.import_module("onnx2tf.onnx2tf")
    # It fetches a picture from the network for some models, to compare its layers on.
    picture = np.random.default_rng(1).uniform(size=(20, 128, 128, 3)).astype(np.float32)
    inner.download_test_image_data = lambda: picture
    inner.subprocess = SimpleNamespace(check_output=simplify, PIPE=None)
    try:
        return inner.convert(
            input_onnx_file_path=str(path),
            output_folder_path=str(work),
            disable_model_save=True,
            verbosity="error",
            **layout,
        )
    except SystemExit:  # it has printed why
        return "failed"
    except Exception as error:  # noqa: BLE001 - whatever it raises, the caller is told
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {first_line(error)}"


def simplify(command: Sequence[str], **_options: Any) -> bytes:
    """What onnx2tf runs a program for: ``onnxsim FROM TO``. Here a fork, without the imports."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            onnx: Any = importlib.import_module("onnx")
            made = importlib.import_module("onnxsim").simplify(command[1])[0]
            onnx.save(made, command[2])
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status != 0:
        message = f"onnxsim ended with {status}"
        raise ValueError(message)
    return b""


def compare(
    model: Any, draws: list[tuple[Feeds, list[Any]]]
) -> tuple[list[tuple[int, ...]] | None, str]:
    """The order of each output's axes, or the difference of the one that none makes right."""
    results = [call(model, feeds) for feeds, _ in draws]
    orders: list[tuple[int, ...]] = []
    for index, first in enumerate(draws[0][1]):
        pairs = [
            (found[index], wanted[index]) for found, (_, wanted) in zip(results, draws, strict=True)
        ]
        found, wanted = pairs[0]
        # It computes other floats in float32.
        if found.dtype != wanted.dtype and {found.dtype.kind, wanted.dtype.kind} != {"f"}:
            return None, f"output {index} is {found.dtype} for {wanted.dtype}"
        tried = [
            (max(difference(transposed(one, order), other) for one, other in pairs), order)
            for order in axis_orders(found.ndim)
            if np.transpose(found, order).shape == first.shape
        ]
        if not tried:
            return (
                None,
                f"output {index} has the shape {list(found.shape)} for {list(wanted.shape)}",
            )
        # The first of equals: the order as it is, then the usual one.
        least, order = min(tried, key=lambda each: each[0])
        if not least <= RELATIVE:
            return None, f"output {index} is off by {least:.2g} of its largest value"
        orders.append(order)
    return orders, ""


def transposed(array: Any, order: tuple[int, ...]) -> Any:
    """Axes in another order, where there are as many."""
    return np.transpose(array, order) if array.ndim == len(order) else array


def call(model: Any, feeds: dict[str, Any]) -> list[Any]:
    """The model's outputs on the feeds, as a list."""
    made = model([feeds[tensor.name.split(":")[0]] for tensor in model.inputs])
    return [np.asarray(each) for each in flat(made)]


def flat(made: Any) -> list[Any]:
    """A Keras model's outputs: it gives a single one bare."""
    several: list[Any] = list(made) if isinstance(made, list | tuple) else [made]  # pyright: ignore[reportUnknownArgumentType]
    return several


def axis_orders(rank: int) -> Iterator[tuple[int, ...]]:
    """As it is; with the last axis moved to the second place; then every other order."""
    as_it_is = tuple(range(rank))
    yield as_it_is
    if rank >= 3:
        yield (0, rank - 1, *range(1, rank - 1))
    if rank <= 5:
        yield from itertools.permutations(as_it_is)


def difference(found: Any, wanted: Any) -> float:
    """The largest difference over the largest value; infinite where shapes or what is not finite
    differ, and for any difference of integers."""
    if found.shape != wanted.shape:
        return float("inf")
    if wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(found, wanted) else float("inf")
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return float("inf")
    if not np.isfinite(one[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(float(np.abs(other[finite]).max()), 1e-6)
    return float(np.abs(one[finite] - other[finite]).max()) / scale


def save(
    model: Any, feeds: Feeds, wanted: list[Any], orders: list[tuple[int, ...]], folder: str
) -> None:
    """Writes the SavedModel, with one signature of the graph's own axes and types."""
    tf: Any = importlib.import_module("tensorflow")
    names = [tensor.name.split(":")[0] for tensor in model.inputs]

    def serve(**given: Any) -> dict[str, Any]:
        made = flat(model([given[name] for name in names]))
        outputs: dict[str, Any] = {}
        for index, (result, order) in enumerate(zip(made, orders, strict=True)):
            turned = result if order == tuple(range(len(order))) else tf.transpose(result, order)
            outputs[f"output_{index}"] = tf.identity(tf.cast(turned, wanted[index].dtype))
        return outputs

    module = tf.Module()
    module.kept = list(model.variables)  # the model itself would be written with all its layers
    module.serve = tf.function(serve)
    specs = {
        name: tf.TensorSpec(array.shape, array.dtype, name=name) for name, array in feeds.items()
    }
    concrete = module.serve.get_concrete_function(**specs)
    tf.saved_model.save(module, folder, signatures={"serving_default": concrete})


def keep(draws: list[tuple[Feeds, list[Any]]], path: Path) -> None:
    """Writes the inputs and what the graph makes of them, for checks of what follows."""
    arrays: Feeds = {}
    for number, (feeds, wanted) in enumerate(draws):
        arrays |= {f"{number}/{name}": array for name, array in feeds.items()}
        arrays |= {f"{number}/output_{index}": array for index, array in enumerate(wanted)}
    np.savez(path, **arrays)


def serve() -> None:
    """Answers requests until there are no more, each in a process of its own."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print
    for name in ("onnx", "onnxruntime", "onnxsim", "tensorflow", "onnx2tf.onnx2tf"):
        importlib.import_module(name)
    gc.freeze()  # nor collected, nor copied, in every fork
    for line in sys.stdin:
        request: dict[str, str] = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            answer_one(request, writer)
        os.close(writer)
        with os.fdopen(reader) as stream:
            error = stream.read()
        _, status = os.waitpid(child, 0)
        answers.write(json.dumps({"error": error, "status": status}) + "\n")


def answer_one(request: dict[str, str], writer: int) -> None:
    """In the fork: writes why there is no SavedModel, or nothing, to a pipe, and ends."""
    end_with_parent()
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST_S, LONGEST_S))
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        error = main(request)
    except Exception as failure:  # noqa: BLE001 - the caller is told, and reads the trace in the log
        traceback.print_exc()
        error = f"failed: {type(failure).__name__}: {first_line(failure)}"
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(writer, error.encode()[:4000])
    os._exit(0)


def end_with_parent() -> None:
    """Has the kernel kill this process when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def first_line(failure: BaseException) -> str:
    """The first line of an error that says something, cut; Keras names the layer before it."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered when calling layer"):
        return f"{lines[1][:200]} (in {lines[0].split()[5]})"
    return lines[0][:1000] if lines else ""


if __name__ == "__main__":
    serve()
