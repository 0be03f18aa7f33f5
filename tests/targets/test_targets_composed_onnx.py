"""A torch program that is taken apart without tracing gives the same ONNX file as one that torch
has decomposed, but for the names of values inside."""

import onnx
import pytest
import torch
from torch import nn

from edgeml.targets.onnx.composed import take_apart

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
            nn.BatchNorm2d(4, affine=False),
            nn.ReLU(),
            nn.Hardswish(),
            nn.SiLU(),
            nn.Hardsigmoid(),
            nn.AvgPool2d(2, padding=1, count_include_pad=False),
            nn.LeakyReLU(),
            nn.GELU(),
        )
        self.halve = nn.AdaptiveAvgPool2d((1, 3))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.along = nn.Conv1d(1, 2, 3)
        self.classify = nn.Linear(4, 3)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.features(image)
        return (
            self.classify(self.pool(found).flatten(1)).softmax(-1),
            self.halve(found).sigmoid(),
            torch.cat([found, found * 2], 1).mean((2, 3)),
            self.along(image.flatten(2)).tanh(),
            found.permute(0, 2, 3, 1) + 1,
            found.reshape(1, -1) - 1,
            (found - image.mean((2, 3), keepdim=True)).view(1, -1),
        )


class Turned(nn.Module):
    """What torch reshapes here it copies first."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.permute(0, 2, 3, 1).expand(1, 16, 16, 2).reshape(1, -1) + 1


def exported(module: nn.Module, **more: object) -> torch.export.ExportedProgram:
    return torch.export.export(module, (IMAGE,), strict=False, **more)  # type: ignore[arg-type]


def as_onnx(program: torch.export.ExportedProgram) -> list[bytes]:
    """What of the file sessions read, with values named in the order in which they appear."""
    made = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=18)
    assert made is not None
    graph: onnx.GraphProto = made.model_proto.graph
    names: dict[str, str] = {}
    weights = {each.name: each for each in graph.initializer}
    parts: list[bytes] = []
    for node in graph.node:
        parts += [weights[name].raw_data for name in node.input if name in weights]
        for side in (node.input, node.output):
            side[:] = [names.setdefault(name, str(len(names))) for name in side]
        node.name = node.doc_string = ""
        del node.metadata_props[:]
        parts.append(node.SerializeToString(deterministic=True))
    return [*parts, *(names[each.name].encode() for each in graph.output)]


def test_the_file_is_the_one_that_the_decompositions_give():
    torch.manual_seed(0)
    network = Network().eval()
    mine = exported(network)
    assert take_apart(mine)
    assert as_onnx(mine) == as_onnx(exported(network))


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(1).train(),
        nn.Sequential(nn.AdaptiveAvgPool2d(5), nn.ReLU()),  # 16 is no multiple of 5
        nn.InstanceNorm2d(1),
        nn.Softplus(),
        Turned(),
    ],
)
def test_what_is_not_listed_is_left_to_torch(module: nn.Module):
    assert not take_apart(exported(module))


def test_an_output_keeps_its_name():
    """It stands in the program's signature."""
    assert not take_apart(exported(nn.Sequential(nn.ReLU(), nn.Flatten())))


@pytest.mark.parametrize("last", [nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 1, 1)])
def test_an_open_axis_is_left_to_torch(last: nn.Module):
    shapes = ({2: torch.export.Dim.DYNAMIC},)
    network = nn.Sequential(nn.Conv2d(1, 1, 3), last, nn.ReLU())
    assert not take_apart(exported(network.eval(), dynamic_shapes=shapes))
