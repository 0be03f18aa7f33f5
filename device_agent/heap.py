"""What coming up leaves on the heap: given back, or set apart, once the agent serves."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def settle() -> None:
    """Throw away what is not needed any more, and have the collector look at the rest never again.

    A full collection looks at every object of every module, which takes milliseconds that a request
    would wait for, and never finds anything: modules stay.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError, OSError):  # the GNU library's own
        ctypes.CDLL(None).malloc_trim(0)
