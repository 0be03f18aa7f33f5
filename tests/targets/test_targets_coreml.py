"""Core ML: made and looked over here, run on a Mac alone."""

from __future__ import annotations

import platform
import zipfile
from collections.abc import Mapping
from pathlib import Path

import coremltools
import msgspec
import pytest
import torch
from support.conversions import Make, Source, save_torch
from support.torch_modules import Camera, singular_values

from edgeml.errors import RefusedError, ToolchainError
from edgeml.targets.compiling import CompileJob, compile_here
from edgeml.targets.coreml import structure
from edgeml.targets.coreml.convert import Converted, Port
from edgeml.targets.host import can_run_here

FLOAT32 = 65568  # as Core ML's format of models numbers it


def unpacked(entry: Path, folder: Path):
    with zipfile.ZipFile(entry) as archive:
        archive.extractall(folder / "model.mlpackage")
    return coremltools.models.MLModel(str(folder / "model.mlpackage"), skip_model_load=True)


@pytest.mark.parametrize(
    ("name", "precision"),
    [("pair", "fp32"), ("tensorflow", "fp16"), ("classifier", "int8-weights")],
)
def test_a_package_takes_and_gives_what_its_source_does(
    name: str, precision, make: Make, sources: Mapping[str, Source], tmp_path: Path
):
    artifact = make(name, "coreml", precision)
    (entry,) = artifact.files
    description = unpacked(entry, tmp_path).get_spec().description
    for found, names, arrays in (
        (description.input, artifact.inputs, sources[name].feeds),
        (description.output, artifact.outputs, sources[name].expected),
    ):
        described = {each.name: each.type.multiArrayType for each in found}
        assert set(names) == set(arrays)
        assert set(names.values()) == set(described)
        for source, runtime in names.items():
            assert tuple(described[runtime].shape) == (1, *arrays[source].shape[1:])
            assert described[runtime].dataType == FLOAT32


def test_fewer_bits_are_fewer_bytes(make: Make):
    whole, rounded = (
        make("classifier", "coreml", precision).files[0].stat().st_size
        for precision in ("fp32", "int8-weights")
    )
    assert rounded < whole


def test_outputs_of_one_shape_keep_their_names(make: Make, tmp_path: Path):
    """Both are [1, 8]: only the operators behind them tell one from the other."""
    artifact = make("tensorflow", "coreml", "fp16")
    program = unpacked(artifact.files[0], tmp_path).get_spec().mlProgram.functions["main"]
    (block,) = program.block_specializations.values()
    makers = {out.name: each for each in block.operations for out in each.outputs}

    def behind(name: str) -> str:
        maker = makers[artifact.outputs[name]]
        while maker.type == "cast":  # float16 inside, float32 outside
            maker = makers[maker.inputs["x"].arguments[0].name]
        return maker.type

    assert behind("total") in {"linear", "matmul"}
    assert behind("difference") == "reduce_mean"


def test_the_same_model_gives_the_same_bytes(
    make: Make, sources: Mapping[str, Source], tmp_path: Path
):
    again = compile_here("coreml", sources["pair"].job("fp32", tmp_path, None))
    assert again.files[0].read_bytes() == make("pair", "coreml", "fp32").files[0].read_bytes()


class Listener(torch.nn.Module):
    """A spectrum by a matrix product and its logarithm, then a layer of the model's own."""

    def __init__(self):
        super().__init__()
        self.spectrum = torch.nn.Linear(64, 40, bias=False)
        self.head = torch.nn.Linear(40, 32, bias=False)

    def forward(self, x):
        return self.head((self.spectrum(x).square() + 1e-5).log())


def test_weights_that_lead_up_to_a_spectrum_s_logarithm_stay_float(tmp_path: Path):
    save_torch(Listener(), {"x": torch.ones(1, 64).numpy()}, tmp_path / "m.pt2")
    whole = msgspec.structs.replace(job(tmp_path / "m.pt2", tmp_path), precision="int8-weights")
    rounded: dict[int, set[tuple[int, ...]]] = {}
    for spectra in (0, 1):
        made = compile_here("coreml", msgspec.structs.replace(whole, spectra=spectra))
        program = unpacked(made.files[0], tmp_path / str(spectra)).get_spec().mlProgram
        (block,) = program.functions["main"].block_specializations.values()
        rounded[spectra] = {
            tuple(axis.constant.size for axis in each.outputs[0].type.tensorType.dimensions)
            for each in block.operations
            if each.type.startswith("constexpr_")
        }
    assert rounded == {0: {(40, 64), (32, 40)}, 1: {(32, 40)}}


@pytest.mark.skipif(platform.system() == "Darwin", reason="a Mac runs it")
def test_that_it_runs_on_a_mac_alone_is_said():
    refusal = can_run_here("coreml")
    assert refusal is not None
    assert "runs on a Mac alone" in refusal.reason


def job(path: Path, workdir: Path) -> CompileJob:
    return CompileJob(
        source_kind="torch",
        source=path,
        precision="fp32",
        inputs=("x",),
        outputs=("y",),
        workdir=workdir,
    )


def test_an_operator_that_it_lacks_is_named_with_its_line(tmp_path: Path):
    save_torch(Camera(singular_values), {"x": torch.ones(1, 1, 8, 8).numpy()}, tmp_path / "m.pt2")
    with pytest.raises(RefusedError, match=r"svd.*torch_modules\.py:"):
        compile_here("coreml", job(tmp_path / "m.pt2", tmp_path / "out"))


class Tokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 4)

    def forward(self, x):
        return self.table(x)


def test_a_type_that_it_lacks_is_refused_before_it_is_changed_in_silence(tmp_path: Path):
    save_torch(Tokens(), {"x": torch.ones(1, 3, dtype=torch.int64).numpy()}, tmp_path / "m.pt2")
    with pytest.raises(RefusedError, match="'x' is int64") as caught:
        compile_here("coreml", job(tmp_path / "m.pt2", tmp_path / "out"))
    assert "int32" in caught.value.remedy


def test_a_package_that_is_not_as_its_source_is_found_out(make: Make, tmp_path: Path):
    model = unpacked(make("classifier", "coreml", "fp32").files[0], tmp_path)
    right = [Port("image", (1, 1, 8, 8), "float32")], [Port("scores", (1, 10), "float32")]
    structure.check(Converted(model, *right))
    with pytest.raises(ToolchainError, match="8, 8"):
        structure.check(Converted(model, [Port("image", (1, 8, 8, 1), "float32")], right[1]))
