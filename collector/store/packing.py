"""Count vectors as the bytes that are stored: MessagePack arrays of integers,
small ones in a byte."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.decoding import msgpack_decoder

_encoder = msgspec.msgpack.Encoder()
_decoder = msgpack_decoder(list[int])


def pack(cells: Sequence[int] | NDArray[np.int64]) -> bytes:
    """Integers to bytes."""
    return _encoder.encode(cells.tolist() if isinstance(cells, np.ndarray) else list(cells))


def unpack(data: bytes) -> NDArray[np.int64]:
    """And back, int64 [cells]."""
    return np.asarray(_decoder.decode(data), dtype=np.int64)
