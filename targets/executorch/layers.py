"""The layers of ExecuTorch artifacts: their names, what they compute, and the noise that int8 adds.

A program shows nothing of what goes on inside it. But the graphs that it is lowered from compute
the same: those run in torch, the integer one with its roundings written out, and are compared node
by node.
"""

from __future__ import annotations

from typing import Any

from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob
from edgeml.targets.executorch.quantize import float_graph, quantized
from edgeml.targets.fronts import before_logarithms
from edgeml.targets.layers import LayerSignal, SignalJob
from edgeml.targets.origins import with_origins
from edgeml.targets.runtime import Array
from edgeml.targets.signals import Feeds, Layer, Values, compare, few, kept_together

_WEIGHTED = ("conv", "linear", "embedding")

# What rounds in the integer graph, and what takes a result apart: no layers.
_NO_LAYERS = ("quantize_per", "dequantize_per", "getitem")


def signals(job: SignalJob) -> tuple[LayerSignal, ...]:
    """Noise of each layer; see :mod:`edgeml.targets.layers`."""
    program = sources.torch_program(job.job.source)
    exact = float_graph(program)
    rounded, _ = quantized(program, job.job, keep=nodes_kept(program, job.job))
    layers, sizes = _layers(exact)
    names = job.job.inputs
    return compare(
        with_origins(layers, sizes, job.job),
        _values(exact, layers, names),
        _values(rounded, layers, names),
        few(job.samples, names),
    )


def nodes_kept(program: Any, job: CompileJob) -> list[str]:
    """The nodes of the float graph that stay float: those of ``mixed``, and spectra in front of
    the model.

    Args:
        program: of the user's model.
        job: with calibration samples where ``keep_float`` names layers.
    """
    if not job.keep_float and not job.spectra:
        return []
    module = float_graph(program)
    layers, _ = _layers(module)
    kept = before_logarithms(layers, job.spectra)
    if job.keep_float:
        assert job.calibration is not None
        exact = _values(module, layers, job.inputs)
        kept += kept_together(job.keep_float, layers, exact, few(job.calibration, job.inputs))
    return kept


def _layers(module: Any) -> tuple[list[Layer], list[int]]:
    """The layers in the order in which they run, and how many numbers each makes."""
    found: list[Layer] = []
    sizes: list[int] = []
    behind: dict[str, tuple[str, ...]] = {}  # the layers that a node's value comes from
    for node in module.graph.nodes:
        name = str(node.name)
        reads = tuple(
            dict.fromkeys(
                each for read in node.all_input_nodes for each in behind.get(str(read.name), ())
            )
        )
        if node.op != "call_function" or _operator(node).startswith(_NO_LAYERS):
            behind[name] = reads
            continue
        behind[name] = (name,)
        operator = _operator(node)
        found.append(
            Layer(
                name=name,
                operator=operator,
                reads=reads,
                channel_axis=1,
                weighted=operator.startswith(_WEIGHTED),
            )
        )
        value = node.meta.get("val")
        sizes.append(int(value.numel()) if hasattr(value, "numel") else 0)
    return found, sizes


def _operator(node: Any) -> str:
    """``conv2d`` of ``aten.conv2d.default``."""
    target = node.target
    name = str(getattr(target, "__name__", target))
    return name.partition(".")[0]


def _values(module: Any, layers: list[Layer], inputs: tuple[str, ...]) -> Values:
    torch = sources.framework("torch")
    interpreter: Any = sources.framework("torch.fx").Interpreter
    wanted = {layer.name for layer in layers}
    shows = {
        str(_read(node).name): str(node.name) for node in module.graph.nodes if node.name in wanted
    }

    class Watcher(interpreter):
        def run_node(self, n: Any) -> Any:
            value: Any = interpreter.run_node(self, n)
            if n.name in shows and isinstance(value, torch.Tensor) and value.is_floating_point():
                found[shows[n.name]] = value.detach().numpy().copy()
            return value

    found: dict[str, Array] = {}
    watcher: Any = Watcher(module)

    def run(feeds: Feeds) -> dict[str, Array]:
        found.clear()
        with torch.no_grad():
            watcher.run(*(torch.from_numpy(feeds[name]) for name in inputs))
        return dict(found)

    return run


def _read(node: Any) -> Any:
    """What others read of a layer: in int8, its rounded value."""
    for rounding in node.users:
        if _operator(rounding).startswith("quantize_per"):
            return next(iter(rounding.users), node)
    return node
