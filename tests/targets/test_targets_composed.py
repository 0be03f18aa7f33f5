"""A torch program in OpenVINO's operators is what torch's own decompositions make of it, and its
inputs have types and names."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import nn

from edgeml.targets.compiling import CompileJob, compile_here
from edgeml.targets.openvino.composed import as_taken
from edgeml.targets.runtime import NamedSession, open_session

IMAGE = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Every operator that is taken or written as another."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU6(),
            nn.MaxPool2d(2, padding=1),
            nn.Conv2d(4, 4, 3, groups=2, dilation=2, padding=2, bias=False),
            nn.ReLU(),
            nn.Hardswish(),
            nn.SiLU(),
            nn.Hardsigmoid(),
            nn.AvgPool2d(2),
            nn.LeakyReLU(),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.along = nn.Conv1d(1, 2, 3)
        self.classify = nn.Linear(16, 3)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.features(image)
        return (
            self.classify(found.flatten(1)).softmax(-1),
            self.pool(found),
            torch.cat([found, found * 2], 1).mean((2, 3)),
            self.along(image.flatten(2)).tanh(),
            found.permute(0, 2, 3, 1).reshape(1, -1) + 1,
            (found - image.mean((2, 3), keepdim=True)).sigmoid().view(1, -1),
        )


def exported(module: nn.Module, **more: object) -> torch.export.ExportedProgram:
    return torch.export.export(module, (IMAGE,), strict=False, **more)  # type: ignore[arg-type]


def operators(model: ov.Model) -> list[str]:
    return [each.get_type_name() for each in model.get_ordered_ops()]


def test_the_model_is_the_one_that_the_decompositions_give():
    torch.manual_seed(0)
    program = exported(Network().eval())
    module = as_taken(program)
    assert module is not None
    mine = ov.convert_model(TorchFXPythonDecoder(module, dynamic_shapes=True))
    theirs = ov.convert_model(program)
    assert operators(mine) == operators(theirs)
    for one, other in zip(
        *(ov.compile_model(each, "CPU")(IMAGE.numpy()).values() for each in (mine, theirs)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_what_is_fitted_to_each_batch_is_left_to_torch():
    assert as_taken(exported(nn.BatchNorm2d(1).train())) is None


@pytest.mark.parametrize(
    "module", [nn.InstanceNorm2d(1), nn.Conv2d(1, 1, 3, padding="same"), nn.Softplus()]
)
def test_other_operators_are_left_to_torch(module: nn.Module):
    assert as_taken(exported(module.eval())) is None


def test_an_open_axis_is_left_to_torch():
    shapes = ({2: torch.export.Dim.DYNAMIC},)
    assert as_taken(exported(nn.Conv2d(1, 1, 3).eval(), dynamic_shapes=shapes)) is None


class Early(nn.Module):
    """A whole number meets the input before any weight does, and the input is an output, too."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return image - 1, image


def test_an_input_has_a_type_and_a_name_of_its_own(tmp_path: Path):
    torch.export.save(exported(Early()), tmp_path / "early.pt2")
    job = CompileJob(
        source_kind="torch",
        source=tmp_path / "early.pt2",
        precision="fp32",
        inputs=("image",),
        outputs=("less", "same"),
        workdir=tmp_path / "work",
    )
    made = compile_here("openvino", job)
    session = open_session("openvino", made.files[0], options=made.options)
    with NamedSession(session, made.inputs, made.outputs) as named:
        found = named.run({"image": IMAGE.numpy()})
    np.testing.assert_allclose(found["less"], IMAGE.numpy() - 1)
    np.testing.assert_array_equal(found["same"], IMAGE.numpy())
