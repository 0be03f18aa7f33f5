"""Arrays by name as an ``.npz`` file, whatever their names are.

``numpy.savez`` takes the names as keywords: it has none for an array called ``file``, and NumPy
1.26 takes ``allow_pickle`` for an array's name.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


def save_npz(file: Path | IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write them, not packed; the same arrays give the same bytes.

    Args:
        file: a path or an open file.
        arrays: none of Python objects.

    Raises:
        OSError: the disk does not take it.
        ValueError: an array holds Python objects.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(values), allow_pickle=False)


def encode_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of such a file."""
    buffer = io.BytesIO()
    save_npz(buffer, arrays)
    return buffer.getvalue()
