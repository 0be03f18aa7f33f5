"""One graph through onnx2tf."""

from __future__ import annotations

import importlib
import os
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from .comparing import compare, flat
from .draws import Feeds, drawn, keep
from .forking import end_with_parent
from .graphs import CHANNELS, nodes, operators, rename
from .protocol import NotMadeError, Request, raised


def convert_one(request: Request) -> None:
    """Write the SavedModel of a graph, and the draws that it was checked on beside it, as ``.npz``.

    Raises:
        NotMadeError: onnx2tf lacks an operator, fails, or makes another function of the graph.
    """
    onnx: Any = importlib.import_module("onnx")
    model = onnx.load(request.model)
    known = operators()
    for node in nodes(model.graph):
        if node.op_type not in known:
            raise NotMadeError("lacks", "", operator=node.op_type)
    rename(model)
    draws = drawn(model)
    feeds, wanted = draws[0]
    savedmodel = Path(request.savedmodel)
    work = savedmodel.with_suffix(".work")
    work.mkdir(exist_ok=True)
    tempfile.tempdir = str(work)  # AutoGraph's files outlive a fork
    refused: NotMadeError | None = None
    for layout in layouts(model, feeds):
        path = work / "graph.onnx"  # onnx2tf writes over it
        onnx.save(model, str(path))
        try:
            found = convert(path, work, layout)
            orders = compare(found, draws)
        except NotMadeError as error:
            # A model that is wrong came further than none.
            if refused is None or error.answer.kind == "differs":
                refused = error
            continue
        save(found, feeds, wanted, orders, savedmodel)
        keep(draws, savedmodel.with_suffix(".npz"))
        return
    assert refused is not None
    raise refused


def layouts(model: Any, feeds: Feeds) -> list[dict[str, list[str]]]:
    """What to tell onnx2tf of the inputs' axes, the likeliest first: it does not know a picture."""
    moved = [name for name, array in feeds.items() if 3 <= array.ndim <= 5]
    found: list[dict[str, list[str]]] = [
        {"keep_ncw_or_nchw_or_ncdhw_input_names": moved} if moved else {},
        {"keep_shape_absolutely_input_names": list(feeds)},
    ]
    if not any(node.op_type in CHANNELS for node in nodes(model.graph)):
        found.reverse()  # which spares transpositions
    return found


def convert(path: Path, work: Path, layout: dict[str, list[str]]) -> Any:
    """The Keras model that onnx2tf makes.

    Raises:
        NotMadeError: it makes none.
    """
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
    except SystemExit as ended:  # it has printed why
        refused = raised(ended)
    except Exception as failure:  # noqa: BLE001 - whatever it raises, the caller is told
        traceback.print_exc()
        refused = raised(failure)
    raise refused


def simplify(command: Sequence[str], **_options: Any) -> bytes:
    """What onnx2tf runs a program for: ``onnxsim FROM TO``. Here a fork, without the imports."""
    child = os.fork()
    if child == 0:
        end_with_parent()
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


def save(
    model: Any, feeds: Feeds, wanted: list[Any], orders: list[tuple[int, ...]], folder: Path
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
    module.serve = tf.function(serve)
    specs = {
        name: tf.TensorSpec(array.shape, array.dtype, name=name) for name, array in feeds.items()
    }
    concrete = module.serve.get_concrete_function(**specs)
    # What it reads, of which the model may not know. The model itself would be written with all its
    # layers.
    module.kept = list(concrete.graph.variables)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
