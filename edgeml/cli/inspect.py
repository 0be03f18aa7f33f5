"""``edgeml inspect``: what a bundle holds, after every hash in it was checked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeml.cli.shared import Json, human_bytes, verb_app, write_json, write_table

if TYPE_CHECKING:
    from edgeml.bundle import Bundle, Manifest, Tensor

app = verb_app()


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .edgeml file.")],
    *,
    as_json: Json = False,
) -> None:
    """Check a bundle's hashes and show what it holds."""
    import msgspec

    from edgeml.bundle import open_bundle

    opened = open_bundle(bundle)
    if as_json:
        document = msgspec.to_builtins(opened.manifest)
        write_json(
            {"path": str(bundle), "sha256": opened.sha256, "verified": True, "manifest": document}
        )
        return
    _write_head(opened)
    _write_tensors(opened.manifest)
    _write_artifacts(opened.manifest)


def _write_head(bundle: Bundle) -> None:
    manifest = bundle.manifest
    source = manifest.provenance
    lines = {
        "model": f"{manifest.name} {manifest.version}, exported {manifest.created}",
        "bundle": f"{bundle.path} ({human_bytes(bundle.path.stat().st_size)}), every hash checked",
        "SHA-256": bundle.sha256,
        "source": f"{source.source_name} ({source.source_format}, "
        f"SHA-256 {source.source_sha256[:12]}…)",
        "calibration": f"{source.calibration.count} samples" if source.calibration else "none",
        "evaluation": f"{source.evaluation.count} samples" if source.evaluation else "none",
        "accuracy": f"{source.source_accuracy.value:.3f} ({source.source_accuracy.metric}) "
        "of the source model"
        if source.source_accuracy
        else "",
        "budgets": _budgets(manifest),
        "does inside": ", ".join(step.name for step in manifest.inside),
        "golden": f"{human_bytes(manifest.golden.bytes)} of inputs and the answers to them",
        "statistics": ", ".join(baseline.streams)
        if (baseline := bundle.baseline())
        else "no baseline: exported without calibration data",
        "made with": ", ".join(f"{name} {number}" for name, number in source.tools.items()),
    }
    for name, text in lines.items():
        if text:
            sys.stdout.write(f"{name + ':':<13}{text}\n")


def _budgets(manifest: Manifest) -> str:
    budgets = manifest.budgets
    parts = [
        f"deadline {budgets.deadline_ms:g} ms" if budgets.deadline_ms is not None else "",
        f"memory {budgets.memory_mb:g} MB" if budgets.memory_mb is not None else "",
    ]
    return ", ".join(filter(None, parts)) or "none"


def _write_tensors(manifest: Manifest) -> None:
    def row(kind: str, tensor: Tensor) -> tuple[str, ...]:
        shape = ", ".join(map(str, tensor.shape))
        return (kind, tensor.name, f"[{shape}]", tensor.dtype, tensor.meaning, tensor.layout)

    rows = [row("input", tensor) for tensor in manifest.inputs]
    rows += [row("output", tensor) for tensor in manifest.outputs]
    write_table(("", "name", "shape", "dtype", "meaning", "layout"), rows)


def _write_artifacts(manifest: Manifest) -> None:
    from edgeml.exporter.judging.certificate import sentence

    memory = ("peak MB", "loading MB", "steady MB")
    numbers = ("size", "accuracy", "cosine", "max abs", "p50 ms", "p99 ms", *memory)
    rows: list[tuple[str | None, ...]] = []
    for artifact in manifest.artifacts:
        measured, accuracy = artifact.measured, artifact.accuracy
        rows.append(
            (
                artifact.id,
                human_bytes(artifact.bytes),
                f"{accuracy.value:.3f}" if accuracy else None,
                f"{artifact.parity.cosine:.5f}" if artifact.parity else None,
                f"{artifact.parity.max_abs:.3g}" if artifact.parity else None,
                f"{measured.p50_ms:.3f}" if measured else None,
                f"{measured.p99_ms:.3f}" if measured else None,
                f"{measured.peak_rss_mb:.0f}" if measured else None,
                *(
                    None if value is None else f"{value:.0f}"
                    for value in (
                        (measured.loading_rss_mb, measured.steady_rss_mb)
                        if measured
                        else (None, None)
                    )
                ),
                f"{measured.machine} ({measured.isa})"
                if measured
                else f"not measured: {artifact.not_measured}",
                " or ".join(artifact.requires.packages),
            )
        )
    write_table(
        ("artifact", *numbers, "measured on", "needs one of"),
        rows,
        right=numbers,
        spare=("needs one of", "loading MB", "steady MB", "max abs", "p99 ms", "cosine", "peak MB"),
    )
    for artifact in manifest.artifacts:
        if artifact.certificate is not None:
            text = f"{artifact.certificate.metric}: {sentence(artifact.certificate)}"
            sys.stdout.write(f"{artifact.id}: {text}\n")
        if artifact.float_layers:
            layers = ", ".join(artifact.float_layers)
            sys.stdout.write(f"{artifact.id}: stayed float: {layers}\n")
        if artifact.not_checked:
            sys.stdout.write(f"{artifact.id} was not checked: {artifact.not_checked}\n")
