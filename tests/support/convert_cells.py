"""Takes a model of each kind through every cell of the table, and tells what came out.

    python convert_cells.py TORCH_FOLDER KERAS_FOLDER WORK [CELL…]

The folders are those of export_torch.py and export_keras.py; the artifacts go to WORK. CELL is
SOURCE-TARGET-PRECISION, converted in the order given; all of them where none is. Writes
WORK/told.json: of each cell the SHA-256 of every file, the options and the names that its session
takes, or why there is none. A ``mixed`` artifact keeps the layer float that comes out worst in
int8, and tells all layers' noise.
"""

import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np

from edgeml.exporter.child import ENVIRONMENT
from edgeml.exporter.sources.forms import ArrayShape, Opened, OpenJob, parse_model
from edgeml.targets.compiling import CompileJob, CompileResult, compile_here
from edgeml.targets.layers import SignalJob, signals_here
from edgeml.targets.registry import CALIBRATED, TARGETS, Precision, can_make
from edgeml.toolchain import install
from edgeml.toolchain.spec import TOOLCHAINS

HERE = Path(__file__).resolve().parent
KINDS = {"torch": "torch", "keras": "savedmodel", "onnx": "onnx", "sklearn": "classical"}
PRECISIONS: tuple[Precision, ...] = (
    "fp32",
    "fp16",
    "int8",
    "int8-dynamic",
    "int8-weights",
    "int4-weights",
    "int16x8",
    "mixed",
)
# The NVIDIA targets' graphs are ONNX's, with other options: one of them shows both.
CELLS = tuple(
    (source, target, precision)
    for source, kind in KINDS.items()
    for target in TARGETS
    if target != "tensorrt"
    for precision in PRECISIONS
    if can_make(target, kind, precision) is None
)
SAMPLES = 24


class Source:
    """A model, opened as an export opens it, with samples."""

    def __init__(self, opened: Opened, samples: np.ndarray, work: Path) -> None:
        self.opened = opened
        self.npz = work / "samples.npz"
        np.savez(self.npz, **{opened.inputs[0].name: samples})
        self.calibration = work / "calibration"
        self.calibration.mkdir()
        np.save(self.calibration / "0.npy", samples)
        self._made: dict[tuple[str, Precision], CompileResult] = {}

    def made(self, precision: Precision, target: str, work: Path) -> CompileResult:
        """Converted once, though a ``mixed`` artifact rests on two others."""
        if (target, precision) not in self._made:
            job = self.job(precision, target, work)
            self._made[target, precision] = compile_here(target, job)
        return self._made[target, precision]

    def job(self, precision: Precision, target: str, work: Path) -> CompileJob:
        toolchain = TARGETS[target].bridges.get(self.opened.kind)
        return CompileJob(
            source_kind=self.opened.kind,
            source=self.opened.path,
            precision=precision,
            inputs=tuple(tensor.name for tensor in self.opened.inputs),
            outputs=tuple(tensor.name for tensor in self.opened.outputs),
            workdir=work,
            calibration=self.calibration if precision in CALIBRATED else None,
            bridge=bridge(toolchain) if toolchain else None,
        )


def bridge(toolchain: str) -> Path:
    """Its interpreter; waits for an installation that goes on."""
    with install.ready(TOOLCHAINS[toolchain], say=lambda _: None) as python:
        return python


def open_model(model: str, samples: np.ndarray, work: Path) -> Source:
    import importlib

    source = parse_model(model)
    work.mkdir(parents=True)
    job = OpenJob(
        form=source.form,
        path=source.path,
        attribute=source.attribute,
        workdir=work,
        shapes=(ArrayShape("", samples.shape[1:], "float32"),),
    )
    return Source(importlib.import_module(source.opener).open_source(job), samples, work)


def sources(torch: Path, keras: Path, work: Path) -> Mapping[str, Callable[[], Source]]:
    def image(folder: Path) -> np.ndarray:
        with np.load(folder / "calibration.npz") as data:
            return data["image"][:SAMPLES]

    def rows() -> np.ndarray:
        from sklearn.datasets import load_iris

        return load_iris().data.astype("float32")[::6]

    return {
        "torch": lambda: open_model(
            f"{HERE / 'export_torch.py'}:trained", image(torch), work / "torch"
        ),
        "keras": lambda: open_model(str(keras / "net.keras"), image(keras), work / "keras"),
        "onnx": lambda: open_model(str(torch / "net.onnx"), image(torch), work / "onnx"),
        "sklearn": lambda: open_model(
            f"{HERE / 'export_classical.py'}:forest", rows(), work / "sklearn"
        ),
    }


def convert(source: Source, target: str, precision: Precision, work: Path) -> dict[str, object]:
    work.mkdir(parents=True, exist_ok=True)
    told: dict[str, object] = {}
    if precision == "mixed":
        job = source.job(precision, target, work)
        exact, quantized = (source.made(each, target, work) for each in ("fp32", "int8"))
        signals = signals_here(
            target, SignalJob(job=job, exact=exact, quantized=quantized, samples=source.npz)
        )
        worst = min(signals, key=lambda each: each.snr_db)
        job = msgspec.structs.replace(job, keep_float=(worst.name,))
        told["signals"] = msgspec.to_builtins(signals)
        made = compile_here(target, job)
    else:
        made = source.made(precision, target, work)
    return {
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in made.files},
        "inputs": made.inputs,
        "outputs": made.outputs,
        "options": made.options,
        **told,
    }


def results(
    torch: Path, keras: Path, work: Path, wanted: list[str]
) -> Iterator[tuple[str, dict[str, object]]]:
    made = sources(torch, keras, work)
    opened: dict[str, Source] = {}
    named = {"-".join(cell): cell for cell in CELLS}
    for cell in wanted or named:
        source, target, precision = named[cell]
        try:
            if source not in opened:
                opened[source] = made[source]()
            yield cell, convert(opened[source], target, precision, work / f"{source}-{target}")
        except Exception as error:  # noqa: BLE001 - told, and the other cells go on
            traceback.print_exc()
            yield cell, {"error": f"{type(error).__name__}: {error}"}


def main(torch: str, keras: str, work: str, *cells: str) -> None:
    folders = (Path(each).resolve() for each in (torch, keras, work))
    document = dict(results(*folders, list(cells)))
    (Path(work) / "told.json").write_text(json.dumps(document))


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    os.environ["EXPORT_TEST_FOLDER"] = str(Path(sys.argv[1]).resolve())
    main(*sys.argv[1:])
