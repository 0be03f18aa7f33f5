"""edgeml export beside what a person does by hand with the stock tools' defaults.

    python benchmarks/exporter.py --data FOLDER [--write] [--only MODEL] [--rounds N]

For each model and target: ``edgeml export`` with ``auto`` and an empty cache, and the stock tool's
float and int8 artifacts (``peers/stock.py``), on the same calibration samples. Every artifact,
whoever made it, is then run on the same evaluation samples by the same runtime, and measured in
fresh processes of one thread, in turn, several rounds over; p50 and p99 are the best round's.

Export time is that of the whole process, for both, the best of as many runs as there are rounds but
no more than three, in turn. What it holds differs. edgeml reads the model in a process of its own,
runs it on all samples, makes the target's candidates (for OpenVINO fp16 as well as fp32 and int8),
runs each on all evaluation samples, measures each in a fresh process, and packs the bundle. The
stock script makes its two artifacts in one process, and neither runs nor measures them. What edgeml
takes to find the layers at fault where int8 collapsed is told apart.

Prints the tables, and with ``--write`` puts them into docs/benchmarks.md. FOLDER holds
``mlperf-tiny``, ``photos`` and ``spoken-digits``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from page import setting, table, write_section
from peers.subjects import Subject, prepare

from edgeml.bundle import open_bundle
from edgeml.targets.measuring import MeasureJob, measure
from edgeml.targets.runtime import NamedSession, open_session
from edgeml.toolchain import hop
from edgeml.toolchain.spec import toolchain

HERE = Path(__file__).parent
TARGETS = ("tflite", "openvino", "onnx")
LOSS = 0.01
"""One point: what an artifact may lose and still count as having kept its accuracy."""

MOST_EXPORTS = 3
"""Runs of each export; its artifacts are measured in as many rounds as are asked for."""

Array = NDArray[Any]


class Cost(msgspec.Struct, frozen=True):
    """What an export took."""

    seconds: float
    """By the clock, without those for the explanation."""
    cpu_seconds: float
    """Of all its processes, the explanation's among them."""
    explaining: float = 0.0
    """Seconds for the table of layers of an int8 that collapsed; no stock tool makes one."""


class Made(msgspec.Struct, kw_only=True):
    """An artifact, and what was found out about it."""

    model: str
    target: str
    maker: str
    precision: str
    files: tuple[Path, ...]
    cost: Cost
    """Of the export that made it, which made its siblings too."""
    chosen: bool = True
    options: dict[str, str] = {}
    right: float = 0.0
    """Accuracy where there are labels, else agreement with the source."""
    p50_ms: float = float("inf")
    p99_ms: float = float("inf")
    peak_mb: float = 0.0

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)


def main() -> None:
    parser = argparse.ArgumentParser(description="edgeml export beside the stock tools.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", action="append", help="a model; all without it")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    parser.add_argument("--keep", type=Path, help="a folder to work in, and to leave")
    arguments = parser.parse_args()
    _into_toolchain()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found: list[Made] = []
        for subject in prepare(arguments.data.resolve(), folder, only=arguments.only):
            print(subject.name, file=sys.stderr, flush=True)
            work = folder / subject.name
            _stock("source", subject, subject.evaluation, work / "source")
            reference = np.load(work / "source" / "reference.npy")
            mine: list[Made] = []
            for target in arguments.targets:
                mine += _made(subject, target, work, arguments.rounds)
            _judge(mine, subject, reference)
            _measure(mine, subject, arguments.rounds, work)
            found += mine
            if arguments.write:  # an export takes long: what was measured is not lost
                write_section("exporter", _report(found))
        print(_report(found))


def _into_toolchain() -> None:
    """Go on in the toolchain's Python, where this one lacks the converters."""

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    with hop.interpreter(toolchain("export"), say=say, progress=say) as python:
        if str(python) != sys.executable:
            os.execv(python, [str(python), *sys.argv])


