"""Models of torch and TensorFlow with an axis that stays open (``--shape input=1,-1``).

They become an ONNX graph with the axis in it, which goes on to the targets that keep one open as
any ONNX does. The reference is still the model in its own framework. Runs in a child process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgeml.errors import EdgemlError, SourceError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources.forms import Opened, OpenJob
from edgeml.targets.registry import SourceKind


def as_onnx(
    job: OpenJob, kind: SourceKind, source: Path, inputs: Sequence[str], outputs: Sequence[str]
) -> Opened:
    """The source as an ONNX graph whose axes are open where they were asked to stay so.

    Args:
        job: with the shapes asked for.
        kind: ``torch`` or ``savedmodel``.
        source: a program, or a SavedModel of one signature, with these axes open.
        inputs: its inputs' names, in order.
        outputs: likewise.

    Raises:
        RefusedError: ONNX lacks an operator of the model.
        SourceError: the graph cannot be made, or does not keep the axes open.
    """
    from edgeml.exporter.sources import onnx_source
    from edgeml.targets.onnx.convert import write_graph

    path = job.workdir / "open.onnx"
    try:
        write_graph(kind, source, tuple(inputs), tuple(outputs), path)
    except EdgemlError:
        raise
    except Exception as error:
        raise SourceError(
            f"{job.path} cannot be made into ONNX with an open axis: {type(error).__name__}: "
            f"{first_line(error)}",
            expected="a model that ONNX has operators for, at any length of that axis",
            remedy="Give a length for every axis: --shape input=1,3,224,224.",
        ) from error
    opened = onnx_source.open_source(msgspec.structs.replace(job, form="onnx", path=path))
    note = "The axis that stays open goes by way of ONNX, whatever the target."
    return msgspec.structs.replace(opened, notes=(note, *opened.notes))
