"""The published schema is the one in code."""

from __future__ import annotations

from pathlib import Path

from edgeml.bundle.__main__ import manifest_schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "schema" / "manifest.json"


def test_the_published_schema_is_the_one_in_code():
    assert PUBLISHED.read_bytes() == manifest_schema(), (
        "run: python -m edgeml.bundle > docs/schema/manifest.json"
    )
