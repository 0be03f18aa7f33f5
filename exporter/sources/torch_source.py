"""PyTorch: modules and ``.pt2``, normalised to a ``.pt2`` of batch 1.

Inputs are named after ``forward``'s parameters, outputs after the keys of the dict that the module
returns, or else ``output_0``, ``output_1``, … Runs in a child process, the one in which the user's
code runs (:mod:`edgeml.exporter.sources.torch_factory`).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import torch
from torch.utils import _pytree

from edgeml.bundle.manifest import Tensor
from edgeml.columns import rows, writers
from edgeml.errors import SourceError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources.forms import Opened, OpenJob, ReferenceJob
from edgeml.exporter.sources.open_axes import as_onnx
from edgeml.exporter.sources.pt2 import load_program
from edgeml.exporter.sources.shapes import (
    at_hand,
    closed_shape,
    fed,
    filled,
    fixed_tensor,
    refuse_unknown,
    stays_open,
)
from edgeml.exporter.sources.torch_factory import from_made, open_dims
from edgeml.targets.frameworks import framework, save_program

# torch.export imports this late; here, without what it does without.
framework("torch.export.pt2_archive._package")

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_programs: dict[Path, Any] = {}
"""Of this process, so that a reference run does not load again what was just exported."""


class _Place(NamedTuple):
    name: str
    shape: tuple[Any, ...]
    dtype: Any


def open_source(job: OpenJob) -> Opened:
    """Read a ``.pt2`` and write the one that converters take.

    Raises:
        SourceError: the file is damaged; shapes are left open.
    """
    program, notes = _from_file(job)
    return opened(job, program, title="PyTorch exported program", notes=notes)


def open_made(job: OpenJob, made: Any, call: str) -> Opened:
    """Likewise with a module, or a pair of one and example inputs, that is there already.

    Args:
        job: with the shapes of the data.
        made: the module or the pair.
        call: where it came from, for errors.

    Raises:
        SourceError: the module fails; ``torch.export`` cannot trace it; shapes are left open.
    """
    torch.manual_seed(0)
    program, notes = from_made(job, made, call)
    title = f"PyTorch {torch.__version__.partition('+')[0]} module"
    return opened(job, program, title=title, sha256=digest(program), notes=notes)


def opened(
    job: OpenJob, program: Any, *, title: str, sha256: str = "", notes: tuple[str, ...] = ()
) -> Opened:
    """Write a program, whose axes are fixed but for those asked to stay open, as the source."""
    path = job.workdir / "source.pt2"
    save_program(program, path)
    if stays_open(job):
        inputs = [place.name for place in _placeholders(program)]
        outputs = [name for name, _ in _results(program, job.path)]
        made = as_onnx(job, "torch", path, inputs, outputs)
        _programs[made.path] = program
        return msgspec.structs.replace(
            made,
            title=f"{title}, as {made.title}",
            sha256=sha256,
            notes=(*notes, *made.notes),
            reference=__name__,
        )
    _programs[path] = program
    return Opened(
        kind="torch",
        path=path,
        inputs=_inputs(program, job.path),
        outputs=_outputs(program, job.path),
        title=title,
        sha256=sha256,
        notes=notes,
    )


def digest(program: Any) -> str:
    """SHA-256 of a program's graph and weights."""
    found = hashlib.sha256(program.graph_module.code.encode())
    for name, tensor in sorted({**program.state_dict, **program.constants}.items()):
        found.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def reference(job: ReferenceJob) -> int:
    """Run samples through the program and write its outputs; returns how many samples."""
    torch.set_num_threads(1)  # small batches: a second thread costs more than it does
    _keep_freed_memory()
    path = job.source.path
    program = _programs.get(path)
    if program is None:
        program = _programs[path] = torch.export.load(str(path))
    module: Callable[..., Any] = program.module()
    in_spec: Any = program.call_spec.in_spec
    with torch.inference_mode(), writers(job.outputs) as results:
        for sample in rows(job.inputs):
            feeds = [torch.from_numpy(array) for array in sample]
            args, kwargs = _pytree.tree_unflatten(feeds, in_spec)
            leaves = _pytree.tree_leaves(module(*args, **kwargs))
            for into, leaf in zip(results, leaves, strict=True):
                into.append(leaf.numpy())
    return results[0].count


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next layer, up to 256 MB, and not give each array of
    some megabytes back to the system: a pass through MobileNetV2 takes 26 ms of a core, not 37."""
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)  # no other library has it
    if mallopt is not None:
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(parameter, 1 << 28)


def _from_file(job: OpenJob) -> tuple[Any, tuple[str, ...]]:
    program = load_program(job.path)
    places = _placeholders(program)
    axes = {place.name: _axes(place) for place in places}
    refuse_unknown(job, list(axes))
    shapes = {place.name: closed_shape(job, place.name, axes[place.name]) for place in places}
    if not any(None in each for each in axes.values()):
        return program, ()
    feeds = [
        torch.zeros(at_hand(job, place.name, shapes[place.name]), dtype=place.dtype)
        for place in places
    ]
    in_spec: Any = program.call_spec.in_spec
    args, kwargs = _pytree.tree_unflatten(feeds, in_spec)
    left = _pytree.tree_unflatten([open_dims(shapes[place.name]) for place in places], in_spec)
    try:
        with torch.no_grad():
            fixed = torch.export.export(
                program.module(),
                args,
                kwargs,
                dynamic_shapes=(*left[0], *left[1].values()) if stays_open(job) else None,
                strict=False,
            )
    except Exception as error:
        raise SourceError(
            f"{job.path} does not take {fed(shapes)}: {first_line(error)}",
            expected="a program whose open axes allow a batch of one, the data's shapes, and what "
            "--shape asks for",
            remedy="Give samples or a --shape of lengths that it takes, or export it again with "
            "torch.export.export on a batch of one such sample, with module.eval() before.",
        ) from error
    return fixed, filled(job, axes)


def _axes(place: _Place) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in place.shape]


def _placeholders(program: Any) -> list[_Place]:
    """Of the user's inputs, in order."""
    values: dict[str, Any] = {node.name: node.meta.get("val") for node in program.graph.nodes}
    places: list[_Place] = []
    for name in program.graph_signature.user_inputs:
        value: Any = values.get(name) if isinstance(name, str) else None
        if not isinstance(value, torch.Tensor):
            raise SourceError(
                f"The program has an input that is no tensor: {name!r}",
                expected="tensors only",
                remedy="Fix such arguments inside the module before exporting it.",
            )
        places.append(_Place(name, tuple(value.shape), value.dtype))
    return places


