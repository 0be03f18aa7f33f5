"""``edgeml run``: a bundle's artifact on somebody's samples, in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeml.cli.shared import Json, verb_app, write_json, write_table

if TYPE_CHECKING:
    import numpy as np

app = verb_app()

SHOWN_ROWS = 10
"""How many samples the table shows; ``-o`` and ``--json`` have all of them."""


@app.command()
def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .edgeml file.")],
    *,
    data: Annotated[
        str,
        typer.Option(
            "-i",
            "--input",
            metavar="DATA",
            help="FILE.npz, FILE.npy, or a folder of images or WAV files.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "-t",
            "--target",
            metavar="NAME",
            help="A target or an artifact's id; else the best here.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.npz", help="Where all outputs go."),
    ] = None,
    threads: Annotated[
        int, typer.Option(metavar="COUNT", min=1, help="Threads of the runtime.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Run a bundle on your data, here."""
    import numpy as np

    from edgeml.api.choosing import opened, runnable
    from edgeml.bundle import open_bundle
    from edgeml.data import parse_source, read_samples
    from edgeml.errors import UsageError

    if output is not None and output.suffix != ".npz":
        raise UsageError(f"-o names {output}", expected="a file that ends in .npz")
    if output is not None and output.exists() and output.samefile(data):
        raise UsageError(
            f"-o would write over {data}, which --input names",
            expected="a place of its own",
            remedy="Name another one with -o.",
        )
    model = open_bundle(bundle)
    artifact = runnable(model, target)[0][0]
    results: dict[str, list[np.ndarray[Any, Any]]] = {}
    with TemporaryDirectory(prefix="edgeml-run-") as folder:
        samples = read_samples(
            parse_source(data), model.manifest.inputs, Path(folder), inside=model.manifest.inside
        )
        with opened(model, artifact, threads=threads) as session:
            for row in range(len(samples)):
                feeds = {name: array[row : row + 1] for name, array in samples.inputs.items()}
                for name, array in session.run(feeds).items():
                    results.setdefault(name, []).append(array)
    outputs = {name: np.concatenate(rows) for name, rows in results.items()}
    if output is not None:
        _save(output, outputs)
    if as_json:
        write_json(
            {
                "bundle": str(bundle),
                "artifact": artifact.id,
                "samples": len(samples),
                "outputs": {name: array.tolist() for name, array in outputs.items()}
                if output is None
                else str(output),
            }
        )
        return
    _write(outputs)
    where = f"; all outputs are in {output}" if output is not None else ""
    sys.stdout.write(f"{len(samples)} samples through {artifact.id}{where}\n")


def _save(path: Path, outputs: dict[str, Any]) -> None:
    from edgeml.errors import UsageError
    from edgeml.npz import save_npz

    try:
        save_npz(path, outputs)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", remedy="Name another place with -o."
        ) from error


def _write(outputs: dict[str, Any]) -> None:
    count = len(next(iter(outputs.values())))
    rows = [
        [row, *(_short(array[row]) for array in outputs.values())]
        for row in range(min(count, SHOWN_ROWS))
    ]
    if count > SHOWN_ROWS:
        rows.append(["…", *("" for _ in outputs)])
    write_table(("sample", *outputs), rows, right=("sample",))


def _short(values: Any) -> str:
    """One sample's output in a cell: its first values, and the largest where it is a decision."""
    import numpy as np

    flat = np.ravel(values)
    text = " ".join(f"{value:.4g}" for value in flat[:8]) + (" …" if flat.size > 8 else "")
    return f"{text}  (largest: {int(flat.argmax())})" if flat.size > 1 else text