def _made(subject: Subject, target: str, work: Path, rounds: int) -> list[Made]:
    """Both makers' artifacts, those of the last round; all rounds give the same ones."""
    ours, stock = work / f"edgeml-{target}", work / f"stock-{target}"
    mine: list[Cost] = []
    theirs: list[Cost] = []
    explaining: list[float] = []
    files: dict[str, list[str]] = {}
    for _ in range(min(rounds, MOST_EXPORTS)):
        for folder in (ours, stock, Path(f"{ours}-cache")):
            shutil.rmtree(folder, ignore_errors=True)
        with _timed(mine):
            explaining.append(_ours(subject, target, ours))
        with _timed(theirs):
            files = _stock(target, subject, subject.calibration, stock)
    cost = _best(mine, explaining)
    bundle = open_bundle(Path(f"{ours}.edgeml"))
    made: list[Made] = []
    for artifact in bundle.manifest.artifacts:
        entry = bundle.extract(artifact, ours / artifact.id)
        made.append(
            Made(
                model=subject.name,
                target=target,
                maker="edgeml",
                precision=artifact.precision,
                files=tuple(entry.with_name(Path(file.path).name) for file in artifact.files),
                cost=cost,
                chosen=artifact.chosen,
                options=dict(artifact.requires.options),
            )
        )
    made += [
        Made(
            model=subject.name,
            target=target,
            maker="stock",
            precision=precision,
            files=tuple(map(Path, paths)),
            cost=_best(theirs),
        )
        for precision, paths in files.items()
    ]
    return made


@contextlib.contextmanager
def _timed(into: list[Cost]) -> Generator[None]:
    """Adds what the processes took that the block ran to their end."""
    began, used = time.perf_counter(), _cpu_seconds()
    yield
    into.append(Cost(time.perf_counter() - began, _cpu_seconds() - used))


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _best(costs: Sequence[Cost], explaining: Sequence[float] = ()) -> Cost:
    """The best of each figure, the seconds without those for the explanation."""
    extra = list(explaining) or [0.0] * len(costs)
    return Cost(
        seconds=min(e.seconds - more for e, more in zip(costs, extra, strict=True)),
        cpu_seconds=min(e.cpu_seconds for e in costs),
        explaining=min(extra),
    )


def _ours(subject: Subject, target: str, out: Path) -> float:
    """Export; the seconds that went into the table of layers of an int8 that collapsed."""
    command = [sys.executable, "-m", "edgeml", "export", subject.model, "-t", target]
    command += ["--calibration", subject.calibration, "--evaluate", subject.evaluation]
    command += ["-o", f"{out}.edgeml", "--events"]
    explaining, began = 0.0, None
    with subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        env={**os.environ, "EDGEML_CACHE": f"{out}-cache"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] not in {"stage", "done"}:
                continue
            if began is not None:
                explaining += time.perf_counter() - began
            began = time.perf_counter() if event.get("name") == "explain" else None
    if process.returncode:
        sys.exit(f"edgeml export of {subject.name} for {target} ended with {process.returncode}")
    return explaining


