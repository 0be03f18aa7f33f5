"""The single-operator models of the ``onnx`` package's backend tests, and the verdict on one.

A case is a model, what to feed it and what must come out. :func:`store` writes them to a folder,
:func:`judge` takes one through a target's converter and runtime by way of :mod:`edgeml.targets`, as
the exporter does. Runs in the toolchain ``export``.
"""

from __future__ import annotations

import importlib
import pickle
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from edgeml.errors import EdgemlError, RefusedError, ToolchainError
from edgeml.targets.compiling import CompileJob, compile_here, first_line
from edgeml.targets.registry import can_make
from edgeml.targets.runtime import Array, NamedSession, open_session

# They round values that lie on a tie but for the last bit of a scale that they compute themselves
# (25.500002 steps or 25.5), so either neighbour is right.
_TIES = {"test_dynamicquantizelinear", "test_dynamicquantizelinear_expanded"}

Outcome = Literal["equal", "refused", "wrong"]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One backend test.

    Attributes:
        name: the package's own, such as ``test_abs``.
        model: the serialised ModelProto, its inputs of the shapes that are fed.
        feeds: one for each input of the graph: an array, or a list or None for the types that are
            no tensors.
        expected: likewise for the outputs.
        rtol: relative tolerance, the test's own.
        atol: absolute tolerance.
    """

    name: str
    model: bytes
    feeds: tuple[Any, ...]
    expected: tuple[Any, ...]
    rtol: float
    atol: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a case on a target.

    Attributes:
        case: its name.
        target: the target's.
        operators: of the model, the first ones.
        outcome: ``equal`` to the test's own outputs, ``refused`` with a reason and a remedy, or
            ``wrong``, which any other end is, an exception of another kind among them.
        reason: why it is not equal.
    """

    case: str
    target: str
    operators: tuple[str, ...]
    outcome: Outcome
    reason: str = ""


def store(folder: Path, wanted: Callable[[str], bool]) -> list[str]:
    """Write the cases to a folder; returns their names, sorted.

    The package computes all of them first, which takes some 15 s.
    """
    loader: Any = importlib.import_module("onnx.backend.test.loader")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of the overflows that some cases are about
        cases: list[Any] = loader.load_model_tests(kind="node")
    names: list[str] = []
    for each in cases:
        if not wanted(each.name):
            continue
        feeds, expected = (tuple(_array(value) for value in side) for side in each.data_sets[0])
        case = Case(
            name=each.name,
            model=_closed(each.model, feeds),
            feeds=feeds,
            expected=expected,
            rtol=each.rtol,
            atol=each.atol,
        )
        (folder / f"{each.name}.case").write_bytes(pickle.dumps(msgspec.structs.astuple(case)))
        names.append(each.name)
    return sorted(names)


def load(folder: Path, name: str) -> Case:
    """A case that :func:`store` wrote."""
    return Case(
        **dict(
            zip(
                Case.__struct_fields__,
                pickle.loads((folder / f"{name}.case").read_bytes()),
                strict=True,
            )
        )
    )


def judge(case: Case, target: str, workdir: Path, *, bridge: Path | None = None) -> Verdict:
    """Convert a case, run it, and compare.

    Args:
        case: the case.
        target: a name of the registry.
        workdir: a folder; what is made there is gone afterwards.
        bridge: the interpreter of the toolchain that the target's conversion goes through.
    """
    own = workdir / case.name  # converters remember models by their paths
    own.mkdir()
    onnx: Any = importlib.import_module("onnx")
    model = onnx.load_from_string(case.model)
    operators = tuple(dict.fromkeys(_full_name(node) for node in model.graph.node))[:3]

    def verdict(outcome: Outcome, reason: str = "") -> Verdict:
        return Verdict(
            case=case.name, target=target, operators=operators, outcome=outcome, reason=reason
        )

    try:
        found = _run(case, model, target, own, bridge)
    except EdgemlError as error:
        explained = bool(error.found and error.remedy) and not isinstance(error, ToolchainError)
        return verdict("refused" if explained else "wrong", str(error))
    except Exception as error:  # noqa: BLE001 - that is what the sweep is to find
        return verdict("wrong", f"{type(error).__name__}: {first_line(error)}")
    finally:
        shutil.rmtree(own, ignore_errors=True)
    names = [value.name for value in model.graph.output]
    atol = 1.0 if case.name in _TIES else case.atol
    reason = difference(names, case.expected, found, rtol=case.rtol, atol=atol)
    return verdict("wrong" if reason else "equal", reason)


