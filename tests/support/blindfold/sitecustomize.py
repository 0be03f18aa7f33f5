"""Takes from every Python process that has this folder on its PYTHONPATH the knowledge that this
machine has no GPU, so that only ONNX Runtime itself can tell: as where a device file exists and the
driver is of another version.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edgeml.targets import registry

rows: Any = registry.TARGETS
for name in ("onnx-cuda", "tensorrt"):
    rows[name] = msgspec.structs.replace(rows[name], needs_nvidia=False, libraries={})