def _inputs(program: Any, path: Path) -> tuple[Tensor, ...]:
    return tuple(
        _tensor(place.name, place.shape, place.dtype, "input", path)
        for place in _placeholders(program)
    )


def _outputs(program: Any, path: Path) -> tuple[Tensor, ...]:
    return tuple(
        _tensor(name, tuple(value.shape), value.dtype, "output", path)
        for name, value in _results(program, path)
    )


def _results(program: Any, path: Path) -> list[tuple[str, Any]]:
    """Name and description of each output."""
    values: dict[str, Any] = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found: list[Any] = [
        values.get(name) if isinstance(name, str) else None
        for name in program.graph_signature.user_outputs
    ]
    odd = [index for index, value in enumerate(found) if not isinstance(value, torch.Tensor)]
    if odd or not found:
        raise SourceError(
            f"Of the outputs of {path}, numbers {odd} are no tensors"
            if odd
            else f"{path} has no outputs",
            expected="tensors only",
            remedy="Have forward return nothing but tensors.",
        )
    names = _output_names(program.call_spec.out_spec, len(found))
    return list(zip(names, found, strict=True))


def _output_names(out_spec: Any, count: int) -> list[str]:
    """The keys of a dict that the module returns, else numbers."""
    tree = _pytree.tree_unflatten(list(range(count)), out_spec)
    names = [f"output_{index}" for index in range(count)]
    if isinstance(tree, Mapping):
        for key, value in cast("Mapping[object, object]", tree).items():
            if isinstance(value, int):
                names[value] = str(key) or names[value]
    return names


def _tensor(name: str, shape: tuple[Any, ...], dtype: Any, side: str, path: Path) -> Tensor:
    kind = str(dtype).removeprefix("torch.")
    return fixed_tensor(name, shape, kind, side=side, path=path)
