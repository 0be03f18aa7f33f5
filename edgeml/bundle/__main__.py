"""Print the manifest's JSON Schema: ``python -m edgeml.bundle > docs/schema/manifest.json``."""

from __future__ import annotations

import sys

from edgeml.bundle.manifest import Manifest
from edgeml.decoding import json_schema

if __name__ == "__main__":
    sys.stdout.buffer.write(json_schema(Manifest))
