"""SavedModels that converters take as they are, and those that are written anew for them."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from support.conversions import Source

from edgeml.targets import sources as shared
from edgeml.targets.compiling import CompileJob
from edgeml.targets.runtime import open_session

CONVERT = """
import sys
from pathlib import Path
from edgeml.targets.compiling import CompileJob, compile_here

source, workdir = map(Path, sys.argv[1:])
job = CompileJob(
    source_kind="savedmodel",
    source=source,
    precision="fp32",
    inputs=("left", "right"),
    outputs=("total", "difference"),
    workdir=workdir,
)
compile_here("openvino", job)
print(*({"tensorflow", "torch"} & sys.modules.keys()))
"""


def job(source: Path, workdir: Path) -> CompileJob:
    return CompileJob(
        source_kind="savedmodel",
        source=source,
        precision="fp32",
        inputs=("left", "right"),
        outputs=("total", "difference"),
        workdir=workdir,
    )


def test_a_model_with_a_fixed_batch_is_taken_as_it_is(
    sources: Mapping[str, Source], tmp_path: Path
):
    fixed = shared.savedmodel(job(sources["tensorflow"].path, tmp_path / "first"))
    assert fixed.is_relative_to(tmp_path / "first")  # its batch was open
    again = job(fixed, tmp_path / "second")
    assert shared.savedmodel(again) == fixed
    fewer = msgspec.structs.replace(again, outputs=("total",))
    assert shared.savedmodel(fewer).is_relative_to(tmp_path / "second")


def test_openvino_needs_no_other_framework_for_it(sources: Mapping[str, Source], tmp_path: Path):
    source = sources["tensorflow"]
    fixed = shared.savedmodel(job(source.path, tmp_path / "fixed"))
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, fixed, tmp_path / "out"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
    session = open_session("openvino", tmp_path / "out" / "model-fp32.xml")
    found = session.run({name: array[:1] for name, array in source.feeds.items()})
    for name, expected in source.expected.items():
        np.testing.assert_allclose(found[name], expected[:1], rtol=1e-4, atol=1e-5)
