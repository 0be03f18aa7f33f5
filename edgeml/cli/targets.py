"""``edgeml targets``: what can be made of what, what runs here, and what would change a no."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from typing import Any

from edgeml.cli.shared import Json, verb_app, write_json, write_table

app = verb_app()

_SOURCES = {
    "torch": "PyTorch",
    "savedmodel": "TensorFlow, Keras",
    "onnx": "ONNX",
    "tflite": ".tflite (float)",
    "classical": "scikit-learn, XGBoost, LightGBM",
}


@app.command()
def targets(*, as_json: Json = False) -> None:
    """Show what can be made of which source, and what runs on this machine; for what cannot, why
    and what to do."""
    from edgeml.targets.registry import TARGETS

    rows = [_describe(name) for name in TARGETS]
    cells = _matrix()
    if as_json:
        write_json({"targets": rows, "matrix": cells})
        return
    write_table(
        ("made from", *TARGETS),
        [
            (_SOURCES[kind], *(_mark(cell) for cell in cells if cell["source"] == kind))
            for kind in _SOURCES
        ],
    )
    write_table(
        ("target", "what it is", "precisions", "make here", "run here"),
        [
            (
                row["name"],
                row["title"],
                ", ".join(row["precisions"]),
                "yes" if row["make"]["possible"] else "no",
                "yes" if row["run"]["possible"] else "no",
            )
            for row in rows
        ],
    )
    for line in dict.fromkeys(_obstacles(rows, cells)):
        sys.stdout.write(line + "\n")


def _mark(cell: dict[str, Any]) -> str:
    if not cell["possible"]:
        return "no"
    return f"by {cell['through']}" if cell["through"] else "yes"


def _obstacles(rows: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]]) -> Generator[str]:
    """What stands in the way, and what would change it; the same sentence may come twice."""
    for row in rows:
        if not row["make"]["possible"]:
            yield f"make: {row['make']['reason']} → {row['make']['remedy']}"
    for row in rows:
        if not row["run"]["possible"]:
            yield f"run {row['name']}: {row['run']['reason']} → {row['run']['remedy']}"
    for cell in cells:
        if not cell["possible"]:
            about = f"make {cell['target']} from {_SOURCES[cell['source']]}"
            yield f"{about}: {cell['reason']} → {cell['remedy']}"


def _matrix() -> list[dict[str, Any]]:
    """A cell for each kind of source and each target."""
    from edgeml.targets.registry import SOURCE_KINDS, TARGETS, can_make

    cells: list[dict[str, Any]] = []
    for kind in SOURCE_KINDS:
        for row in TARGETS.values():
            refusal = can_make(row, kind)
            made = [each for each in row.precisions if can_make(row, kind, each) is None]
            cells.append(
                {
                    "source": kind,
                    "target": row.name,
                    "possible": refusal is None,
                    "through": row.bridges.get(kind, ""),
                    "precisions": made,
                    "reason": refusal.reason if refusal else "",
                    "remedy": refusal.remedy if refusal else "",
                }
            )
    return cells


def _describe(name: str) -> dict[str, Any]:
    from edgeml.targets.host import can_run_here
    from edgeml.targets.registry import TARGETS

    row = TARGETS[name]
    refusal = can_run_here(row)
    return {
        "name": row.name,
        "title": row.title,
        "sources": sorted(row.sources),
        "refused_sources": {
            kind: {"reason": each.reason, "remedy": each.remedy}
            for kind, each in row.refusals.items()
        },
        "precisions": list(row.precisions),
        "make": _make(),
        "run": {"possible": True, "reason": "", "remedy": ""}
        if refusal is None
        else {"possible": False, "reason": refusal.reason, "remedy": refusal.remedy},
    }


def _make() -> dict[str, Any]:
    """Whether the converters are here. All targets' live in the toolchain ``export``."""
    from edgeml.toolchain import store
    from edgeml.toolchain.spec import toolchain

    spec = toolchain("export")
    found = store.find(spec)
    if store.serves_in_place(spec) or found.state == "installed":
        return {"possible": True, "reason": "", "remedy": ""}
    reason = f"The toolchain export is {found.state}{': ' if found.why else ''}{found.why}."
    return {
        "possible": False,
        "reason": reason,
        "remedy": "edgeml toolchain install export (or just export: it is made on first use).",
    }
