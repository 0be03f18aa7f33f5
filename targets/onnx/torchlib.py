"""The operators of torch that ``torch.onnx`` knows, read once in a process.

At each export it asks onnxscript for them, which parses the source of its 497 functions to tell
their domain, .4 s of a core. Here the answer is kept, and can be had before there is a program to
export.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from edgeml.targets.frameworks import framework


def read() -> None:
    """Read them now, for every export of this process. Where another version of torch has them
    elsewhere, it reads them itself when it exports."""
    with contextlib.suppress(ImportError, AttributeError):
        library: Any = framework("torch.onnx._internal.exporter._registration").onnxscript_apis
        if not hasattr(library.get_torchlib_ops, "cache_info"):
            library.get_torchlib_ops = functools.cache(library.get_torchlib_ops)
        library.get_torchlib_ops()
