"""The published schemas are those in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from edgeml.bundle.manifest import Manifest
from edgeml.decoding import json_schema
from edgeml.exporter.events import AnyEvent

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("name", "kind", "printed_by"),
    [
        ("manifest.json", Manifest, "edgeml.bundle"),
        ("events.json", AnyEvent, "edgeml.exporter.events"),
    ],
)
def test_a_published_schema_is_the_one_in_code(name: str, kind: Any, printed_by: str):
    assert (DOCS / "schema" / name).read_bytes() == json_schema(kind), (
        f"run: python -m {printed_by} > docs/schema/{name}"
    )


def test_the_documentation_has_a_word_on_each_event():
    told = (DOCS / "python.md").read_text()
    for kind in get_args(AnyEvent):
        assert f"| `{kind.__struct_config__.tag}` |" in told
