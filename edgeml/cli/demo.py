"""``edgeml demo``: a trained model, three targets, a running fleet and a drift alarm."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

import typer

from edgeml.cli.shared import verb_app
from edgeml.errors import EdgemlError, UsageError

app = verb_app()

SAMPLE = Path(__file__).parents[2] / "sample_models" / "digits"


@app.command()
def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the fleet running until Ctrl-C.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep weights, data, bundle, database and logs in this folder."
        ),
    ] = None,
) -> None:
    """Train a digit classifier, export it for three targets, run a fleet, and break a camera.

    Nothing is canned: the numbers are measured while you look on. It takes under three minutes
    once the toolchain is installed, and ends with everything stopped.
    """
    from edgeml.cli.toolchain import showing
    from edgeml.demo.story import Demo
    from edgeml.demo.telling import Telling
    from edgeml.toolchain import hop
    from edgeml.toolchain.spec import toolchain

    if not (SAMPLE / "train.py").exists():
        raise UsageError(
            f"the sample model is not at {SAMPLE}",
            expected="a checkout of edgeml: an installed package does not carry it",
            remedy="Clone the repository and run `make demo` there.",
        )
    telling = Telling()

    @contextlib.contextmanager
    def converters() -> Generator[Path]:
        with (
            showing() as (say, progress),
            hop.interpreter(toolchain("export"), say=say, progress=progress) as python,
        ):
            yield python

    with _folder(out) as folder:
        story = Demo(folder=folder, sample=SAMPLE, converters=converters, telling=telling)
        story.run(keep=keep)


@contextlib.contextmanager
def _folder(chosen: Path | None) -> Generator[Path]:
    """Where the demo works: what was asked for, or a folder that only a failure leaves behind."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        if any(chosen.iterdir()):
            raise UsageError(
                f"{chosen} is not empty",
                expected="an empty folder, or one that does not exist yet",
                remedy="What an earlier demo left there would be taken for this one's.",
            )
        yield chosen.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="edgeml-demo-"))
    try:
        yield folder
    except EdgemlError:
        raise  # its remedy names logs in there
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)
