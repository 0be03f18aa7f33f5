"""``edgeml bench``: latency and memory of a bundle's artifacts, each in a fresh process, here."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeml.cli.shared import Json, verb_app, write_json, write_table

if TYPE_CHECKING:
    from edgeml.bundle import Artifact, Bundle, Measurement

app = verb_app()


@app.command()
def bench(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .edgeml file.")],
    *,
    target: Annotated[
        str | None,
        typer.Option(
            "-t",
            "--target",
            metavar="NAME",
            help="A target or an artifact's id; else all that run.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "-i", "--input", metavar="DATA", help="Samples; else the bundle's golden inputs."
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(metavar="COUNT", min=1, help="Threads of the runtime.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Measure a bundle's latency and memory on this machine."""

    from edgeml.api.choosing import runnable
    from edgeml.bundle import open_bundle
    from edgeml.data import parse_source, read_samples
    from edgeml.npz import save_npz

    model = open_bundle(bundle)
    artifacts, refused = runnable(model, target)
    with TemporaryDirectory(prefix="edgeml-bench-") as folder:
        samples = Path(folder) / "samples.npz"
        inputs = (
            model.golden().inputs
            if data is None
            else read_samples(
                parse_source(data),
                model.manifest.inputs,
                Path(folder) / "data",
                inside=model.manifest.inside,
            ).inputs
        )
        save_npz(samples, inputs)
        measured = [
            (each, _measure(model, each, samples, Path(folder) / each.id, threads))
            for each in artifacts
        ]
    if as_json:
        write_json(
            {
                "bundle": str(bundle),
                "artifacts": [_fields(artifact, figures) for artifact, figures in measured],
                "refused": refused,
            }
        )
        return
    _write(measured)
    for name, reason in refused.items():
        typer.echo(f"{name} was not measured: {reason}")


def _measure(
    bundle: Bundle, artifact: Artifact, samples: Path, folder: Path, threads: int
) -> Measurement:
    from edgeml.targets.measuring import MeasureJob, measure

    return measure(
        MeasureJob(
            target=artifact.target,
            entry=bundle.extract(artifact, folder),
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            samples=samples,
            options=artifact.requires.options,
            threads=threads,
        )
    )


def _fields(artifact: Artifact, figures: Measurement) -> dict[str, Any]:
    import msgspec

    return {
        "id": artifact.id,
        "target": artifact.target,
        "precision": artifact.precision,
        "bytes": artifact.bytes,
        **msgspec.structs.asdict(figures),
    }


def _write(measured: list[tuple[Artifact, Measurement]]) -> None:
    memory = ("peak MB", "loading MB", "steady MB")
    numbers = ("load ms", "p50 ms", "p99 ms", *memory, "runs", "p50 at export")
    first = measured[0][1]
    write_table(
        ("artifact", *numbers),
        [
            (
                artifact.id,
                f"{figures.load_ms:.1f}",
                f"{figures.p50_ms:.3f}",
                f"{figures.p99_ms:.3f}",
                f"{figures.peak_rss_mb:.0f}",
                *(
                    None if value is None else f"{value:.0f}"
                    for value in (figures.loading_rss_mb, figures.steady_rss_mb)
                ),
                figures.samples,
                f"{artifact.measured.p50_ms:.3f}" if artifact.measured else None,
            )
            for artifact, figures in measured
        ],
        title=f"{first.machine} ({first.isa}), threads: {first.threads}, "
        + ("not pinned to a core" if first.cores is None else f"cores: {first.cores}"),
        right=numbers,
        spare=("loading MB", "steady MB", "runs", "load ms"),
    )
