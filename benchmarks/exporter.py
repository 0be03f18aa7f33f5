"""edgeml export beside what a person does by hand with the stock tools' defaults.

    python benchmarks/exporter.py --data FOLDER [--write] [--only MODEL] [--targets T …]
        [--rounds N] [--measurements N] [--results FILE.json]

For each model and target: ``edgeml export`` with ``auto`` and an empty cache, and the stock tool's
float and int8 artifacts (``peers/stock.py``), on the same calibration samples. Every artifact,
whoever made it, is then run on the same evaluation samples by the same runtime, and measured in
fresh processes of one thread, ten rounds over, each in an order of its own, drawn at random (with a
seed); p50 and p99 are the best round's. The latency of one artifact over another's is the median of
the rounds' ratios, each of two measurements that were made within seconds of each other.

The control is a byte-for-byte copy of the stock artifact, measured as if it were a third one: its
ratio to the original is 1 but for the noise, and shows how far noise alone takes a median from 1.
Ours is called slower only where Wilcoxon's signed-rank test over the rounds, of ours against the
copy, says so (one-sided, at 5 %). That pair is a fair one: were both equal, either could have had
the other's time. One of twelve such rows is called slower by chance in about half of all tables.

Export time is that of the whole process, for both, the best of as many runs as there are rounds but
no more than three, in turn. What it holds differs. edgeml reads the model in a process of its own,
runs it on all samples, makes the target's candidates (for OpenVINO fp16 as well as fp32 and int8),
runs each on all evaluation samples, measures each in a fresh process, and packs the bundle. The
stock script makes its two artifacts in one process, and neither runs nor measures them. So there is
a second figure for edgeml, from its own events: how long it took until the last artifact was
converted, after which there is nothing but what the stock script does not do. What edgeml takes to
find the layers at fault where int8 collapsed is told apart.

Prints the tables, and with ``--write`` puts them into docs/benchmarks.md. FOLDER holds
``mlperf-tiny``, ``photos`` and ``spoken-digits``. With ``--results`` what was measured goes into
FILE.json, too, and the tables hold what earlier calls put there: all of it takes half an hour.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from exporter_table import TARGETS, Cost, Made, accurate, earlier, ordered, report
from numpy.typing import NDArray
from page import write_section
from peers.subjects import Subject, prepare

from edgeml.bundle import open_bundle
from edgeml.targets.measuring import MeasureJob, measure
from edgeml.targets.runtime import NamedSession, open_session
from edgeml.toolchain import hop
from edgeml.toolchain.spec import toolchain

HERE = Path(__file__).parent
MOST_EXPORTS = 3
"""Runs of each export."""

Array = NDArray[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="edgeml export beside the stock tools.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", action="append", help="a model; all without it")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measurements", type=int, default=10, help="rounds of latency")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    parser.add_argument("--results", type=Path, help="a file of what was measured before")
    parser.add_argument("--keep", type=Path, help="a folder to work in, and to leave")
    arguments = parser.parse_args()
    _into_toolchain()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = earlier(arguments.results)
        for subject in prepare(arguments.data.resolve(), folder, only=arguments.only):
            print(subject.name, file=sys.stderr, flush=True)
            work = folder / subject.name
            _stock("source", subject, subject.evaluation, work / "source")
            reference = np.load(work / "source" / "reference.npy")
            mine: list[Made] = []
            for target in arguments.targets:
                mine += _made(subject, target, work, arguments.rounds)
            _judge(mine, subject, reference)
            _measure(mine, subject, arguments.measurements, work)
            again = {(each.model, each.target) for each in mine}
            found = ordered(
                [*(each for each in found if (each.model, each.target) not in again), *mine]
            )
            if arguments.results:
                arguments.results.write_bytes(msgspec.json.encode(found, enc_hook=str))
            if arguments.write:  # an export takes long: what was measured is not lost
                write_section("exporter", report(found))
        print(report(found))


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
    files: dict[str, list[str]] = {}
    for _ in range(min(rounds, MOST_EXPORTS)):
        for folder in (ours, stock, Path(f"{ours}-cache")):
            shutil.rmtree(folder, ignore_errors=True)
        used = _cpu_seconds()
        cost = _ours(subject, target, ours)
        mine.append(msgspec.structs.replace(cost, cpu_seconds=_cpu_seconds() - used))
        began, used = time.perf_counter(), _cpu_seconds()
        files = _stock(target, subject, subject.calibration, stock)
        took = time.perf_counter() - began
        theirs.append(Cost(took, _cpu_seconds() - used, converted=took))
    cost = _best(mine)
    bundle = open_bundle(Path(f"{ours}.edgeml"))
    made: list[Made] = []
    for artifact in bundle.manifest.artifacts:
        entry = bundle.extract(artifact, ours / artifact.id)
        files_of = tuple(entry.with_name(Path(file.path).name) for file in artifact.files)
        made.append(
            Made(
                model=subject.name,
                target=target,
                maker="edgeml",
                precision=artifact.precision,
                files=files_of,
                bytes=_size(files_of),
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
            bytes=_size(map(Path, paths)),
            cost=_best(theirs),
        )
        for precision, paths in files.items()
    ]
    return made


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _best(costs: Sequence[Cost]) -> Cost:
    """The best of each figure."""
    return Cost(
        seconds=min(each.seconds for each in costs),
        cpu_seconds=min(each.cpu_seconds for each in costs),
        converted=min(each.converted for each in costs),
        explaining=min(each.explaining for each in costs),
    )


def _ours(subject: Subject, target: str, out: Path) -> Cost:
    """Export; what it took by the clock."""
    command = [sys.executable, "-m", "edgeml", "export", subject.model, "-t", target]
    command += ["--calibration", subject.calibration, "--evaluate", subject.evaluation]
    command += ["-o", f"{out}.edgeml", "--events"]
    explaining, since = 0.0, None
    converted = 0.0
    began = time.perf_counter()
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
            if since is not None:
                explaining += time.perf_counter() - since
            since = time.perf_counter() if event.get("name") == "explain" else None
            if event["event"] == "done":
                converted = time.perf_counter() - began - event["seconds"] + event["converted"]
    took = time.perf_counter() - began
    if process.returncode:
        sys.exit(f"edgeml export of {subject.name} for {target} ended with {process.returncode}")
    return Cost(took - explaining, 0.0, converted=converted, explaining=explaining)


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
    stock = {
        target: [e for e in made if e.target == target and e.maker == "stock"] for target in TARGETS
    }
    controlled = [each for mine in stock.values() if mine for each in accurate(mine)]
    turns: list[tuple[Made, Path, bool]] = [(each, each.files[0], False) for each in made]
    turns += [(each, _copy(each, work), True) for each in controlled]
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for index in rng.permutation(len(turns)):
            each, entry, control = turns[int(index)]
            session = open_session(each.target, entry, options=each.options)
            inputs, outputs = _ports(session)
            dtype = session.inputs[0].dtype
            session.close()
            samples = work / f"measure-{dtype}.npz"
            np.savez(samples, input=_fed(real, each, dtype))
            figures = measure(
                MeasureJob(
                    target=each.target,
                    entry=entry,
                    inputs=inputs,
                    outputs=outputs,
                    samples=samples,
                    options=each.options,
                )
            )
            if control:
                each.copy_p50s_ms = (*each.copy_p50s_ms, figures.p50_ms)
                continue
            each.p50s_ms = (*each.p50s_ms, figures.p50_ms)
            each.p50_ms = min(each.p50s_ms)
            each.p99_ms = min(each.p99_ms, figures.p99_ms)
            each.peak_mb = max(each.peak_mb, figures.peak_rss_mb)


def _copy(made: Made, work: Path) -> Path:
    """The first of an artifact's files, copied byte for byte with the rest of them."""
    folder = work / f"copy-{made.target}-{made.precision}"
    folder.mkdir(exist_ok=True)
    for file in made.files:
        shutil.copy(file, folder)
    return folder / made.files[0].name


if __name__ == "__main__":
    main()
