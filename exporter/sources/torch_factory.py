"""From a user's ``nn.Module`` to an ``ExportedProgram``.

Shapes are taken from the data or from the factory's example inputs, never guessed. An error of the
user's code is told with their own file and line.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from edgeml.errors import SourceError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources.forms import ArrayShape, OpenJob
from edgeml.exporter.sources.shapes import (
    refuse_size,
    refuse_unknown,
    stays_open,
    with_asked,
)
from edgeml.exporter.user_code import where


def from_made(job: OpenJob, made: Any, call: str) -> tuple[Any, tuple[str, ...]]:
    """The ``ExportedProgram`` of a module for a batch of 1, and notes.

    Args:
        job: with the shapes of the data.
        made: what the user's factory returned: a module, or a pair with example inputs.
        call: what to call the factory in an error.

    Raises:
        SourceError: the module fails, shapes are not known, or ``torch.export`` cannot trace it.
    """
    module, examples = _parts(made)
    if isinstance(module, torch.export.ExportedProgram):
        raise SourceError(
            f"{call} returns an ExportedProgram",
            expected="an nn.Module, or a pair (nn.Module, example inputs)",
            remedy="Save it with torch.export.save and give the .pt2 file.",
        )
    module = module.eval().to("cpu")
    notes: list[str] = []
    other = {torch.half, torch.bfloat16, torch.double}
    found = sorted({str(p.dtype) for p in module.parameters() if p.dtype in other})
    if found:
        module = module.float()
        notes.append(f"The module's weights are {', '.join(found)}: exported as float32.")
    parameters = _parameters(module, call)
    refuse_unknown(job, list(parameters))
    if examples is not None:
        feeds = _from_examples(examples, parameters, call)
    else:
        feeds = _from_shapes(_shapes(job, parameters, call), parameters, call)
    return _export(module, feeds, job, call), tuple(notes)


def open_dims(shape: Sequence[int]) -> dict[int, Any]:
    """The axes of a shape that stay open (-1), for ``torch.export``, which refuses where the model
    takes a single length."""
    return {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(shape) if size < 0}


def _parts(made: Any) -> tuple[Any, Any]:
    if isinstance(made, tuple) and len(made) == 2:
        return made
    return made, None


def _parameters(module: Any, call: str) -> dict[str, inspect.Parameter]:
    """Of ``forward``: the names that inputs have."""
    named = inspect.signature(module.forward).parameters
    kinds = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    usable = {name: p for name, p in named.items() if p.kind not in kinds}
    if not usable:
        raise SourceError(
            f"The forward of what {call} returns has no named parameters",
            expected="one an input, such as forward(self, image)",
            remedy="Wrap the module in one whose forward names its inputs.",
        )
    return usable


def _shapes(
    job: OpenJob, parameters: Mapping[str, inspect.Parameter], call: str
) -> tuple[ArrayShape, ...]:
    shapes = with_asked(job)
    if not shapes and job.iterable is not None:
        from edgeml.exporter.samples.iterables import first_shapes

        shapes = first_shapes(*job.iterable, tuple(parameters))
    if not shapes:
        raise SourceError(
            f"The shapes of the inputs of {call} are not known",
            expected="samples that show them, or a factory that returns (module, example inputs)",
            remedy="Give real samples as .npz or .npy with --calibration or --evaluate, or say it: "
            f"--shape {next(iter(parameters))}=1,…",
        )
    return shapes


def _from_shapes(
    shapes: tuple[ArrayShape, ...], parameters: Mapping[str, inspect.Parameter], call: str
) -> dict[str, Any]:
    """Zeros of the data's shapes: tracing looks at shapes and types alone."""
    required = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
    if len(shapes) == 1 and not shapes[0].name:
        named = {next(iter(parameters)): shapes[0]}
    else:
        named = {shape.name: shape for shape in shapes}
    unknown = sorted(named.keys() - parameters.keys())
    missing = sorted(set(required) - named.keys())
    if unknown or missing:
        raise SourceError(
            f"The data has the arrays {', '.join(map(repr, named))}",
            expected=f"one for each parameter of the module's forward: "
            f"{', '.join(map(repr, required or parameters))}",
            remedy="Name the arrays as forward names its parameters: "
            f"numpy.savez(path, {', '.join(f'{name}=…' for name in required)}).",
        )
    feeds: dict[str, Any] = {}
    for name in parameters:
        if name in named:
            dtype = "float32" if named[name].dtype.startswith("float") else named[name].dtype
            refuse_size(name, named[name].shape, side="input", path=Path(call))
            feeds[name] = torch.zeros((1, *named[name].shape), dtype=getattr(torch, dtype))
    return feeds


def _from_examples(
    examples: Any, parameters: Mapping[str, inspect.Parameter], call: str
) -> dict[str, Any]:
    if isinstance(examples, Mapping):
        named = dict(cast("Mapping[str, Any]", examples))
    else:
        row = examples if isinstance(examples, tuple | list) else (examples,)
        named = dict(zip(parameters, cast("tuple[Any, ...]", row), strict=False))
        if len(row) > len(parameters):
            raise SourceError(
                f"{call} returns {len(row)} example inputs",
                expected=f"at most {len(parameters)}: {', '.join(parameters)}",
            )
    odd = [n for n, v in named.items() if not isinstance(v, torch.Tensor) or v.ndim == 0]
    unknown = sorted(named.keys() - parameters.keys())
    if odd or unknown or not named:
        what = [*(f"{n!r}, {_what(named[n])}" for n in odd), *map(repr, unknown)]
        raise SourceError(
            f"The example inputs of {call} hold {', '.join(what) or 'nothing'}",
            expected="a tensor with a batch axis for each parameter of forward: "
            f"{', '.join(parameters)}",
        )
    return {
        name: (value.float() if value.is_floating_point() else value)[:1].detach().cpu()
        for name, value in named.items()
    }


def _what(value: Any) -> str:
    return "a scalar" if isinstance(value, torch.Tensor) else f"of type {type(value).__name__}"


def _export(module: Any, feeds: Mapping[str, Any], job: OpenJob, call: str) -> Any:
    path = job.path
    # The first as positional arguments, as forward has them; keyword-only ones by name.
    parameters = inspect.signature(module.forward).parameters
    args: list[Any] = []
    for name, parameter in parameters.items():
        if name not in feeds or parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            break
        args.append(feeds[name])
    kwargs = {n: feeds[n] for n in feeds if n not in list(parameters)[: len(args)]}
    shapes = ", ".join(f"{n} {list(t.shape)} {t.dtype}" for n, t in feeds.items())
    try:
        with torch.no_grad():
            module(*args, **kwargs)
    except Exception as error:
        raise SourceError(
            f"{where(error, path) or call}: the module fails on {shapes}: "
            f"{type(error).__name__}: {first_line(error)}",
            expected="a module that takes a batch of one such sample",
            remedy="Check that the data has the shape and type that forward expects.",
        ) from error
    try:
        with torch.no_grad():
            return torch.export.export(
                module,
                tuple(args),
                kwargs,
                dynamic_shapes={name: open_dims(job.asked.get(name, ())) for name in feeds}
                if stays_open(job)
                else None,
                strict=False,
            )
    except Exception as error:
        raise SourceError(
            f"{where(error, path) or call}: torch.export cannot trace the module: "
            f"{type(error).__name__}: {first_line(error)}",
            expected="a forward whose course does not hang on the values in a tensor",
            remedy="torch.where or torch.cond in place of a Python if on a tensor; the log has "
            "torch's own hints.",
        ) from error
