"""Programs as PyTorch modules in front of an exported program."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch
from torch.utils import _pytree

from edgeml.exporter.preprocessing.front import FrontJob
from edgeml.exporter.preprocessing.program import Kind, Op, Program, compile_input
from edgeml.exporter.sources.forms import Opened
from edgeml.targets.frameworks import save_program


class Preprocess(torch.nn.Module):
    """One program."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.ops = program.ops
        for index, op in enumerate(program.ops):
            for part, constant in enumerate(op.arrays):
                array = np.ascontiguousarray(constant)
                self.register_buffer(f"constant_{index}_{part}", torch.from_numpy(array))

    def forward(self, x: Any) -> Any:
        """Raw input to what the model takes."""
        for index, op in enumerate(self.ops):
            parts = range(len(op.arrays))
            constants = [getattr(self, f"constant_{index}_{part}") for part in parts]
            x = _TORCH[op.kind](x, op, constants)
        return x


class RawModel(torch.nn.Module):
    """The model behind the programs of its inputs, taken in the order of the original's."""

    def __init__(self, program: Any, fronts: list[Program | None]) -> None:
        super().__init__()
        self.model = program.module()
        self.in_spec = program.call_spec.in_spec
        self.preprocess = torch.nn.ModuleList(
            torch.nn.Identity() if front is None else Preprocess(front) for front in fronts
        )
        self.training = False  # eval() recurses into the program, which refuses it

    def forward(self, *raw: Any) -> Any:
        """Raw inputs to the model's outputs, nested as the model nests them."""
        made = [front(x) for front, x in zip(self.preprocess, raw, strict=True)]
        args, kwargs = _pytree.tree_unflatten(made, self.in_spec)
        return self.model(*args, **kwargs)


def put_in_front(job: FrontJob) -> Opened:
    """In the child: write a ``.pt2`` that takes raw input."""
    program = torch.export.load(str(job.source.path))
    fronts: list[Program | None] = []
    examples: list[Any] = []
    for tensor in job.source.inputs:
        declared = job.inputs.get(tensor.name)
        front = None if declared is None else compile_input(declared)
        fronts.append(front)
        shape, dtype = (tensor.shape, tensor.dtype) if front is None else (front.raw, front.dtype)
        examples.append(torch.zeros(shape, dtype=getattr(torch, dtype)))
    with torch.no_grad():
        made = torch.export.export(RawModel(program, fronts), tuple(examples), strict=False)
    _keep_places(program, made)
    save_program(made, job.path)
    return msgspec.structs.replace(job.source, path=job.path)


def _keep_places(program: Any, made: Any) -> None:
    """The model's nodes keep the modules and lines that they came from: the second export sees
    only generated code."""
    before, after = (
        [node for node in each.graph.nodes if node.op == "call_function"]
        for each in (program, made)
    )
    for old, new in zip(reversed(before), reversed(after), strict=False):
        if old.target != new.target:
            return
        for key in ("nn_module_stack", "source_fn_stack", "stack_trace", "torch_fn"):
            if key in old.meta:
                new.meta[key] = old.meta[key]


def _bands(x: Any, op: Op, weights: list[Any]) -> Any:
    parts = [x[..., band.first : band.last] for band in op.bands]
    return torch.cat([torch.matmul(p, w) for p, w in zip(parts, weights, strict=True)], -1)


def _take(x: Any, op: Op, constants: list[Any]) -> Any:
    (constant,) = constants
    taken = torch.index_select(x, op.axis, constant.reshape(-1))
    shape = [*x.shape[: op.axis], *constant.shape, *x.shape[op.axis + 1 :]]
    return taken if constant.ndim == 1 else taken.reshape(shape)


_TORCH: dict[Kind, Callable[[Any, Op, list[Any]], Any]] = {
    "cast": lambda x, _, __: x.to(torch.float32),
    "slice": lambda x, op, _: x.narrow(op.axis, op.whole[0], op.whole[1] - op.whole[0]),
    "take": _take,
    "product": lambda x, _, c: torch.matmul(x, c[0]),
    "bands": _bands,
    "scale": lambda x, _, c: x * c[0],
    "shift": lambda x, _, c: x + c[0],
    "square": lambda x, _, __: x * x,
    "sqrt": lambda x, _, __: torch.sqrt(x),
    "log": lambda x, _, __: torch.log(x),
    "least": lambda x, op, _: torch.clamp(x, min=op.numbers[0]),
    "most": lambda x, op, _: torch.clamp(x, max=op.numbers[0]),
    "floor": lambda x, _, __: torch.floor(x),
    "reshape": lambda x, op, _: x.reshape(op.whole),
    "transpose": lambda x, op, _: x.permute(op.whole),
}
