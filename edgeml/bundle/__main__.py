"""Print the manifest's JSON Schema: ``python -m edgeml.bundle > docs/schema/manifest.json``."""

from __future__ import annotations

import inspect
import sys

import msgspec

from edgeml.bundle.manifest import Manifest


def manifest_schema() -> bytes:
    """JSON Schema (2020-12) of ``manifest.json``, indented."""
    schema = msgspec.json.schema(Manifest)
    # Python 3.13 takes a docstring's indentation away, earlier ones leave it.
    for definition in schema["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2) + b"\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(manifest_schema())
