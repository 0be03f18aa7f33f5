"""The options of ``edgeml export``, in groups, and how its targets and its help are written."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

DATA = "Samples"
CHOICE = "What to choose"
MODEL = "The model"
BUNDLE = "The bundle"
OUTPUT = "Output"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="FILE.py:FACTORY, .pt2, .onnx, .keras, .h5, a SavedModel folder, a float .tflite, "
        "XGBoost's .json or LightGBM's .txt.",
    ),
]
Target = Annotated[
    list[str],
    typer.Option(
        "-t",
        "--target",
        metavar="TARGET",
        help="What to make it for, one or more: targets (`edgeml targets`) and device profiles "
        "(`edgeml devices`).",
        rich_help_panel="Options",
    ),
]

Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="Real samples, needed for int8: FILE.npz, FILE.npy, FILE.py:ITERABLE, or a folder of "
        "images or WAV files.",
        rich_help_panel=DATA,
    ),
]
Evaluate = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="Samples with labels, to measure the accuracy on.",
        rich_help_panel=DATA,
    ),
]
Preprocess = Annotated[
    str,
    typer.Option(
        metavar="FILE.toml",
        help="What the artifacts do to the raw input first: resize, scale, log-mel and so on.",
        rich_help_panel=DATA,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="NUMBER", help="Of every draw of samples, and of their order.", rich_help_panel=DATA
    ),
]

Precision = Annotated[
    str,
    typer.Option(
        metavar="PRECISION",
        help="auto (what measures best for each target), fp32, fp16, int8, int8-dynamic, int16x8, "
        "int8-weights, int4-weights or mixed.",
        rich_help_panel=CHOICE,
    ),
]
MaxAccuracyDrop = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE",
        help="Search for an artifact that loses at most so much: 1% or .01.",
        rich_help_panel=CHOICE,
    ),
]
MaxLatency = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="… whose median latency here is at most this: 20ms.",
        rich_help_panel=CHOICE,
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="… whose whole process takes at most this at its peak: 64MB.",
        rich_help_panel=CHOICE,
    ),
]
MaxSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="… whose files have at most this together: 2MB.",
        rich_help_panel=CHOICE,
    ),
]
Metric = Annotated[
    str,
    typer.Option(
        metavar="METRIC",
        help="top-1, auc, f1, mse, agreement, or FILE.py:FUNCTION (labels, outputs) → float, the "
        "larger the better. Else by the labels.",
        rich_help_panel=CHOICE,
    ),
]
Confidence = Annotated[
    str,
    typer.Option(
        metavar="SHARE",
        help="Of the accuracy's certificate: .95 or 95%.",
        rich_help_panel=CHOICE,
    ),
]
Tolerance = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TOL",
        help="Change a tolerance: int8:cosine=.95,agreement=.9; may be given several times.",
        rich_help_panel=CHOICE,
    ),
]

Shape = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=1,3,224,224",
        help="The shape of an input that the model leaves open; may be given several times.",
        rich_help_panel=MODEL,
    ),
]
Statistics = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FAMILY",
        help="The statistics that devices count of an input, where not those of its meaning: "
        "image, audio, features, embedding, scores, tensor, or none; may be given several times.",
        rich_help_panel=MODEL,
    ),
]
Python = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="The interpreter that runs FILE.py of MODEL and DATA, with its own torch.",
        rich_help_panel=MODEL,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Open a pickle (.pt, .pkl, .joblib), which can run any code.",
        rich_help_panel=MODEL,
    ),
]
Minimize = Annotated[
    str,
    typer.Option(
        metavar="FILE.onnx",
        help="Where a target refuses an operator: write the smallest model that shows it.",
        rich_help_panel=MODEL,
    ),
]

Name = Annotated[
    str,
    typer.Option(metavar="NAME", help="The model's name; else from MODEL.", rich_help_panel=BUNDLE),
]
Version = Annotated[
    str, typer.Option(metavar="VERSION", help="The model's version.", rich_help_panel=BUNDLE)
]
Output = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="A file that ends in .edgeml, or a folder.",
        rich_help_panel=BUNDLE,
    ),
]
DeadlineMs = Annotated[
    float | None,
    typer.Option(
        metavar="MS", help="The deadline of a request on the device, in ms.", rich_help_panel=BUNDLE
    ),
]
MemoryMb = Annotated[
    float | None,
    typer.Option(
        metavar="MB", help="The memory limit on the device, in MB.", rich_help_panel=BUNDLE
    ),
]

Report = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Draw latency, accuracy and size of all that was tried: a .png, or an .html page.",
        rich_help_panel=OUTPUT,
    ),
]
Events = Annotated[
    bool,
    typer.Option(
        "--events",
        help="Print what goes on as it does, one JSON document a line, in place of a table.",
        rich_help_panel=OUTPUT,
    ),
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Take nothing that was made before.", rich_help_panel=OUTPUT),
]


class ExportCommand(TyperCommand):
    """Takes ``-t tflite openvino`` and ``-t tflite,openvino`` for ``-t tflite -t openvino``; its
    help has a section a group."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread_targets(args, _known()))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                plain = "Arguments" if param.param_type_name == "argument" else OUTPUT
                title = getattr(param, "rich_help_panel", None) or plain
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def spread_targets(arguments: Sequence[str], names: Container[str]) -> list[str]:
    """Repeat ``-t`` before each of the targets that follow one."""
    spread: list[str] = []
    listing = False
    for argument in arguments:
        if argument in ("-t", "--target"):
            spread.append(argument)
            listing = True
        elif listing and spread[-1] in ("-t", "--target"):
            first, *others = argument.split(",")
            spread.append(first)
            spread += [word for other in others for word in ("-t", other)]
        elif listing and argument in names:
            spread += ["-t", argument]
        else:
            spread.append(argument)
            listing = False
    return spread


def _known() -> frozenset[str]:
    from edgeml.targets.devices import names
    from edgeml.targets.registry import TARGETS

    return frozenset((*TARGETS, *names()))