def _stock(target: str, subject: Subject, samples: Path, out: Path) -> dict[str, list[str]]:
    script = HERE / "peers" / "stock.py"
    done = subprocess.run(
        [sys.executable, script, target, subject.form, subject.model, samples, out],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{subject.name}, {target}: {done.stderr.decode()[-2000:]}")
    return json.loads(done.stdout)


def _judge(made: Sequence[Made], subject: Subject, reference: Array) -> None:
    """Run every artifact on the evaluation samples."""
    with np.load(subject.evaluation) as arrays:
        samples = arrays[subject.input]
        truth = arrays["labels"] if "labels" in arrays.files else reference.argmax(axis=-1)
    for each in made:
        session = open_session(each.target, each.files[0], options=each.options)
        inputs, outputs = _ports(session)
        with NamedSession(session, inputs, outputs) as named:
            fed = _fed(samples, each, named.inputs[0].dtype)
            decided = [
                int(named.run({"input": fed[row : row + 1]})["output"].argmax())
                for row in range(len(fed))
            ]
        each.right = float((np.array(decided) == truth).mean())


def _fed(samples: Array, made: Made, dtype: str) -> Array:
    """The samples as an artifact takes them: ai-edge-quantizer's default takes int8."""
    if dtype == samples.dtype:
        return samples
    litert = importlib.import_module("ai_edge_litert.interpreter")
    details: Any = litert.Interpreter(model_path=str(made.files[0])).get_input_details()[0]
    scale, zero = details["quantization"]
    bounds = np.iinfo(dtype)
    return np.clip(np.rint(samples / scale + zero), bounds.min, bounds.max).astype(dtype)


def _ports(session: Any) -> tuple[dict[str, str], dict[str, str]]:
    """These models have one input and one output, which makers name as they like."""
    return {"input": session.inputs[0].name}, {"output": session.outputs[0].name}


def _measure(made: Sequence[Made], subject: Subject, rounds: int, work: Path) -> None:
    with np.load(subject.evaluation) as arrays:
        real = arrays[subject.input][:100]
    for _ in range(rounds):
        for each in made:
            session = open_session(each.target, each.files[0], options=each.options)
            inputs, outputs = _ports(session)
            dtype = session.inputs[0].dtype
            session.close()
            samples = work / f"measure-{dtype}.npz"
            np.savez(samples, input=_fed(real, each, dtype))
            figures = measure(
                MeasureJob(
                    target=each.target,
                    entry=each.files[0],
                    inputs=inputs,
                    outputs=outputs,
                    samples=samples,
                    options=each.options,
                )
            )
            each.p50_ms = min(each.p50_ms, figures.p50_ms)
            each.p99_ms = min(each.p99_ms, figures.p99_ms)
            each.peak_mb = max(each.peak_mb, figures.peak_rss_mb)


def _report(found: Sequence[Made]) -> str:
    columns = (
        "model",
        "target",
        "by",
        "precision",
        "right",
        "bytes",
        "p50 ms",
        "p99 ms",
        "peak MB",
    )
    rows = [
        (
            each.model,
            each.target,
            each.maker,
            each.precision,
            f"{each.right:.3f}",
            f"{each.bytes:,}",
            f"{each.p50_ms:.3f}",
            f"{each.p99_ms:.3f}",
            f"{each.peak_mb:.0f}",
            f"{each.cost.seconds:.1f}",
            f"{each.cost.cpu_seconds:.1f}",
        )
        for each in found
    ]
    setting_line = setting("tensorflow", "litert-torch", "openvino", "nncf", "onnxruntime")
    return "\n\n".join(
        (
            setting_line,
            table((*columns, "export s", "CPU s"), rows),
            "edgeml's choice over the best stock artifact that is within a point of the best "
            "stock accuracy; *export* and *CPU* over the stock tool's process. Wanted: latency "
            "≤ 1.00, accuracy ≥ 0, size ≤ 1.02, export ≤ 1.2.",
            _ratios(found),
            *_explanations(found),
        )
    )


def _explanations(found: Sequence[Made]) -> list[str]:
    """What an explanation took, where there was one."""
    took = {(e.model, e.target): e.cost.explaining for e in found if e.cost.explaining}
    if not took:
        return []
    parts = ", ".join(f"{model} {target} {took[model, target]:.1f} s" for model, target in took)
    return [
        "An int8 that collapses is looked into, layer by layer, which is in *CPU s* and not in "
        f"*export s*: {parts}."
    ]


def _ratios(found: Sequence[Made]) -> str:
    rows: list[tuple[str, ...]] = []
    for model, target in dict.fromkeys((each.model, each.target) for each in found):
        mine = [e for e in found if (e.model, e.target) == (model, target)]
        ours = next(e for e in mine if e.maker == "edgeml" and e.chosen)
        stock = [e for e in mine if e.maker == "stock"]
        most = max(e.right for e in stock)
        kept = [e for e in stock if e.right >= most - LOSS]
        best = min(kept, key=lambda e: e.p50_ms)
        rows.append(
            (
                model,
                target,
                ours.precision,
                best.precision,
                f"{ours.p50_ms / best.p50_ms:.2f}",
                f"{(ours.right - best.right) * 100:+.1f}",
                f"{ours.bytes / best.bytes:.3f}",
                f"{ours.cost.seconds / best.cost.seconds:.2f}",
                f"{ours.cost.cpu_seconds / best.cost.cpu_seconds:.2f}",
            )
        )
    columns = ("model", "target", "edgeml", "stock", "latency", "points", "size", "export", "CPU")
    return table(columns, rows)


if __name__ == "__main__":
    main()
