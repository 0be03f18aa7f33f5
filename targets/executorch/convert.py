"""Makes the ExecuTorch program of a torch program: XNNPACK takes what it can of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgeml.targets import sources

TITLE = "ExecuTorch"

# How it says that an operator is none that it runs: by its verifier, and when a program is loaded.
MISSING = (
    r"Operator torch\._ops\.([\w.]+) is not in Core ATen opset",
    r"Missing out variants: \{'([\w.:]+)'",
    r"Missing operator: \[\d+\] ([\w.:]+)",
    r"Unsupported control flow operator: (\w+)",
)


def lower(program: Any, path: Path, *, original: Any) -> None:
    """Writes the ``.pte`` of an exported program.

    Args:
        program: float, or quantized with the operators of pt2e.
        path: to write.
        original: the program as the user's model gave it, to say where an operator comes from.

    Raises:
        RefusedError: neither XNNPACK nor ExecuTorch's own kernels have an operator of it.
    """
    exir = sources.framework("executorch.exir")
    partition = sources.framework("executorch.backends.xnnpack.partition.xnnpack_partitioner")

    try:
        edge: Any = exir.to_edge_transform_and_lower(
            program, partitioner=[partition.XnnpackPartitioner()]
        )
        made: Any = edge.to_executorch()
    except Exception as error:
        refuse(error, original)
        raise
    with path.open("wb") as stream:
        made.write_to_file(stream)


def refuse(error: Exception, original: Any) -> None:
    """Raises the sentence about an operator that ExecuTorch lacks, if that is what went wrong."""
    text = str(error)
    for pattern in MISSING:
        found = re.search(pattern, text)
        if found is not None:
            operator = found.group(1).replace("::", ".").removesuffix(".out")
            place = sources.locate(original, operator, text)
            sources.refuse_operator(TITLE, operator, place, error)
