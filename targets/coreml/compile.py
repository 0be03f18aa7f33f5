"""Makes Core ML artifacts: an ``.mlpackage``, which is a folder, in a zip archive of its own.

They are looked over and not run: only a Mac has the runtime.
"""

from __future__ import annotations

import json
import shutil
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.coreml import structure
from edgeml.targets.coreml.convert import coremltools, model_of

# Zip archives know no earlier time; that of the file would make no two archives the same.
_TIME = (1980, 1, 1, 0, 0, 0)


def compile(job: CompileJob) -> CompileResult:  # noqa: A001 - the name that all targets share
    """Makes one ``.mlpackage.zip``. Inputs and outputs stay float32 whatever is computed in."""
    made = model_of(job, half=job.precision == "fp16")
    if job.precision == "int8-weights":
        kept = structure.spectra(made.model.get_spec(), job.spectra)
        made = made._replace(model=_int8_weights(made.model, kept))
    inputs, outputs = structure.check(made)
    folder = job.workdir / f"model-{job.precision}.mlpackage"
    shutil.rmtree(folder, ignore_errors=True)
    made.model.save(str(folder))
    entry = job.workdir / f"model-{job.precision}.mlpackage.zip"
    _pack(folder, entry)
    return CompileResult(
        files=(entry,),
        inputs={port.name: name for port, name in zip(made.inputs, inputs, strict=True)},
        outputs={port.name: name for port, name in zip(made.outputs, outputs, strict=True)},
    )


def _int8_weights(model: Any, kept: Sequence[str]) -> Any:
    """Weights in int8, symmetric, with a scale a channel, but for those of the operations that are
    kept; arithmetic stays float."""
    coremltools()
    optimize = sources.framework("coremltools.optimize.coreml")
    rule = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=512)
    config = optimize.OptimizationConfig(global_config=rule, op_name_configs=dict.fromkeys(kept))
    return optimize.linear_quantize_weights(model, config=config)


def _pack(folder: Path, entry: Path) -> None:
    """The folder as one file, the same bytes for the same model."""
    manifest = folder / "Manifest.json"
    _fix_identifiers(manifest)
    _fix_order(folder / "Data" / "com.apple.CoreML" / "model.mlmodel")
    files = sorted((folder / "Data").rglob("*"))
    with zipfile.ZipFile(entry, "w") as archive:
        for path in (manifest, *(each for each in files if each.is_file())):
            member = zipfile.ZipInfo(f"{path.relative_to(folder)}", _TIME)
            archive.writestr(member, path.read_bytes())


def _fix_identifiers(path: Path) -> None:
    """coremltools draws an identifier for each item at random: make it one of the item itself."""
    manifest: dict[str, Any] = json.loads(path.read_text())
    items: dict[str, dict[str, Any]] = manifest["itemInfoEntries"]
    fixed = {
        old: str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])).upper()
        for old, item in items.items()
    }
    manifest["itemInfoEntries"] = {fixed[old]: item for old, item in items.items()}
    manifest["rootModelIdentifier"] = fixed[manifest["rootModelIdentifier"]]
    path.write_text(json.dumps(manifest, indent=4, sort_keys=True))


def _fix_order(path: Path) -> None:
    """Maps of Protobuf are written in an order that is drawn anew in every process."""
    model: Any = sources.framework("coremltools.proto.Model_pb2").Model()
    model.ParseFromString(path.read_bytes())
    path.write_bytes(model.SerializeToString(deterministic=True))
