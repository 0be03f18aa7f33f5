"""``edgeml devices``: the device profiles, which stand for targets after ``-t``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from edgeml.cli.shared import Json, verb_app, write_json, write_table

app = verb_app()


@app.command()
def devices(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Show this one in full.")] = "",
    *,
    as_json: Json = False,
) -> None:
    """Show the device profiles: what each stands for after -t, and what is known of it."""
    from edgeml.targets.devices import names

    if name:
        row = _describe(name)
        if as_json:
            write_json(row)
        else:
            _write_one(row)
        return
    rows = [_describe(each) for each in names()]
    if as_json:
        write_json({"devices": rows})
        return
    write_table(
        ("device", "what it is", "targets", "memory", "deadline", "memory for a model"),
        [
            (
                row["name"],
                row["title"],
                ", ".join(row["targets"]),
                _memory(row),
                f"{row['budgets']['deadline_ms']:g} ms",
                f"{row['budgets']['memory_mb']:g} MB",
            )
            for row in rows
        ],
        right=("deadline", "memory for a model"),
    )


def _describe(name: str) -> dict[str, Any]:
    import msgspec

    from edgeml.targets.devices import profile

    return {"name": name, **msgspec.to_builtins(profile(name))}


def _memory(row: dict[str, Any]) -> str:
    sizes: list[int] = row["memory_gb"]
    return f"{sizes[0]} GB" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} GB"


def _write_one(row: dict[str, Any]) -> None:
    budgets = row["budgets"]
    lines = {
        "targets": ", ".join(row["targets"]),
        "processor": f"{row['processor']} ({row['machine']}: {', '.join(row['instructions'])})",
        "GPU": row["gpu"],
        "memory": f"{', '.join(str(size) for size in row['memory_gb'])} GB",
        "budgets": f"deadline {budgets['deadline_ms']:g} ms, memory {budgets['memory_mb']:g} MB, "
        "unless --deadline-ms and --memory-mb say otherwise",
    }
    sys.stdout.write(f"{row['name']}: {row['title']}\n")
    for title, text in lines.items():
        if text:
            sys.stdout.write(f"  {title:<10} {text}\n")
    for system in row["systems"]:
        versions = [f"Python {system['python']}"]
        versions += [f"CUDA {system['cuda']}"] if system["cuda"] else []
        versions += [f"TensorRT {system['tensorrt']}"] if system["tensorrt"] else []
        sys.stdout.write(f"  {'system':<10} {system['name']}: {', '.join(versions)}\n")
