"""Integer programs by XNNPACK's own quantizer, and the float graph that it works on.

The quantizer names the nodes of the graph that ``torch.export`` gives, batch norms folded into the
convolutions before them: by these names layers stay float.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob


def float_graph(program: Any) -> Any:
    """The module whose nodes are the layers, flat inputs and outputs, nothing rounded."""
    module, _ = _prepared(program, None)
    return module


def quantized(program: Any, job: CompileJob, *, keep: Collection[str]) -> tuple[Any, Any]:
    """The module with weights per channel and activations per tensor in int8, and example inputs.

    Args:
        program: of the user's model.
        job: its samples show the ranges; of ``int8-dynamic``, they are taken while it runs.
        keep: nodes of :func:`float_graph` that stay float.
    """
    torch = sources.framework("torch")
    pt2e = sources.framework("torchao.quantization.pt2e.quantize_pt2e")
    quantizer = sources.framework("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")

    dynamic = job.precision == "int8-dynamic"
    # XNNPACK's own, with the plain minimum and maximum of an activation for its range.
    rules = quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
    prepared, examples = _prepared(program, rules, keep)
    with torch.no_grad():
        if dynamic:
            prepared(*examples)  # the observers of the weights want one run
        else:
            for sample in sources.samples(job):
                prepared(*(torch.from_numpy(sample[name]) for name in job.inputs))
    return pt2e.convert_pt2e(prepared), examples


def _prepared(program: Any, rules: Any, keep: Collection[str] = ()) -> tuple[Any, Any]:
    """The program's graph with observers where the rules say, and example inputs."""
    torch = sources.framework("torch")
    pt2e = sources.framework("torchao.quantization.pt2e.quantize_pt2e")
    quantizer = sources.framework("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")

    flat, examples = sources.flat_module(program)
    inner = torch.export.export(flat, examples)
    xnnpack: Any = quantizer.XNNPACKQuantizer()
    # It looks for batch norms in training too, of which no exported program has any, and traces the
    # twelve forms that they come in each time: half of a quantization of a small model.
    xnnpack.SUPPORTED_PATTERNS = [each for each in xnnpack.SUPPORTED_PATTERNS if not each.is_qat]
    if rules is not None:
        xnnpack.set_global(rules)
        names = frozenset(keep)

        def rounded(node: Any) -> bool:
            return node.name not in names

        xnnpack.set_filter_function(rounded)
    return pt2e.prepare_pt2e(inner.module(), xnnpack), examples
