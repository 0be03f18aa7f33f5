"""Programs as TensorFlow functions in front of a SavedModel's signature."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from edgeml.exporter.preprocessing.front import FrontJob
from edgeml.exporter.preprocessing.program import Kind, Op, compile_input
from edgeml.exporter.sources.forms import Opened
from edgeml.targets.frameworks import framework

tf = framework("tensorflow")

_SIGNATURE = "serving_default"


def put_in_front(job: FrontJob) -> Opened:
    """In the child: write a SavedModel that takes raw input."""
    loaded: Any = tf.saved_model.load(str(job.source.path))
    signature: Any = loaded.signatures[_SIGNATURE]
    programs = {name: compile_input(each) for name, each in job.inputs.items()}
    specs: dict[str, Any] = {}
    for tensor in job.source.inputs:
        front = programs.get(tensor.name)
        shape, dtype = (tensor.shape, tensor.dtype) if front is None else (front.raw, front.dtype)
        specs[tensor.name] = tf.TensorSpec(shape, tf.as_dtype(dtype), name=tensor.name)

    def serve(**feeds: Any) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, x in feeds.items():
            with tf.name_scope("preprocess"):
                for op in programs[name].ops if name in programs else ():
                    x = _TENSORFLOW[op.kind](x, op)  # noqa: PLW2901
            made[name] = x
        return dict(signature(**made))

    module: Any = tf.Module()
    module.owner = loaded
    module.serve = tf.function(serve)
    concrete = module.serve.get_concrete_function(**specs)
    tf.saved_model.save(module, str(job.path), signatures={_SIGNATURE: concrete})
    return msgspec.structs.replace(job.source, path=job.path)


def _slice(x: Any, op: Op) -> Any:
    begin, size = [0] * len(x.shape), list(x.shape)
    begin[op.axis], size[op.axis] = op.whole[0], op.whole[1] - op.whole[0]
    return tf.slice(x, begin, size)


_TENSORFLOW: dict[Kind, Callable[[Any, Any], Any]] = {
    "cast": lambda x, _: tf.cast(x, tf.float32),
    "slice": _slice,
    "take": lambda x, op: tf.gather(x, op.array.astype(np.int32), axis=op.axis),
    "product": lambda x, op: tf.tensordot(x, tf.constant(op.array), 1),
    "bands": lambda x, op: tf.concat(
        [
            tf.tensordot(x[..., band.first : band.last], tf.constant(band.weights), 1)
            for band in op.bands
        ],
        -1,
    ),
    "scale": lambda x, op: x * tf.constant(op.array),
    "shift": lambda x, op: x + tf.constant(op.array),
    "square": lambda x, _: x * x,
    "sqrt": lambda x, _: tf.sqrt(x),
    "log": lambda x, _: tf.math.log(x),
    "least": lambda x, op: tf.maximum(x, np.float32(op.numbers[0])),
    "most": lambda x, op: tf.minimum(x, np.float32(op.numbers[0])),
    "floor": lambda x, _: tf.floor(x),
    "reshape": lambda x, op: tf.reshape(x, op.whole),
    "transpose": lambda x, op: tf.transpose(x, op.whole),
}
