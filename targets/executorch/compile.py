"""Makes ExecuTorch artifacts (``.pte``): float, and int8 by XNNPACK's own quantizer."""

from __future__ import annotations

from typing import Any

from edgeml.errors import EdgemlError
from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.executorch.convert import lower, refuse
from edgeml.targets.executorch.runtime import open_session


def compile(job: CompileJob) -> CompileResult:  # noqa: A001 - the name that all targets share
    """Makes one ``.pte``."""
    program = sources.torch_program(job.source)
    entry = job.workdir / f"model-{job.precision}.pte"
    count = 0
    if job.precision == "fp32":
        lower(program, entry, original=program)
    else:
        dynamic = job.precision == "int8-dynamic"
        count = 0 if dynamic else sources.sample_count(job)
        lower(_quantized(program, job, dynamic=dynamic), entry, original=program)
    try:
        # An operator without a kernel shows only when the program is loaded.
        open_session(entry, threads=1, options={}).close()
    except EdgemlError as error:
        refuse(error, program)
        raise
    # Its inputs and outputs have places and no names: runtime.py calls them so.
    return CompileResult(
        files=(entry,),
        inputs={name: f"input_{index}" for index, name in enumerate(job.inputs)},
        outputs={name: f"output_{index}" for index, name in enumerate(job.outputs)},
        calibration_samples=count,
    )


def _quantized(program: Any, job: CompileJob, *, dynamic: bool) -> Any:
    """The program with weights per channel and activations per tensor in int8.

    Args:
        program: of the user's model.
        job: its samples show the ranges, where they are static.
        dynamic: whether ranges are taken while it runs.
    """
    torch = sources.framework("torch")
    pt2e = sources.framework("torchao.quantization.pt2e.quantize_pt2e")
    quantizer = sources.framework("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")

    flat, examples = sources.flat_module(program)
    inner = torch.export.export(flat, examples)
    rules: Any = quantizer.XNNPACKQuantizer()
    rules.set_global(_configuration(quantizer, dynamic=dynamic))
    prepared: Any = pt2e.prepare_pt2e(inner.module(), rules)
    with torch.no_grad():
        if dynamic:
            prepared(*examples)  # the observers of the weights want one run
        else:
            for sample in sources.samples(job):
                prepared(*(torch.from_numpy(sample[name]) for name in job.inputs))
    return torch.export.export(pt2e.convert_pt2e(prepared), examples)


def _configuration(quantizer: Any, *, dynamic: bool) -> Any:
    """XNNPACK's own, with the plain minimum and maximum of an activation for its range."""
    return quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
