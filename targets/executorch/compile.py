"""Makes ExecuTorch artifacts (``.pte``): float, and int8 by quantize.py."""

from __future__ import annotations

from edgeml.errors import EdgemlError
from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.executorch.convert import lower, refuse
from edgeml.targets.executorch.layers import nodes_kept
from edgeml.targets.executorch.quantize import quantized
from edgeml.targets.executorch.runtime import open_session


def compile(job: CompileJob) -> CompileResult:  # noqa: A001 - the name that all targets share
    """Makes one ``.pte``."""
    program = sources.torch_program(job.source)
    entry = job.workdir / f"model-{job.precision}.pte"
    count = 0
    if job.precision == "fp32":
        lower(program, entry, original=program)
    else:
        count = 0 if job.precision == "int8-dynamic" else sources.sample_count(job)
        module, examples = quantized(program, job, keep=nodes_kept(program, job))
        torch = sources.framework("torch")
        lower(torch.export.export(module, examples), entry, original=program)
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
