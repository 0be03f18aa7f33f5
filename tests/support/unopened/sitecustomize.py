"""In every Python process that has this folder on its PYTHONPATH, OpenVINO opens no artifact: as
where a plugin lacks what its converter makes."""

from __future__ import annotations

from typing import Any

from edgeml.errors import RefusedError
from edgeml.targets.openvino import runtime


def refuse(*_: Any, **__: Any) -> Any:
    raise RefusedError("OpenVINO cannot compile it for this CPU", remedy="Use another target's.")


runtime.open_session = refuse
