"""What each layer of a model, or of an artifact, makes of one sample. In a child.

Sources are traced in their own framework, artifacts in their target's runtime with its
optimisations off, which alone shows what lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.exporter.diagnosis.parting import Traced
from edgeml.targets.blame.of_onnx import place_of as onnx_place
from edgeml.targets.blame.of_onnx import tensor_texts
from edgeml.targets.blame.of_torch import place_of as torch_place
from edgeml.targets.frameworks import framework
from edgeml.targets.runtime import Array

Feeds = Mapping[str, Array]


def source_layers(kind: str, path: Path, feeds: Feeds) -> list[Traced]:
    """The layers of a source; empty for a kind that cannot be looked into.

    Args:
        kind: as in :class:`edgeml.targets.compiling.CompileJob`.
        path: of the source.
        feeds: one sample by the source's names, in the order of its inputs.
    """
    tracers: Mapping[str, Callable[[Path, Feeds], list[Traced]]] = {
        "torch": _torch,
        "onnx": _onnx,
        "classical": _onnx,
        "savedmodel": _tensorflow,
        "tflite": _lite,
    }
    return tracers[kind](path, feeds) if kind in tracers else []


def artifact_layers(target: str, entry: Path, feeds: Feeds) -> list[Traced]:
    """The layers of an artifact; empty where the runtime shows nothing of them.

    Args:
        target: whose runtime is to run it.
        entry: the artifact's first file.
        feeds: one sample by the runtime's names.
    """
    tracers: Mapping[str, Callable[[Path, Feeds], list[Traced]]] = {
        "onnx": _onnx,
        "openvino": _openvino,
        "tflite": _lite,
    }
    return tracers[target](entry, feeds) if target in tracers else []


def _torch(path: Path, feeds: Feeds) -> list[Traced]:
    torch = framework("torch")
    interpreter: Any = framework("torch.fx").Interpreter
    found: list[Traced] = []

    class Tracer(interpreter):
        def run_node(self, n: Any) -> Any:
            value: Any = interpreter.run_node(self, n)
            if n.op == "call_function" and isinstance(value, torch.Tensor):
                place = torch_place(n)
                found.append(
                    Traced(
                        name=str(n.name),
                        operator=str(n.target).removesuffix(".default"),
                        values=value.detach().numpy().copy(),
                        module=place.module,
                        line=place.line,
                    )
                )
            return value

    program = torch.export.load(str(path))
    pytree = framework("torch.utils._pytree")
    tensors = [torch.from_numpy(np.array(array)) for array in feeds.values()]
    args, kwargs = pytree.tree_unflatten(tensors, program.call_spec.in_spec)
    module = program.module()
    with torch.no_grad():
        traced: Any = Tracer(module)
        traced.run(*args, *kwargs.values())
    return found


def _onnx(path: Path, feeds: Feeds) -> list[Traced]:
    onnx = framework("onnx")
    runtime = framework("onnxruntime")
    model = onnx.load(str(path))
    texts = tensor_texts(model)
    graph = model.graph
    outputs = {value.name for value in graph.output}
    known = {value.name for value in graph.output}
    for node in graph.node:
        for name in node.output:
            if name and name not in known:
                known.add(name)
                graph.output.append(onnx.ValueInfoProto(name=name))
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [node.output[0] for node in graph.node if node.output and node.output[0]]
    values = dict(zip(names, session.run(names, dict(feeds)), strict=True))
    found: list[Traced] = []
    for node in graph.node:
        if node.op_type == "Constant" or not node.output or not node.output[0]:
            continue
        place = onnx_place(node, texts)
        name = str(node.output[0])
        found.append(
            Traced(
                name=name if name in outputs else str(node.name) or name,
                operator=str(node.op_type),
                values=values[name],
                module=place.module,
                line=place.line,
            )
        )
    return found


def _tensorflow(path: Path, feeds: Feeds) -> list[Traced]:
    tf = framework("tensorflow")
    convert = framework("tensorflow.python.framework.convert_to_constants")
    loaded = tf.saved_model.load(str(path))  # its variables live as long as it does
    signatures = dict(loaded.signatures)
    signature = signatures.get("serving_default") or next(iter(signatures.values()))
    frozen = convert.convert_variables_to_constants_v2(signature)
    kinds = {"Const", "Placeholder", "NoOp", "Identity"}
    ops = [
        op
        for op in frozen.graph.get_operations()
        if op.type not in kinds and op.outputs and op.outputs[0].dtype.is_numpy_compatible
    ]
    inputs = [tensor for tensor in frozen.inputs if tensor.dtype != tf.resource]
    pruned = frozen.prune(inputs, [op.outputs[0] for op in ops])
    given = [tf.constant(feeds[tensor.op.name]) for tensor in inputs]
    return [
        Traced(name=str(op.name), operator=str(op.type), values=value.numpy())
        for op, value in zip(ops, pruned(*given), strict=True)
    ]


def _openvino(path: Path, feeds: Feeds) -> list[Traced]:
    core = framework("openvino").Core()
    model = core.read_model(str(path))
    inputs = [str(port.get_any_name()) for port in model.inputs]
    ops = [
        op
        for op in model.get_ordered_ops()
        if op.get_type_name() not in {"Parameter", "Result", "Constant"}
        and op.output(0).get_element_type().is_real()
    ]
    model.add_outputs([op.output(0) for op in ops])
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", config).create_infer_request()
    results = request.infer([feeds[name] for name in inputs])
    # One that is an output already is not added again.
    makers = [
        str(port.get_node().input_value(0).get_node().get_friendly_name()) for port in model.outputs
    ]
    values = {name: results[index] for index, name in enumerate(makers)}
    found: list[Traced] = []
    for op in ops:
        name = str(op.get_friendly_name())
        if name in values:
            found.append(Traced(name=name, operator=str(op.get_type_name()), values=values[name]))
    return found


def _lite(path: Path, feeds: Feeds) -> list[Traced]:
    module = framework("ai_edge_litert.interpreter")
    interpreter = module.Interpreter(
        model_path=str(path),
        num_threads=1,
        experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    # The runner must be gone when the interpreter runs.
    signature: dict[str, Any] = interpreter.get_signature_runner().get_input_details()
    where = {name: int(each["index"]) for name, each in signature.items()}
    for name, index in where.items():
        interpreter.set_tensor(index, feeds[name])
    interpreter.invoke()
    details = {each["index"]: each for each in interpreter.get_tensor_details()}
    ops: list[dict[str, Any]] = interpreter._get_ops_details()  # noqa: SLF001 - no other way
    found: list[Traced] = []
    for op in ops:
        index = int(op["outputs"][0]) if len(op["outputs"]) else -1
        if index in details:
            name = str(details[index]["name"]).partition(";")[0]
            try:
                values = interpreter.get_tensor(index)
            except (RuntimeError, ValueError):  # of a kernel that folded its output away
                continue
            found.append(Traced(name=name, operator=str(op["op_name"]), values=values))
    return found