def difference(
    names: Sequence[str], expected: Sequence[Any], found: Sequence[Any], *, rtol: float, atol: float
) -> str:
    """How outputs differ from those expected, dtype and shape included; empty where they do not."""
    for name, want, have in zip(names, expected, found, strict=True):
        if not _is_array(want):
            if want != have:
                return f"{name!r} is {have!r} in place of {want!r}"
            continue
        want_array: Array = np.asarray(want)
        have_array: Array = np.asarray(have)
        if want_array.dtype != have_array.dtype:
            return f"{name!r} is {have_array.dtype} in place of {want_array.dtype}"
        if want_array.shape != have_array.shape:
            return f"{name!r} has the shape {have_array.shape} in place of {want_array.shape}"
        try:
            np.testing.assert_allclose(
                # Signed: the difference of two uint8 wraps around.
                _wide(have_array),
                _wide(want_array),
                rtol=rtol,
                atol=max(atol, rounding(want_array)),
            )
        except (AssertionError, TypeError) as error:
            text = " ".join(str(error).split())
            return f"{name!r}: {text[:400]}"
    return ""


def rounding(expected: Any) -> float:
    """What rounding alone may cost: four units in the last place of the largest finite value.

    The tests ask for 1e-7, and expect exact zeros of sums in float32 whose terms are in the
    thousands.
    """
    if expected.dtype.kind != "f":
        return 0.0
    finite = np.abs(expected[np.isfinite(expected)])
    return 4 * float(np.finfo(expected.dtype).eps) * float(finite.max()) if finite.size else 0.0


def _wide(array: Any) -> Any:
    return array.astype(np.int64) if array.dtype.kind == "u" and array.itemsize < 8 else array


def _run(case: Case, model: Any, target: str, workdir: Path, bridge: Path | None) -> list[Any]:
    kind = "onnx"
    if any(each.domain == "ai.onnx.ml" for each in model.graph.node):
        kind = "classical"
    refusal = can_make(target, kind)
    if refusal is not None:
        raise RefusedError(refusal.reason, remedy=refusal.remedy)
    source = workdir / "case.onnx"
    source.write_bytes(case.model)
    outputs = tuple(value.name for value in model.graph.output)
    inputs = tuple(value.name for value in model.graph.input)
    job = CompileJob(
        source_kind=kind,
        source=source,
        precision="fp32",
        inputs=inputs,
        outputs=outputs,
        workdir=workdir / "out",
        bridge=bridge,
    )
    made = compile_here(target, job)
    session = open_session(target, made.files[0], options=made.options)
    with NamedSession(session, made.inputs, made.outputs) as named:
        results = named.run(dict(zip(inputs, case.feeds, strict=True)))
    return [results[name] for name in outputs]


def _closed(model: Any, feeds: Sequence[Any]) -> bytes:
    """The model with the axes of its inputs as long as what is fed, as ``--shape`` would say."""
    for value, feed in zip(model.graph.input, feeds, strict=True):
        if value.type.WhichOneof("value") != "tensor_type" or not _is_array(feed):
            continue
        axes = value.type.tensor_type.shape.dim
        if len(axes) == feed.ndim:
            for axis, size in zip(axes, feed.shape, strict=True):
                if axis.dim_param or not axis.HasField("dim_value"):
                    axis.Clear()
                    axis.dim_value = size
    return bytes(model.SerializeToString())


def _array(value: Any) -> Any:
    """What a test feeds or expects, as the runtimes take it."""
    if _is_array(value):
        return np.asarray(value)
    onnx: Any = importlib.import_module("onnx")
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _full_name(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)
