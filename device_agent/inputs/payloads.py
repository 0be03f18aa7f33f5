"""NumPy bytes as arrays: what comes from an MQTT topic or a file. Never a pickled object. Pure."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.device_agent import config as bounds
from edgeml.device_agent.local import oip
from edgeml.errors import SourceError

MAX_BYTES = bounds.MAX_BODY

NPY = b"\x93NUMPY"
ZIP = b"PK"

EXPECTED = ".npy or .npz of numbers, or JSON of the Open Inference Protocol"

Array = NDArray[Any]


def arrays(payload: bytes) -> dict[str, Array]:
    """Arrays by input name; a ``.npy`` has none, so its key is ``""``.

    ``.npy`` and ``.npz`` are known by their first bytes; anything else is taken for JSON of the
    Open Inference Protocol.

    Raises:
        SourceError: it is too long, damaged, or holds objects.
    """
    check_size(len(payload))
    if not payload:
        raise SourceError("There are no data", expected=EXPECTED)
    if not payload.startswith((NPY, ZIP)):
        return oip.decode_request(payload)[1]
    file = io.BytesIO(payload)
    try:
        if payload.startswith(ZIP):
            with zipfile.ZipFile(file) as members:
                check_size(sum(member.file_size for member in members.infolist()))
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except SourceError:
        raise
    except Exception as error:  # a stranger's bytes make NumPy raise what no page of it names
        raise SourceError(
            f"{len(payload):,} bytes are no NumPy data: {error}",
            expected=EXPECTED,
        ) from error


def check_size(size: int) -> None:
    """Refuse what is too long to be read.

    Raises:
        SourceError: it is.
    """
    if size > MAX_BYTES:
        raise SourceError(
            f"There are {size:,} bytes of data",
            expected=f"at most {MAX_BYTES:,}",
            remedy="Send one frame at a time.",
        )
